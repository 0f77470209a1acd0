"""Stage mm: detection of collapsed embeddings."""

import pytest

from trainers.stages import mm

HEALTHY = {"positive_distance": 0.5, "negative_distance": 1.3, "effective_rank": 3.0}


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (HEALTHY, False),
        (HEALTHY | {"positive_distance": 0.0}, False),  # one point per class: the goal of tuning
        (HEALTHY | {"positive_distance": 1e-5, "negative_distance": 1e-5}, True),
        (HEALTHY | {"effective_rank": 1.001}, True),
    ],
)
def test_a_collapse_is_detected_by_distances_or_rank(metrics, expected):
    assert mm.collapsed(metrics) is expected
