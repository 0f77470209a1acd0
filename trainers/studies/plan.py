"""Arms of a study: what they change, what they may spend, and the commands of their runs."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainers import config
from trainers.config import presets
from trainers.stages import select

if TYPE_CHECKING:
    from trainers.studies.step_cost import StepCost


class StudyError(config.UserError):
    """A study that cannot be planned or cannot go on."""


def naive_longer(experiment: config.Experiment, cost: "StepCost") -> dict[str, object]:
    """Fine-tuning without M&M that costs what M&M and fine-tuning cost together.

    It has more steps, rounded up; the drops of the rate keep their share of the schedule.

    Args:
        experiment: resolved, with M&M.
        cost: of its steps.
    """
    settings = experiment.segment
    num_steps = settings.steps + math.ceil(experiment.mm.steps * cost.mm / cost.segment)
    drops = tuple(round(drop * num_steps / settings.steps) for drop in settings.drops)
    return {**presets.WITHOUT_MM, "segment.steps": num_steps, "segment.drops": drops}


ARMS = {
    "naive": lambda experiment, cost: presets.WITHOUT_MM,
    "naive_longer": naive_longer,
    "random_triplets": lambda experiment, cost: {"mm.matching": "random_triplets"},
    "class_connected": lambda experiment, cost: {"mm.matching": "class_connected"},
}
"""Name -> function(resolved experiment, its StepCost) -> changes of the configuration."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """changes: {key: value} on top of what all arms share; seeds: those it is run with."""

    name: str
    changes: dict[str, object]
    seeds: tuple[int, ...]


def plan(
    names: list[str],
    seeds: list[int],
    changes: list[str],
    shared: config.Experiment,
    cost: "StepCost",
) -> list[Arm]:
    """The arms of a study.

    Args:
        names: as the flag --arms takes them.
        seeds: of all arms.
        changes: as the flag --arm_set takes them.
        shared: resolved; what all arms have in common.
        cost: of its steps.

    Raises:
        config.ConfigError: an unknown arm, or a change that does not fit.
        StudyError: M&M has no steps, or seeds or arms come twice.
    """
    if shared.mm.steps == 0:
        raise StudyError("mm.steps is 0, so all arms would be the same: choose some M&M steps.")
    own = _changes_by_arm(changes)
    names_and_seeds = [_arm_and_seeds(name, seeds) for name in names]
    names = [name for name, _ in names_and_seeds]
    for kind, values in (("arms", names), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise StudyError(f"--{kind} takes one or more different ones. Received {values}.")
    for name in own.keys() - set(names):
        raise config.ConfigError(config.unknown("arm of --arm_set", name, names))
    return [
        Arm(name, _changes_of(name, own.get(name), shared, cost), chosen)
        for name, chosen in names_and_seeds
    ]


def _arm_and_seeds(text, seeds):
    name, colon, number = text.partition(":")
    if not colon:
        return name, tuple(seeds)
    if not number.isdecimal() or not 1 <= int(number) <= len(seeds):
        raise StudyError(f"--arms takes ARM:N with N in 1..{len(seeds)}. Received {text!r}.")
    return name, tuple(seeds[: int(number)])


def _changes_by_arm(assignments):
    changes = {}
    for text in assignments:
        name, colon, assignment = text.partition(":")
        key, equals, value = assignment.partition("=")
        if not (colon and equals):
            raise config.ConfigError(f"--arm_set takes ARM:KEY=VALUE. Received {text!r}.")
        changes.setdefault(name, {})[key] = value
    return changes


def _changes_of(name, own, shared, cost):
    if name not in ARMS and own is None:
        raise config.ConfigError(
            f"{config.unknown('arm', name, ARMS)} Another name needs --arm_set={name}:KEY=VALUE."
        )
    usual = ARMS[name](shared, cost) if name in ARMS else {}
    return {**usual, **(own or {})}


@dataclasses.dataclass(frozen=True)
class Study:
    """Runs to be done.

    Attributes:
        workdir: folder of the study.
        arms: in the order of the summary; differences are taken to the first.
        shared: the settings of all arms; sizes may still be shares of the shorter side.
        shorter_side: of the data set's images in pixels; it turns such sizes into pixels.
        preset: name of the preset of `shared`.
    """

    workdir: pathlib.Path
    arms: list[Arm]
    shared: config.Experiment
    shorter_side: int
    preset: str = ""

    def runs(self) -> Iterator[tuple[Arm, int]]:
        """Yield all runs, seed by seed, so that the first ones can be compared early."""
        for seed in dict.fromkeys(seed for arm in self.arms for seed in arm.seeds):
            yield from ((arm, seed) for arm in self.arms if seed in arm.seeds)

    def experiment(self, arm: Arm, seed: int) -> config.Experiment:
        """Return the settings of one run, with sizes in pixels.

        Raises:
            config.ConfigError: a change does not fit.
        """
        experiment = config.changed(self.shared, {**arm.changes, "seed": seed})
        return config.resolve(experiment, self.shorter_side)

    def folder(self, arm: Arm, seed: int) -> pathlib.Path:
        """Return the working folder of one run."""
        return self.workdir / arm.name / f"seed{seed}"

    def first_folder(self, seed: int) -> pathlib.Path:
        """Return the working folder of the stages that all arms of a seed share."""
        return self.workdir / "shared" / f"seed{seed}"

    def first_experiment(self, seed: int) -> config.Experiment:
        """Return the settings of these stages."""
        return config.resolve(config.replace(self.shared, "seed", seed), self.shorter_side)

    def first_stages(self) -> list[str]:
        """Return the stages before M&M: they depend on no setting that an arm changes."""
        return [stage.name for stage in select(["all"], self.shared) if not stage.sections]

    def stages(self) -> list[str]:
        """Return the stages of an arm: from M&M to the last one that variants are compared by."""
        chosen = [stage for stage in select(["all"], self.shared) if stage.sections]
        last = max(k for k, stage in enumerate(chosen) if stage.is_compared)
        return [stage.name for stage in chosen[: last + 1]]


def command(settings_file: pathlib.Path, stages: list[str], folder: pathlib.Path) -> list[str]:
    """Return the arguments of the interpreter that run some stages in a folder."""
    return [
        *("-m", "trainers.mm", f"--config={settings_file}"),
        *(f"--stage={','.join(stages)}", f"--workdir={folder}"),
    ]
