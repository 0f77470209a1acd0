"""Targets of the benchmark."""

import pytest

from trainers.benchmarks.targets import LINES, Line, is_met
from trainers.benchmarks.timing import Measurement


@pytest.mark.parametrize(
    ("bounds", "measurement", "expected"),
    [
        ({"most": 2}, Measurement(2.0), True),
        ({"most": 2}, Measurement(2.1, peer=9.0), False),
        ({"most": 2, "of_ratio": True}, Measurement(6.0, peer=3.0), True),
        ({"most": 2, "of_ratio": True}, Measurement(6.0, peer=2.0), False),
        ({"least": 2, "of_ratio": True}, Measurement(6.0, peer=2.0), True),
        ({"least": 7}, Measurement(6.0), False),
        ({"most": 2, "of_ratio": True}, Measurement(6.0), None),
        ({"most": 2}, Measurement(reason="no such machine"), None),
        ({}, Measurement(1.0), None),
    ],
)
def test_a_target_is_met_within_its_bounds(bounds, measurement, expected):
    assert is_met(Line("group", "key", "title", "ms", **bounds), measurement) is expected


def test_keys_of_lines_are_unique():
    assert len({line.key for line in LINES}) == len(LINES)


def test_a_target_is_printed_in_words():
    targets = {line.key: line.target for line in LINES}
    assert targets["match_400"] == "at most 1.5" and targets["step_torch"] == "ratio at least 1.1"
    assert targets["step_xla"] == ""
