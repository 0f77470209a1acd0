"""Where a run lives: its console, seeds and precision, its working folder, and the record of each
stage.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import shutil
import tempfile
import time
import zlib
from collections.abc import Sequence

import keras
import rich.console
import tensorflow as tf

from pipelines import datasets
from trainers import config, strategy

STAGES = ("proxy", "mm", "segment", "evaluate", "export", "predict")
"""In the order in which they need each other's files."""

SECTIONS = {
    "proxy": (),
    "mm": ("mm",),
    "segment": ("mm", "segment"),
    "evaluate": ("mm", "segment", "evaluate"),
    "export": ("mm", "segment", "evaluate"),
    "predict": ("mm", "segment", "evaluate"),
}
"""The parts of the configuration that decide what a stage writes, besides those of all stages."""

# What `record` adds to the configuration.
_FACTS = (
    *("classes", "num_train_images", "num_eval_images", "train_checksum", "eval_checksum"),
    "num_replicas",
)
# They say which images are predicted: training and export do not depend on them.
_EVALUATION_KEYS = {"data.eval_split", "num_eval_images", "eval_checksum"}

TRAINING = ("proxy", "mm", "segment")
"""The stages in which all replicas work; the others are the chief's."""

# Paths that may differ from worker to worker.
_FILE_KEYS = {"data.unlabelled_dir", "network.init_weights"}


class WorkdirError(config.UserError):
    """The working folder does not fit what was asked for."""


@dataclasses.dataclass
class Runtime:
    """What a stage needs besides its configuration.

    workdir: folder of this run.
    dataset: the loaded data set.
    console: for everything that a person should read.
    arm: "" for the tuned network, "naive" for fine-tuning without M&M; its stages live in a folder
        of that name.
    replicas: the devices that train.
    scratch: where a worker other than the chief writes what nobody reads, so that it runs the same
        code as the chief; None for the chief.
    """

    workdir: pathlib.Path
    dataset: datasets.Dataset
    console: rich.console.Console
    arm: str = ""
    replicas: strategy.Replicas = dataclasses.field(default_factory=strategy.Replicas)
    scratch: tempfile.TemporaryDirectory | None = None

    def naive(self) -> "Runtime":
        """The same run without M&M."""
        return dataclasses.replace(self, arm="naive")

    def folder(self, stage: str) -> pathlib.Path:
        """Where this process writes what the stage leaves."""
        root = pathlib.Path(self.scratch.name) if self.scratch else self.workdir
        return root / self.arm / stage

    def source(self, stage: str) -> pathlib.Path:
        """Where all workers read what the stage left."""
        return self.workdir / self.arm / stage

    def needed(self, stage: str, filename: str) -> pathlib.Path:
        """A file that an earlier stage left.

        Raises:
            WorkdirError: it is not there; names the stage to run.
        """
        path = self.source(stage) / filename
        if not path.exists():
            raise WorkdirError(
                f"{path} is missing: run the same command with --stage={stage} first (or with "
                "--stage=all, which does it by itself)."
            )
        return path

    def result(self, stage: str) -> dict | None:
        """What a finished stage reported, or None."""
        path = self.source(stage) / "results.json"
        return json.loads(path.read_text()) if path.exists() else None

    def is_done(self, stage: str) -> bool:
        """Whether the chief finds the stage finished; all workers get the same answer."""
        return bool(self.replicas.every_worker(self.result(stage) is not None)[0])

    def say(self, text: str):
        self.console.print(text, highlight=False)


def load_dataset(data: config.Data) -> datasets.Dataset:
    """The data set and the part of it that is asked for.

    Raises:
        config.ConfigError: it is not there or not usable; the message says what to do.
    """
    try:
        dataset = datasets.load(
            data.dataset,
            data_dir=data.data_dir,
            train_split=data.train_split,
            eval_split=data.eval_split,
            max_unreadable=data.max_unreadable,
            void_value=data.void_value,
        )
        return datasets.select(dataset, data.num_train_images, data.holdout)
    except datasets.DatasetError as error:
        raise config.ConfigError(str(error)) from error


def set_up(experiment: config.Experiment):
    """Makes the process repeatable, unless XLA is asked for, which Keras leaves out where all is
    repeatable; and sets its precision. Call before a stage builds its model.
    """
    keras.utils.clear_session(free_memory=True)
    keras.utils.set_random_seed(experiment.seed)
    if not config.uses_xla(experiment):
        tf.config.experimental.enable_op_determinism()
    keras.mixed_precision.set_global_policy(experiment.precision)


@contextlib.contextmanager
def stage(runtime: Runtime, name: str, experiment: config.Experiment):
    """Runs the body as a stage: config.json before it, results.json with its cost after it.

    Yields:
        A dict for the stage's results; `seconds` and `peak_bytes` are added. A body that sets
        `seconds` itself (because it continued an earlier run) keeps it.
    """
    folder = runtime.folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", _record(experiment, name, runtime))
    set_up(experiment)
    reset_peak()
    started, results = time.monotonic(), {}
    yield results
    results.setdefault("seconds", round(time.monotonic() - started, 2))
    results["peak_bytes"] = peak_bytes()
    write_json(folder / "results.json", results)


