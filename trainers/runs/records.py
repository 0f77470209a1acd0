"""The settings and data that each stage of a folder was made with."""

import functools
import json
import os
import pathlib
import zlib
from collections.abc import Collection, Sequence

from pipelines import datasets
from pipelines.datasets.files import checksum
from trainers import config
from trainers.runs import facts
from trainers.runs.runtime import Runtime, WorkdirError
from trainers.runs.stage import Stage

# These keys select the images to predict: training and export do not depend on them.
_EVALUATION_KEYS = {"data.eval_split", "num_eval_images", "eval_checksum"}

# Paths that may differ from worker to worker.
_FILE_KEYS = {"data.unlabelled_dir", "network.init_weights"}


def record(
    experiment: config.Experiment, stage: Stage, dataset: datasets.Dataset, num_replicas: int = 1
) -> dict:
    """Return the settings that a stage depends on, and the facts of its data set.

    Returns:
        {key: value}, ready for JSON: the settings, the class names, and the number and checksum of
        the images. With several replicas a training stage has their number as well. The record of
        an ensemble holds the records of its members.
    """
    flat = _deciding(experiment, stage)
    for workdir in experiment.ensemble:
        theirs = read_record(pathlib.Path(workdir), "segment")
        flat |= {f"{workdir} {key}": theirs[key] for key in theirs if key not in config.FREE_KEYS}
    values = (
        list(dataset.spec.class_names),
        dataset.train.num_images,
        dataset.eval.num_images,
        _checksum(dataset.train),
        _checksum(dataset.eval),
    )
    flat |= dict(zip(facts.DATA, values, strict=True))
    if num_replicas > 1 and stage.trains:
        flat[facts.NUM_REPLICAS] = num_replicas
    return flat | _input_checksums(experiment, stage, dataset)


def _input_checksums(experiment, stage, dataset):
    """Return checksums of further input files: of the init, the pretext task, pseudo-labels."""
    found = {}
    if not experiment.ensemble and experiment.network.init_weights is not None:
        found["init_checksum"] = _of_files(experiment.network.init_weights)
    if config.proxy_task(experiment) and experiment.data.unlabelled_dir is not None:
        found["unlabelled_checksum"] = _of_files(experiment.data.unlabelled_dir)
    if _has_pseudo_labels(experiment, stage):
        name = experiment.data.pseudo_labels
        is_rest = name == config.REST
        found["pseudo_checksum"] = _checksum(dataset.left_out) if is_rest else _of_files(name)
    return found


def _has_pseudo_labels(experiment, stage) -> bool:
    """Return whether images that the teacher labelled decide the result of a stage."""
    has_section = config.PSEUDO_LABELS in stage.sections and not experiment.ensemble
    return has_section and experiment.data.pseudo_labels is not None


@functools.cache
def _of_files(path):
    """Return a checksum of a file, or of all regular files below a folder with their names."""
    root = pathlib.Path(path)
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    total = 0
    for file in files:
        total = checksum(file, zlib.crc32(os.fsencode(file.relative_to(root)), total))
    return f"{total:08x}"


def _checksum(split: datasets.Split) -> str:
    """Return a checksum that changes with every image and mask of a split."""
    return f"{zlib.crc32(repr((split.ids, split.checksums)).encode()):08x}"


def own(experiment: config.Experiment, stage: Stage, runtime: Runtime) -> dict:
    """Return the record of a stage of this run."""
    return record(experiment, stage, runtime.dataset, runtime.replicas.count)


def _deciding(experiment, stage):
    """Return the part of the settings that a stage depends on, flat."""
    task = config.proxy_task(experiment)
    if experiment.ensemble:
        sections = {"data", "evaluate", "ensemble"}  # the members' records hold the rest
    else:
        sections = {"data", "network", task, *stage.sections, "precision", "seed"}
    if task is None or experiment.ensemble:
        experiment = config.replace(experiment, "data.unlabelled_dir", None)  # not used
    flat = config.flatten(experiment)
    if not _has_pseudo_labels(experiment, stage):
        flat = {key: value for key, value in flat.items() if key not in config.PSEUDO_KEYS}
    return {key: value for key, value in flat.items() if key.split(".")[0] in sections}


def read_record(workdir: pathlib.Path, name: str) -> dict:
    """Read the record of a stage of another run.

    Raises:
        WorkdirError: there is no such record, or it cannot be read.
    """
    path = workdir / name / "config.json"
    content = _read(path)
    if not isinstance(content.get("classes"), list):
        raise WorkdirError(f"{path} names no classes: expected the record of a stage.")
    return content


