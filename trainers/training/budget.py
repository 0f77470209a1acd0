"""Plan the steps of all stages from a time budget and the measured time of a step."""

import dataclasses
import pathlib
import statistics
import tempfile
from collections.abc import Iterable

from trainers import config
from trainers.config import resolved, schedules
from trainers.runs import stage_scope
from trainers.runs.files import save_weights
from trainers.runs.runtime import Runtime
from trainers.training import networks

WARM_UP_STEPS = 3
"""Steps before the clock starts: TensorFlow traces the step and fills its buffers. Source: ours."""
TIMED_STEPS = 7
"""Steps whose median duration counts. Source: ours."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """The time of one stage on this machine.

    Attributes:
        section: section of the settings: mm, segment or a pretext task.
        steps: steps of the stage before planning.
        step_seconds: seconds of a step.
        start_seconds: seconds before the first step.
    """

    section: str
    steps: int
    step_seconds: float
    start_seconds: float

    @property
    def seconds(self) -> float:
        """Seconds of all steps."""
        return self.steps * self.step_seconds


def planned(
    settings: resolved.Resolved, costs: Iterable[Cost], minutes: float
) -> resolved.Resolved:
    """Return settings whose stages take `minutes` together, start included.

    All stages that train get the same factor on their steps, so the time is divided as before.

    Args:
        settings: the settings of a command.
        costs: the measured stages.
        minutes: the budget, without evaluation and export.

    Raises:
        config.ConfigError: the budget does not reach for one step of each stage; names the least.

    Example:
        >>> costs = [Cost("mm", 100, 0.1, 5.0), Cost("segment", 400, 0.05, 5.0)]
        >>> plan = planned(resolved.of_preset("quick"), costs, minutes=2)
        >>> plan.experiment.mm.steps, plan.experiment.segment.steps
        (366, 1466)
    """
    costs = [cost for cost in costs if cost.steps]
    start = sum(cost.start_seconds for cost in costs)
    least = start + sum(cost.step_seconds for cost in costs)
    total = sum(cost.seconds for cost in costs)
    if not costs or 60 * minutes < least:
        raise config.ConfigError(
            f"minutes={minutes:g} is too short: one step of each stage takes {least:.0f} seconds "
            f"here, with their start. Give at least {least / 60 + 0.1:.1f} minutes."
        )
    factor = (60 * minutes - start) / total
    steps = {f"{cost.section}.steps": max(1, int(factor * cost.steps)) for cost in costs}
    return schedules.changed(settings, steps, "derived")


def planned_before(settings: resolved.Resolved, workdir: pathlib.Path) -> resolved.Resolved | None:
    """Return the settings with the steps of a run that has begun; None if there is no such run.

    A resumed run keeps its plan, although a step may take another time now.
    """
    file = workdir / "settings.json"
    if not file.exists():
        return None
    recorded, _ = resolved.read_file(file)
    steps = {k: v for k, v in recorded.items() if k.endswith((".steps", ".drops"))}
    return settings.changed(steps, "derived")


def describe(settings: resolved.Resolved, costs: Iterable[Cost]) -> list[str]:
    """Return one line for each stage of a plan: its steps and its time."""
    lines = []
    for cost in costs:
        steps = getattr(settings.experiment, cost.section).steps
        minutes = (cost.start_seconds + steps * cost.step_seconds) / 60
        lines.append(
            f"{cost.section}: {steps} steps of {1000 * cost.step_seconds:.0f} ms, "
            f"{minutes:.1f} minutes"
        )
    return lines


def measure(experiment: config.Experiment, runtime: Runtime, stages: Iterable) -> list[Cost]:
    """Time a few steps of each stage that trains, in a folder of their own.

    Args:
        experiment: the settings, sizes in pixels.
        runtime: the run, with a console for the lines of the stages; its folder is not touched.
        stages: `trainers.runs.stage.Stage`, in order.

    Returns:
        The cost of each stage with steps.
    """
    short = _shortened(experiment)
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = dataclasses.replace(runtime, workdir=pathlib.Path(folder), step_seconds={})
        for stage in stages:
            if not stage.trains:
                continue
            _provide_weights(stage.needs, short, scratch)
            section = config.proxy_task(experiment) if stage.name == "proxy" else stage.name
            steps = getattr(experiment, section).steps if section else 0
            if steps:
                costs += _measured(stage, section, steps, short, scratch)
            elif section:  # it passes on the first weights, which the next stage reads
                stage_scope.run_stage(stage, short, scratch)
    return costs


def _provide_weights(earlier, experiment, scratch):
    """Write random weights where an earlier stage is not timed; its time of a step is the same."""
    if earlier is None:
        return
    path = scratch.folder(earlier) / "backbone.weights.h5"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(networks.backbone(experiment), path)


def _measured(stage, section, steps, short, scratch) -> list[Cost]:
    started = scratch.clock()
    stage_scope.run_stage(stage, short, scratch)
    seconds = scratch.clock() - started
    durations = scratch.step_seconds[stage.name]
    step_seconds = statistics.median(durations[WARM_UP_STEPS:])
    return [Cost(section, steps, step_seconds, max(seconds - step_seconds * len(durations), 0.0))]


def _shortened(experiment):
    """Return the experiment with a few steps in each stage that trains, each of them logged."""
    sections = (config.proxy_task(experiment), "mm", "segment")
    values = {}
    for section in filter(None, sections):
        if getattr(experiment, section).steps:
            few = {"steps": WARM_UP_STEPS + TIMED_STEPS, "log_every": 1, "drops": ()}
            values |= {f"{section}.{key}": value for key, value in few.items()}
    values |= {"segment.validate_every": 0, "data.validation": None}
    values |= {"segment.start_from_hubs": False}  # a single stage is timed without stage mm
    return config.changed(experiment, values)