def record(
    experiment: config.Experiment, name: str, dataset: datasets.Dataset, num_replicas: int = 1
) -> dict:
    """The configuration that stage `name` depends on, flat, and the facts of the data set that it
    was run on; of a training stage also the number of replicas, if there were several. An
    ensemble's holds its members' records as well.
    """
    flat = _deciding(experiment, name)
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
    several = num_replicas > 1 and name in TRAINING
    return flat | dict(zip(_FACTS if several else _FACTS[:-1], facts, strict=False))


def _checksum(split: datasets.Split) -> str:
    """Tells other images and masks, or corrected ones, from those of before."""
    return f"{zlib.crc32(repr((split.ids, split.checksums)).encode()):08x}"


def _record(experiment, name, runtime):
    return record(experiment, name, runtime.dataset, runtime.replicas.count)


def _deciding(experiment, name):
    """The part of the configuration that stage `name` depends on, flat."""
    task = config.proxy_task(experiment)
    if experiment.ensemble:
        sections = {"data", "evaluate", "ensemble"}  # all else is told by its members' records
    else:
        sections = {"data", "network", task, *SECTIONS[name], "precision", "seed"}
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


def check_workdir(runtime: Runtime, experiment: config.Experiment, stages: Sequence[str] = STAGES):
    """Refuses a folder that holds stages of another configuration. Which images were evaluated
    matters only to those of `stages`, so that other ones can be predicted later.

    Raises:
        WorkdirError: names each differing key with both values.
    """
    for name in STAGES:
        path = runtime.folder(name) / "config.json"
        if not path.exists():
            continue
        theirs, ours = json.loads(path.read_text()), _record(experiment, name, runtime)
        is_asked = name in stages and name in ("evaluate", "predict")
        free = config.FREE_KEYS if is_asked else config.FREE_KEYS | _EVALUATION_KEYS
        if runtime.result(name):  # a finished stage may be built upon with other devices
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


def check_workers(runtime: Runtime, experiment: config.Experiment):
    """Refuses workers that were started with other settings or find other data than the chief.

    Raises:
        WorkdirError: names them.
    """
    if runtime.replicas.cluster is None:
        return
    records = [_record(experiment, name, runtime) for name in STAGES]
    settings = [
        sorted(
            (key, value) for key, value in entry.items() if key not in config.FREE_KEYS | _FILE_KEYS
        )
        for entry in records
    ]
    fingerprints = runtime.replicas.every_worker(zlib.crc32(json.dumps(settings).encode()))
    others = [str(k) for k, value in enumerate(fingerprints) if value != fingerprints[0]]
    if others:
        raise WorkdirError(
            f"Worker {', '.join(others)} of TF_CONFIG has other settings or another data set than "
            "worker 0: start the same command on every worker."
        )


def clear(runtime: Runtime, stages: list[str]):
    """Removes the given stages and all that were made from them."""
    first = min(STAGES.index(name) for name in stages)
    for name in STAGES[first:]:
        shutil.rmtree(runtime.folder(name), ignore_errors=True)
    (runtime.workdir / "results.json").unlink(missing_ok=True)


def write_json(path: pathlib.Path, content: dict):
    """Writes under a temporary name, then renames, so that a reader never meets half a file."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def save_weights(model: keras.Model, path: pathlib.Path):
    """Writes a `.weights.h5` file, complete or not at all."""
    temporary = path.with_name(f"{os.getpid()}.tmp.weights.h5")
    model.save_weights(temporary)
    temporary.replace(path)


def gather(runtime: Runtime):
    """Collects the stages' results.json files into the run's own; stages that were not run are left
    out.
    """
    results = _gathered(runtime)
    naive = _gathered(runtime.naive())
    if naive["stages"]:
        results["naive"] = naive
    write_json(runtime.workdir / "results.json", results)
    return results


def _gathered(runtime: Runtime) -> dict:
    stages = {name: runtime.result(name) for name in STAGES}
    stages = {name: result for name, result in stages.items() if result is not None}
    figures = {key: value for key, value in stages.get("evaluate", {}).items() if key not in _COST}
    if "proxy" in stages:
        figures["proxy"] = stages["proxy"]["figures"]
    costs = {name: {key: result[key] for key in _COST} for name, result in stages.items()}
    return figures | {"stages": costs}


_COST = ("seconds", "peak_bytes")


def reset_peak():
    """Starts a new peak of resident memory, where the system lets a process do so (Linux)."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    for device in tf.config.list_logical_devices("GPU"):
        tf.config.experimental.reset_memory_stats(device.name)


def peak_bytes() -> int:
    """Peak memory since `reset_peak`: of the GPUs if there are any, else of the process."""
    devices = tf.config.list_logical_devices("GPU")
    if devices:
        return sum(
            tf.config.experimental.get_memory_info(device.name)["peak"] for device in devices
        )
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
