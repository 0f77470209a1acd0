"""Ensembles: finished runs whose class probabilities are averaged.

A run without an ensemble is an ensemble of one part, so stages have no special case.
"""

import dataclasses
import itertools
import pathlib
import shlex

from trainers import config
from trainers.runs import records
from trainers.runs.runtime import WorkdirError, is_changed, read_results

WEIGHTS = "segmenter.weights.h5"
"""The file in folder segment with the weights of a part's network."""


def parts(experiment: config.Experiment) -> list[config.Experiment]:
    """Return the settings of each member of an ensemble; without an ensemble, the experiment alone.

    A member has its own network, precision and size of images, read from segment/config.json. The
    settings of prediction (`evaluate`) come from the ensemble.

    Raises:
        WorkdirError: a member whose record is missing or cannot be read.
        config.ConfigError: a record that another version wrote.
    """
    if not experiment.ensemble:
        return [experiment]
    stored = (_stored(workdir, "segment") for workdir in experiment.ensemble)
    return [dataclasses.replace(member, evaluate=experiment.evaluate) for member in stored]


def channels(experiment: config.Experiment) -> int | None:
    """Return `network.channels` of the members of an ensemble, or of the experiment."""
    return parts(experiment)[0].network.channels


def weights(experiment: config.Experiment) -> list[pathlib.Path]:
    """Return the members' weight files, in order; empty if the experiment is no ensemble.

    Raises:
        WorkdirError: a member that was not fine-tuned to its end, or whose weights were changed.
    """
    files = [pathlib.Path(workdir) / "segment" / WEIGHTS for workdir in experiment.ensemble]
    for file in files:
        if not file.exists():
            raise WorkdirError(f"{file} is missing: finish this run first: {_command(file)}")
        if is_changed(file, read_results(file.parent)):
            again = _command(file, "--overwrite", "--stage=segment")
            raise WorkdirError(
                f"{file} was changed or damaged after its stage wrote it. Restore it, or make it "
                f"again: {again}"
            )
    return files


def _command(file, *flags):
    """Return a command for the run of the member with these weights."""
    folder, compare = file.parents[1], []
    if folder.name == "naive":
        folder, compare = folder.parent, ["--compare"]
    return shlex.join(["python", "-m", "trainers.mm", f"--workdir={folder}", *flags, *compare])


def of_workdirs(workdirs: list[str]) -> config.Experiment:
    """Return the settings that evaluate an ensemble.

    The data set, and the way of evaluation if there was one, come from the first member.

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
    """Raise an error if a member was not trained on the data set's classes.

    Raises:
        WorkdirError: names the member, the data set and the first classes that differ.
    """
    for workdir in experiment.ensemble:
        _check_same(workdir, _classes(workdir), f"data set {dataset_name}", list(class_names))


def default_workdir(experiment: config.Experiment) -> pathlib.Path:
    """Return runs/DATASET-ensemble-A+B; A and B are the members' folders without the data set."""
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
