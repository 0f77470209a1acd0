"""The settings and data that each stage of a folder was made with."""

import json
import pathlib
import zlib
from collections.abc import Sequence

from pipelines import datasets
from trainers import config
from trainers.runs.runtime import Runtime, WorkdirError
from trainers.runs.stage import Stage

# What `record` adds to the configuration.
_FACTS = (
    *("classes", "num_train_images", "num_eval_images", "train_checksum", "eval_checksum"),
    "num_replicas",
)
# They say which images are predicted: training and export do not depend on them.
_EVALUATION_KEYS = {"data.eval_split", "num_eval_images", "eval_checksum"}

# Paths that may differ from worker to worker.
_FILE_KEYS = {"data.unlabelled_dir", "network.init_weights"}


def record(
    experiment: config.Experiment, stage: Stage, dataset: datasets.Dataset, num_replicas: int = 1
) -> dict:
    """The configuration that a stage depends on, flat, and the facts of the data set that it
    was run on; of a training stage also the number of replicas, if there were several. An
    ensemble's holds its members' records as well.
    """
    flat = _deciding(experiment, stage)
    for workdir in experiment.ensemble:
        theirs = read_record(pathlib.Path(workdir), "segment")
        flat |= {f"{workdir} {key}": theirs[key] for key in theirs if key not in config.FREE_KEYS}
    facts = (
        list(dataset.spec.class_names),
        dataset.train.num_images,
        dataset.eval.num_images,
        _checksum(dataset.train),
        _checksum(dataset.eval),
        num_replicas,
    )
    several = num_replicas > 1 and stage.trains
    return flat | dict(zip(_FACTS if several else _FACTS[:-1], facts, strict=False))


def _checksum(split: datasets.Split) -> str:
    """Tells other images and masks, or corrected ones, from those of before."""
    return f"{zlib.crc32(repr((split.ids, split.checksums)).encode()):08x}"


def own(experiment: config.Experiment, stage: Stage, runtime: Runtime) -> dict:
    """The record of a stage of this run."""
    return record(experiment, stage, runtime.dataset, runtime.replicas.count)


def _deciding(experiment, stage):
    """The part of the configuration that a stage depends on, flat."""
    task = config.proxy_task(experiment)
    if experiment.ensemble:
        sections = {"data", "evaluate", "ensemble"}  # all else is told by its members' records
    else:
        sections = {"data", "network", task, *stage.sections, "precision", "seed"}
    if task is None or experiment.ensemble:
        experiment = config.replace(experiment, "data.unlabelled_dir", None)  # not used
    return {
        key: value
        for key, value in config.flatten(experiment).items()
        if key.split(".")[0] in sections
    }


def read_record(workdir: pathlib.Path, name: str) -> dict:
    """What `record` said of stage `name` of another run.

    Raises:
        WorkdirError: there is no such record, or it cannot be read.
    """
    path = workdir / name / "config.json"
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise WorkdirError(
            f"{path} cannot be read ({error.strerror}): expected the working folder of a run whose "
            f"stage {name} is done."
        ) from error
    except ValueError as error:
        raise WorkdirError(f"{path} is not JSON ({error}): restore it, or run anew.") from error
    if not isinstance(content, dict) or not isinstance(content.get("classes"), list):
        raise WorkdirError(f"{path} names no classes: expected the record of a stage.")
    return content


def stored_experiment(workdir: pathlib.Path, name: str) -> config.Experiment:
    """The configuration that stage `name` of another run was made with; what it does not depend on
    has its default.

    Raises:
        WorkdirError: see `read_record`.
        config.ConfigError: the record was written by another version.
    """
    flat = read_record(workdir, name)
    flat = {key: value for key, value in flat.items() if key not in _FACTS}
    return config.from_flat(flat, str(workdir / name / "config.json"))


def check_workdir(
    runtime: Runtime,
    experiment: config.Experiment,
    table: Sequence[Stage],
    asked: Sequence[str] | None = None,
):
    """Refuse a folder that holds stages of another configuration.

    Args:
        table: all stages.
        asked: names of the stages that will run; None for all. The images that were evaluated
            matter only to them, so that other images can be predicted later.

    Raises:
        WorkdirError: names each differing key with both values.
    """
    for stage in table:
        path = runtime.folder(stage.name) / "config.json"
        if not path.exists():
            continue
        theirs, ours = json.loads(path.read_text()), own(experiment, stage, runtime)
        is_asked = stage.shows_images and (asked is None or stage.name in asked)
        free = config.FREE_KEYS if is_asked else config.FREE_KEYS | _EVALUATION_KEYS
        if runtime.result(stage.name):  # a finished stage may be built upon with other devices
            free = free | {"num_replicas"}
        differing = [
            f"{key}: {theirs.get(key)} there, {ours.get(key)} asked for"
            for key in sorted(theirs.keys() | ours.keys())
            if key not in free and theirs.get(key) != ours.get(key)
        ]
        if differing:
            raise WorkdirError(
                f"{path.parent} was made with another configuration, or from other images and "
                f"masks (a checksum tells), than what is asked for: {'; '.join(differing)}. "
                "Choose another --workdir, or start anew with --overwrite."
            )


def check_workers(runtime: Runtime, experiment: config.Experiment, table: Sequence[Stage]):
    """Refuses workers that were started with other settings or find other data than the chief.

    Raises:
        WorkdirError: names them.
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
