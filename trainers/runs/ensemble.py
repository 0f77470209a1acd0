"""Ensembles: finished runs in working folders of their own, whose class probabilities are averaged.

A run without an ensemble counts as one of a single part, so that stages need not tell them apart.
"""

import dataclasses
import itertools
import pathlib

from trainers import config
from trainers.runs import records
from trainers.runs.runtime import WorkdirError

WEIGHTS = "segmenter.weights.h5"
"""The file in folder segment that a part's network is loaded from."""


def parts(experiment: config.Experiment) -> list[config.Experiment]:
    """The experiment itself, or those of the members of its ensemble.

    A member has its own network, precision and size of images, as its folder's
    segment/config.json has it; how images are predicted (`evaluate`) is the ensemble's.

    Raises:
        WorkdirError: a member whose record is missing or cannot be read.
        config.ConfigError: a record that another version wrote.
    """
    if not experiment.ensemble:
        return [experiment]
    stored = (_stored(workdir, "segment") for workdir in experiment.ensemble)
    return [dataclasses.replace(member, evaluate=experiment.evaluate) for member in stored]


def weights(experiment: config.Experiment) -> list[pathlib.Path]:
    """The members' weights, in their order; empty if the experiment is no ensemble.

    Raises:
        WorkdirError: a member that was not fine-tuned to its end.
    """
    files = [pathlib.Path(workdir) / "segment" / WEIGHTS for workdir in experiment.ensemble]
    for file in files:
        if not file.exists():
            raise WorkdirError(
                f"{file} is missing: run --stage=segment in {file.parents[1]} first."
            )
    return files


def of_workdirs(workdirs: list[str]) -> config.Experiment:
    """The experiment that evaluates an ensemble, on the data set of its first member and as that
    one was evaluated, if it was.

    Raises:
        config.ConfigError: fewer than two folders, one of them twice, or a record that another
            version wrote.
        WorkdirError: a folder without a readable record of stage segment, or members of
            different classes.
    """
    if len(workdirs) < 2 or len(set(map(pathlib.Path, workdirs))) < len(workdirs):
        raise config.ConfigError(
            "--ensemble takes two or more different working folders, with commas between them. "
            f"Received {','.join(workdirs)!r}."
        )
    for other in workdirs[1:]:
        _check_same(other, _classes(other), workdirs[0], _classes(workdirs[0]))
    first = pathlib.Path(workdirs[0])
    stage = "evaluate" if (first / "evaluate" / "config.json").exists() else "segment"
    return dataclasses.replace(_stored(first, stage), ensemble=tuple(workdirs))


def check_classes(experiment: config.Experiment, dataset_name: str, class_names: tuple[str, ...]):
    """Refuses members that were not trained on the data set's classes.

    Raises:
        WorkdirError: names the member, the data set and the first classes that differ.
    """
    for workdir in experiment.ensemble:
        _check_same(workdir, _classes(workdir), f"data set {dataset_name}", list(class_names))


def default_workdir(experiment: config.Experiment) -> pathlib.Path:
    """runs/DATASET-ensemble-A+B, where A and B are the members' folders without the data set's
    name.
    """
    dataset = experiment.data.dataset
    names = (pathlib.Path(workdir).resolve().name for workdir in experiment.ensemble)
    joined = "+".join(name.removeprefix(f"{dataset}-") for name in names)
    return pathlib.Path("runs") / f"{dataset}-ensemble-{joined}"


def _stored(workdir, stage):
    return records.stored_experiment(pathlib.Path(workdir), stage)


def _classes(workdir):
    return records.read_record(pathlib.Path(workdir), "segment")["classes"]


def _check_same(name, classes, other_name, others):
    if classes == others:
        return
    pairs = list(itertools.zip_longest(classes, others, fillvalue="missing"))
    differing = [f"class {k} is {a}, not {b}" for k, (a, b) in enumerate(pairs) if a != b]
    raise WorkdirError(
        f"{name} has other classes than {other_name}: {'; '.join(differing[:3])}. Class "
        "probabilities can be averaged only over networks of the same classes in the same order."
    )
