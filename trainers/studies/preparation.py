"""From settings to a study whose runs are known to fit, before the first of them starts."""

import dataclasses
import pathlib

import rich.console

from pipelines import datasets
from trainers import config
from trainers.config import resolved
from trainers.runs import records
from trainers.runs.dataset import load_dataset
from trainers.runs.runtime import Runtime
from trainers.stages import STAGES
from trainers.studies import plan, step_cost
from trainers.training import networks


@dataclasses.dataclass(frozen=True)
class Plan:
    """The runs asked for: `arms` and `changes` as `plan.plan` takes them, and all `seeds`."""

    arms: list[str]
    seeds: list[int]
    changes: list[str]


def prepare(
    settings: resolved.Resolved, asked: Plan, workdir: pathlib.Path, console: rich.console.Console
) -> tuple[plan.Study, datasets.Dataset]:
    """Plan a study and check it against the files that are there already.

    Raises:
        config.UserError: settings, arms, data or folders do not fit.
    """
    shared = networks.with_possible_width(settings, console).experiment
    networks.check(shared)
    dataset = load_dataset(shared.data)
    for message in dataset.messages:
        console.print(message, highlight=False)
    shorter_side = dataset.train.shorter_side
    in_pixels = config.resolve(shared, shorter_side)
    cost = step_cost.count(in_pixels, dataset.spec.num_classes)
    arms = plan.plan(asked.arms, asked.seeds, asked.changes, in_pixels, cost)
    study = plan.Study(workdir, arms, shared, shorter_side, settings.preset)
    for arm, seed in study.runs():
        where = Runtime(study.folder(arm, seed), dataset, console)
        records.check_workdir(where, study.experiment(arm, seed), STAGES)
    return study, dataset
