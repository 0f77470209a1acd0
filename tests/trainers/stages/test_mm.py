"""The words for a collapse."""

import pytest

from trainers.stages import mm

HEALTHY = {"positive_distance": 0.5, "negative_distance": 1.3, "effective_rank": 3.0}


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (HEALTHY, False),
        (
            HEALTHY | {"positive_distance": 0.0},
            False,
        ),  # classes drawn to points: what tuning is for
        (HEALTHY | {"positive_distance": 1e-5, "negative_distance": 1e-5}, True),
        (HEALTHY | {"effective_rank": 1.001}, True),
    ],
)
def test_collapse(metrics, expected):
    assert mm.collapsed(metrics) is expected
