"""The plan of a study: its arms, the budget of each arm, and the commands of its runs."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator

from trainers import config
from trainers.config import presets, unused
from trainers.stages import select


class StudyError(config.UserError):
    """A study cannot be planned or cannot continue."""


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Multiply-adds of the forward pass.

    Attributes:
        mm: one step of M&M.
        segment: one step of fine-tuning.
    """

    mm: int
    segment: int


def naive_longer(experiment: config.Experiment, cost: StepCost) -> dict[str, object]:
    """Return the changes of an arm without M&M that costs as much as M&M and fine-tuning together.

    The number of fine-tuning steps is rounded up. The drops of the learning rate keep their share
    of the schedule.

    Args:
        experiment: settings with M&M and with sizes in pixels.
        cost: multiply-adds of the steps of these settings.

    Returns:
        {key: value}.
    """
    settings = experiment.segment
    num_steps = settings.steps + math.ceil(experiment.mm.steps * cost.mm / cost.segment)
    drops = tuple(round(drop * num_steps / settings.steps) for drop in settings.drops)
    return {**presets.WITHOUT_MM, "segment.steps": num_steps, "segment.drops": drops}


def longer(experiment: config.Experiment, cost: StepCost) -> dict[str, object]:
    """Return the changes of an arm that fine-tunes twice as long, as pseudo-labels do.

    Args:
        experiment: settings with sizes in pixels.
        cost: not used.
    """
    settings = experiment.segment
    drops = tuple(2 * drop for drop in settings.drops)
    return {"segment.steps": 2 * settings.steps, "segment.drops": drops}


def _triplets(matching):
    # Other losses do not match.
    return {"mm.loss": "triplet", "mm.matching": matching}


ARMS = {
    "naive": lambda experiment, cost: presets.WITHOUT_MM,
    "naive_longer": naive_longer,
    "random_triplets": lambda experiment, cost: _triplets("random_triplets"),
    "class_connected": lambda experiment, cost: _triplets("class_connected"),
    "longer": longer,
    "pseudo_labels": lambda experiment, cost: {"data.pseudo_labels": config.REST},
}
"""{name: function(settings with sizes in pixels, StepCost) -> changes of the settings}."""

_TUNED = frozenset(("naive_longer", "random_triplets", "class_connected"))
"""The arms that need steps of M&M."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """One setting of a study.

    Attributes:
        name: of the arm and of its folder.
        changes: {key: value} on top of the settings that all arms share.
        seeds: the seeds of its runs.
    """

    name: str
    changes: dict[str, object]
    seeds: tuple[int, ...]


def plan(
    names: list[str],
    seeds: list[int],
    changes: list[str],
    shared: config.Experiment,
    cost: StepCost,
) -> list[Arm]:
    """Return the arms of a study.

    Args:
        names: "ARM", or "ARM:N" for an arm that is run with the first N seeds only.
        seeds: seeds of all arms.
        changes: "ARM:KEY=VALUE", changes of the settings of one arm.
        shared: settings that all arms share, with sizes in pixels.
        cost: multiply-adds of the steps of `shared`.

    Raises:
        config.ConfigError: an unknown arm, or a change of another form or without effect.
        StudyError: an arm needs steps of M&M and there are none, or an arm or a seed is repeated.
    """
    own = _changes_by_arm(changes)
    names_and_seeds = [_arm_and_seeds(name, seeds) for name in names]
    names = [name for name, _ in names_and_seeds]
    if shared.mm.steps == 0 and (idle := _TUNED.intersection(names)):
        raise StudyError(
            f"mm.steps is 0, so these arms would be equal to naive: {', '.join(sorted(idle))}. "
            "Expected at least 1: use preset tuned, or set mm.steps. Or leave them out of --arms."
        )
    for kind, values in (("arms", names), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise StudyError(f"Expected one or more different {kind}. Received {values}.")
    for name in own.keys() - set(names):
        raise config.ConfigError(config.unknown("arm with changes", name, names))
    return [
        Arm(name, _changes_of(name, own.get(name), shared, cost), chosen)
        for name, chosen in names_and_seeds
    ]


def _arm_and_seeds(text, seeds):
    name, colon, number = text.partition(":")
    if not colon:
        return name, tuple(seeds)
    if not number.isdecimal() or not 1 <= int(number) <= len(seeds):
        raise StudyError(f"Expected ARM:N with N in 1..{len(seeds)}. Received {text!r}.")
    return name, tuple(seeds[: int(number)])


def _changes_by_arm(assignments):
    changes = {}
    for text in assignments:
        name, colon, assignment = text.partition(":")
        key, equals, value = assignment.partition("=")
        if not (colon and equals):
            raise config.ConfigError(
                f"A change of an arm has the form ARM:KEY=VALUE. Received {text!r}."
            )
        changes.setdefault(name, {})[key] = value
    return changes


def _changes_of(name, own, shared, cost):
    if name not in ARMS and own is None:
        raise config.ConfigError(
            f"{config.unknown('arm', name, ARMS)} An arm of your own needs at least one change of "
            f"the form {name}:KEY=VALUE."
        )
    usual, own = ARMS[name](shared, cost) if name in ARMS else {}, own or {}
    unused.check(config.changed(shared, usual | own), own)
    return usual | own


@dataclasses.dataclass(frozen=True)
class Study:
    """All runs of a study.

    Attributes:
        workdir: folder of the study.
        arms: in the order of the summary. Differences are computed to the first arm.
        shared: the settings of all arms; sizes may still be shares of the shorter side.
        shorter_side: shorter side of the images in pixels; it turns such sizes into pixels.
        preset: name of the preset of `shared`.
    """

    workdir: pathlib.Path
    arms: list[Arm]
    shared: config.Experiment
    shorter_side: int
    preset: str = ""

    def runs(self) -> Iterator[tuple[Arm, int]]:
        """Yield all runs, seed by seed, so that early runs can be compared early."""
        for seed in dict.fromkeys(seed for arm in self.arms for seed in arm.seeds):
            yield from ((arm, seed) for arm in self.arms if seed in arm.seeds)

    def experiment(self, arm: Arm, seed: int) -> config.Experiment:
        """Return the settings of one run, with sizes in pixels.

        Raises:
            config.ConfigError: an unknown key, or a value that cannot be used.
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
        """Return the settings of the stages that all arms of a seed share."""
        return config.resolve(config.replace(self.shared, "seed", seed), self.shorter_side)

    def first_stages(self) -> list[str]:
        """Return the stages before M&M. They depend on no setting that an arm changes."""
        return [stage.name for stage in select(["all"], self.shared) if not stage.sections]

    def stages(self, experiment: config.Experiment) -> list[str]:
        """Return the stages of a run: from M&M to the last stage that variants have in common."""
        chosen = [stage for stage in select(["all"], experiment) if stage.sections]
        last = max(k for k, stage in enumerate(chosen) if stage.is_compared)
        return [stage.name for stage in chosen[: last + 1]]


def settings_file(folder: pathlib.Path) -> pathlib.Path:
    """Return the path of the settings file that a study writes for the run in `folder`."""
    return folder / "study_settings.json"


def command(stages: list[str], folder: pathlib.Path) -> list[str]:
    """Return the interpreter's arguments for a run of some stages in a folder.

    >>> " ".join(command(["mm", "segment"], pathlib.Path("s")))
    '-m trainers.mm --config=s/study_settings.json --stage=mm,segment --workdir=s'
    """
    return [
        "-m",
        "trainers.mm",
        f"--config={settings_file(folder)}",
        f"--stage={','.join(stages)}",
        f"--workdir={folder}",
    ]
