"""How the benchmark measures: tasks in turn, and what a benchmark line and its reading are."""

import dataclasses
import statistics
import time
from collections.abc import Callable

Samples = dict[str, list[float]]


class NotRun(Exception):  # noqa: N818 - nothing went wrong
    """This machine cannot measure something; the message says why."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the benchmark.

    group: lines of a group are measured together.
    key, title: its name, and what a person reads.
    unit: of the figure, and of the peer's.
    peer: what it is compared with; empty where it stands alone.
    most, least: bounds of the figure; of its ratio to the peer's if `of_ratio`. None: no target.
    """

    group: str
    key: str
    title: str
    unit: str
    peer: str = ""
    most: float | None = None
    least: float | None = None
    of_ratio: bool = False


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a line measured: its figure and its peer's, or the reason why there is none."""

    figure: float | None = None
    peer: float | None = None
    reason: str = ""

    @property
    def ratio(self) -> float | None:
        """Figure over peer."""
        return None if self.figure is None or self.peer is None else self.figure / self.peer


def is_met(line: Line, reading: Reading) -> bool | None:
    """Whether the target is met; None without a target, or where nothing was measured."""
    value = reading.ratio if line.of_ratio else reading.figure
    if value is None or (line.most is None and line.least is None):
        return None
    return (line.most is None or value <= line.most) and (line.least is None or value >= line.least)


def interleaved(
    tasks: dict[str, Callable], rounds: int, clock: Callable[[], float] = time.process_time
) -> Samples:
    """Seconds of each task in each round. Every round runs every task, so that what else the
    machine does falls on all of them.

    Args:
        tasks: functions that return when their work is done; each is called once before, untimed.
        rounds: how often each is timed.
        clock: seconds; by default those that the processors spent on all threads of this process.
    """
    for task in tasks.values():
        task()
    return sampled({name: _timer(task, clock) for name, task in tasks.items()}, rounds)


def sampled(timers: dict[str, Callable[[], float]], rounds: int) -> Samples:
    """As `interleaved`, of functions that return their seconds and need no first call."""
    samples = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            samples[name].append(timer())
    return samples


def medians(samples: Samples, factor: float = 1.0) -> dict[str, float]:
    """The median of each task, times `factor`."""
    return {name: factor * statistics.median(values) for name, values in samples.items()}


def _timer(task, clock):
    def seconds():
        start = clock()
        task()
        return clock() - start

    return seconds
