"""Timing of tasks in turn, and medians."""

from trainers.benchmarks import timing


def test_every_round_runs_every_task():
    calls, ticks = [], iter(range(100))
    tasks = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    samples = timing.interleaved(tasks, rounds=3, clock=lambda: next(ticks))
    assert calls == ["a", "b"] * 4  # the first call of each task is not timed
    assert samples == {"a": [1, 1, 1], "b": [1, 1, 1]}


def test_medians_are_multiplied_by_the_factor():
    assert timing.medians({"a": [3.0, 1.0, 100.0]}, factor=2) == {"a": 6.0}