def _read(path: pathlib.Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkdirError(
            f"{path} cannot be read ({error.strerror}): expected the working folder of a run with "
            f"a finished stage {path.parent.name}."
        ) from error
    except ValueError as error:
        raise WorkdirError(_damaged(path, f"is not JSON ({error})")) from error
    if not isinstance(content, dict):
        raise WorkdirError(_damaged(path, "holds no settings"))
    return content


def _damaged(path, problem):
    return (
        f"{path} {problem}. Restore it, or remove the folder {path.parent} and run its stage again."
    )


def stored_experiment(workdir: pathlib.Path, name: str) -> config.Experiment:
    """Return the settings of a stage of another run; keys that it does not depend on have defaults.

    Raises:
        WorkdirError: see `read_record`.
        config.ConfigError: the record was written by another version.
    """
    flat = read_record(workdir, name)
    flat = {key: value for key, value in flat.items() if key not in facts.ALL}
    return config.from_flat(flat, str(workdir / name / "config.json"))


def check_workdir(
    runtime: Runtime,
    experiment: config.Experiment,
    table: Sequence[Stage],
    asked: Sequence[str] | None = None,
    removed: Collection[tuple[str, str]] = (),
) -> None:
    """Raise an error if a folder holds stages with other settings.

    Args:
        table: all stages.
        asked: names of the stages that will run; None for all. The images that were evaluated
            matter only to them, so that other images can be predicted later.
        removed: (variant, stage) of the folders that the command removes first.

    Raises:
        WorkdirError: names each differing key with both values, and the command that works.
    """
    problems = {}
    for variant in ("", "naive"):
        for stage in table:
            if (variant, stage.name) in removed:
                continue
            is_asked = stage.shows_images and (asked is None or stage.name in asked)
            found = differing(runtime.of(variant), experiment, stage, is_asked)
            if found:
                problems[variant, stage.name] = found
    if problems:
        raise WorkdirError(_refusal(runtime, problems, table, asked))


def differing(
    runtime: Runtime, experiment: config.Experiment, stage: Stage, is_asked: bool = True
) -> list[str]:
    """Return the settings with which a stage in the folder was made and that differ from ours.

    Args:
        is_asked: whether the images to predict count as well.

    Returns:
        One text for each key, with both values; empty if there is no such stage.
    """
    path = runtime.source(stage.name) / "config.json"
    if not path.exists():
        left = [name for name in ("checkpoints", "results.json") if (path.parent / name).exists()]
        return [f"{path.name} is missing beside {left[0]} in {path.parent}"] if left else []
    theirs, ours = _read(path), own(experiment, stage, runtime)
    free = config.FREE_KEYS if is_asked else config.FREE_KEYS | _EVALUATION_KEYS
    if runtime.result(stage.name):  # other devices may build upon a finished stage
        free = free | {facts.NUM_REPLICAS}
    return [
        f"{key}: {theirs.get(key)} there, {ours.get(key)} asked for"
        for key in sorted(theirs.keys() | ours.keys())
        if key not in free and theirs.get(key) != ours.get(key)
    ]


def _refusal(runtime, problems, table, asked):
    """Return the message for stages with other settings."""
    keys = "; ".join(dict.fromkeys(text for found in problems.values() for text in found))
    names = ", ".join(f"{variant} {stage}".strip() for variant, stage in problems)
    left = {name for name in asked or () if runtime.result(name) is None}
    wanted = {stage for _, stage in problems} | left
    stages = ",".join(stage.name for stage in table if stage.name in wanted)
    compare = " --compare" if any(variant for variant, _ in problems) else ""
    return (
        f"{runtime.workdir} holds stages ({names}) that were made with other settings, or from "
        f"other images and masks (their checksums differ): {keys}. Choose another --workdir, or "
        f"run these stages again: --overwrite --stage={stages}{compare}."
    )


def check_workers(runtime: Runtime, experiment: config.Experiment, table: Sequence[Stage]) -> None:
    """Raise an error if workers have other settings or other data than the chief.

    Raises:
        WorkdirError: names the workers.
    """
    if runtime.replicas.cluster is None:
        return
    entries = [own(experiment, stage, runtime) for stage in table]
    settings = [
        sorted(
            (key, value) for key, value in entry.items() if key not in config.FREE_KEYS | _FILE_KEYS
        )
        for entry in entries
    ]
    fingerprints = runtime.replicas.every_worker(zlib.crc32(json.dumps(settings).encode()))
    others = [str(k) for k, value in enumerate(fingerprints) if value != fingerprints[0]]
    if others:
        raise WorkdirError(
            f"Worker {', '.join(others)} of TF_CONFIG has other settings or another data set than "
            "worker 0: start the same command on every worker."
        )
