"""Tasks in turn, medians, and when a target is met."""

import pytest

from trainers.benchmarks import timing
from trainers.benchmarks.timing import Line, Reading


def test_tasks_take_turns():
    calls, ticks = [], iter(range(100))
    tasks = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    samples = timing.interleaved(tasks, rounds=3, clock=lambda: next(ticks))
    assert calls == ["a", "b"] * 4  # the first calls are not timed
    assert samples == {"a": [1, 1, 1], "b": [1, 1, 1]}


def test_medians():
    assert timing.medians({"a": [3.0, 1.0, 100.0]}, factor=2) == {"a": 6.0}


@pytest.mark.parametrize(
    ("bounds", "reading", "expected"),
    [
        ({"most": 2}, Reading(2.0), True),
        ({"most": 2}, Reading(2.1, peer=9.0), False),
        ({"most": 2, "of_ratio": True}, Reading(6.0, peer=3.0), True),
        ({"most": 2, "of_ratio": True}, Reading(6.0, peer=2.0), False),
        ({"least": 2, "of_ratio": True}, Reading(6.0, peer=2.0), True),
        ({"least": 7}, Reading(6.0), False),
        ({"most": 2, "of_ratio": True}, Reading(6.0), None),
        ({"most": 2}, Reading(reason="no such machine"), None),
        ({}, Reading(1.0), None),
    ],
)
def test_when_a_target_is_met(bounds, reading, expected):
    assert timing.is_met(Line("group", "key", "title", "ms", **bounds), reading) is expected
