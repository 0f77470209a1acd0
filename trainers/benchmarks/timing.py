"""Timing of tasks in turn, and the record of a measurement."""

import dataclasses
import statistics
import time
from collections.abc import Callable

Samples = dict[str, list[float]]
"""{name of the task: seconds of each round}."""


NOT_REQUESTED = "not among the requested groups"
"""The reason of lines that no one asked for."""


class NotRun(Exception):  # noqa: N818 - it is no failure
    """This machine cannot measure something; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The measurement of one line of the benchmark.

    Attributes:
        figure: the measured value; None if the line did not run.
        peer: the value of the reference; None without a reference.
        reason: the reason why the line did not run.
    """

    figure: float | None = None
    peer: float | None = None
    reason: str = ""

    @property
    def ratio(self) -> float | None:
        """The figure divided by the value of the peer."""
        return None if self.figure is None or self.peer is None else self.figure / self.peer


def interleaved(
    tasks: dict[str, Callable], rounds: int, clock: Callable[[], float] = time.process_time
) -> Samples:
    """Time each task in each round.

    Every round runs every task, so that other load on the machine affects all of them.

    Args:
        tasks: {name: function that returns when its work is done}. Each one is called once without
            timing first.
        rounds: number of timed calls of each task.
        clock: function that returns seconds. The default is the CPU time of all threads of this
            process.
    """
    for task in tasks.values():
        task()
    return sampled({name: _timer(task, clock) for name, task in tasks.items()}, rounds)


def sampled(timers: dict[str, Callable[[], float]], rounds: int) -> Samples:
    """Call functions that return their own seconds, in turn and without a first untimed call.

    >>> sampled({"a": lambda: 0.5}, rounds=2)
    {'a': [0.5, 0.5]}
    """
    samples = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            samples[name].append(timer())
    return samples


def medians(samples: Samples, factor: float = 1.0) -> dict[str, float]:
    """Return the median of each task, multiplied by `factor`.

    >>> medians({"a": [3.0, 1.0, 100.0]}, factor=2)
    {'a': 6.0}
    """
    return {name: factor * statistics.median(values) for name, values in samples.items()}


def _timer(task, clock):
    def seconds():
        start = clock()
        task()
        return clock() - start

    return seconds
