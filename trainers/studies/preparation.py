"""Preparation of a study: all its runs are checked before the first one starts."""

import dataclasses
import pathlib

import rich.console

from pipelines import datasets
from trainers import config
from trainers.config import resolved, terminal
from trainers.runs import records
from trainers.runs.dataset import load_dataset
from trainers.runs.runtime import Runtime
from trainers.stages import of_experiment
from trainers.studies import plan, step_cost
from trainers.training import networks


@dataclasses.dataclass(frozen=True)
class Plan:
    """The requested runs, in the form that `plan.plan` takes.

    Attributes:
        arms: "ARM" or "ARM:N".
        seeds: seeds of all arms.
        changes: "ARM:KEY=VALUE".
    """

    arms: list[str]
    seeds: list[int]
    changes: list[str]


def prepare(
    settings: resolved.Resolved, asked: Plan, workdir: pathlib.Path, console: rich.console.Console
) -> tuple[plan.Study, datasets.Dataset]:
    """Plan a study and compare it with the runs that its folder already holds.

    Args:
        settings: settings that all arms share.
        asked: the requested runs.
        workdir: folder of the study.
        console: prints the messages of the data set.

    Returns:
        The study and the loaded data set.

    Raises:
        config.UserError: the settings, the arms, the data set or the folders cannot be used.
    """
    shared = networks.with_possible_width(settings, console).experiment
    networks.check(shared)
    dataset = load_dataset(shared.data, shared.network.channels)
    for message in dataset.messages:
        console.print(terminal.printable(message))
    shorter_side = dataset.train.shorter_side
    in_pixels = config.resolve(shared, shorter_side, dataset.spec.num_bands)
    cost = step_cost.count(in_pixels, dataset.spec.num_classes)
    arms = plan.plan(asked.arms, asked.seeds, asked.changes, in_pixels, cost)
    study = plan.Study(workdir, arms, shared, shorter_side, settings.preset)
    for arm, seed in study.runs():
        run, experiment = (
            Runtime(study.folder(arm, seed), dataset, console),
            study.experiment(arm, seed),
        )
        records.check_workdir(run, experiment, of_experiment(experiment))
    return study, dataset
