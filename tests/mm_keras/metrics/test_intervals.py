"""Confidence intervals, compared with printed tables, arithmetic by hand and plain loops."""

import math

import numpy as np
import pytest

from mm_keras import metrics
from mm_keras.metrics import intervals

# Two-sided 95 % and 99 % points of Student's t, from a printed table.
TABLE = {
    1: (12.706, 63.657),
    2: (4.303, 9.925),
    3: (3.182, 5.841),
    4: (2.776, 4.604),
    5: (2.571, 4.032),
    9: (2.262, 3.250),
    10: (2.228, 3.169),
    30: (2.042, 2.750),
    120: (1.980, 2.617),
}


@pytest.mark.parametrize("degrees", TABLE)
def test_quantiles_equal_the_printed_table(degrees):
    for probability, printed in zip((0.975, 0.995), TABLE[degrees], strict=True):
        assert intervals.t_quantile(probability, degrees) == pytest.approx(printed, abs=6e-4)
        assert intervals.t_quantile(1 - probability, degrees) == pytest.approx(-printed, abs=6e-4)


def test_the_distribution_equals_its_closed_forms():
    for t in (-7.0, -1.0, 0.0, 0.3, 2.0):
        assert intervals.t_cdf(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi)  # Cauchy
        assert intervals.t_cdf(t, 2) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)))
        normal = (1 + math.erf(t / math.sqrt(2))) / 2
        assert intervals.t_cdf(t, 5000) == pytest.approx(normal, abs=1e-4)
    for degrees in range(1, 12):
        for probability in (0.01, 0.3, 0.5, 0.9):
            t = intervals.t_quantile(probability, degrees)
            assert intervals.t_cdf(t, degrees) == pytest.approx(probability)


@pytest.mark.parametrize(("probability", "degrees"), [(0, 3), (1, 3), (1.2, 3), (0.5, 0)])
def test_undefined_quantiles_are_refused(probability, degrees):
    with pytest.raises(ValueError, match=r"inside \(0, 1\)"):
        intervals.t_quantile(probability, degrees)


def test_the_interval_over_seeds_equals_arithmetic_by_hand():
    """Differences 1, 2, 6: mean 3, variance (4 + 1 + 9) / 2 = 7, so 3 +- 4.303 sqrt(7 / 3)."""
    interval = intervals.over_seeds([1.0, 2.0, 6.0])
    half = 4.302653 * math.sqrt(7 / 3)
    assert interval.mean == 3
    assert (interval.low, interval.high) == pytest.approx((3 - half, 3 + half), abs=1e-5)


def test_a_single_seed_has_no_bounds():
    assert intervals.over_seeds([2.5]) == intervals.Interval(2.5, None, None)
    with pytest.raises(ValueError, match="at least one"):
        intervals.over_seeds([])


def random_confusions(seed, num_seeds=2, num_images=6, num_classes=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 20, (num_seeds, num_images, num_classes, num_classes))


def test_the_bootstrap_equals_plain_loops():
    first, second = random_confusions(1), random_confusions(2)
    second[:, :, 2], second[:, :, :, 2] = 0, 0  # this arm has no pixel of the class
    result = intervals.over_images(first, second, num_resamples=40, seed=5)

    def difference(weights):
        def miou(confusions):
            return metrics.mean_iou((confusions * weights[:, None, None]).sum(axis=0))

        return np.mean([miou(b) - miou(a) for a, b in zip(first, second, strict=True)])

    weights = np.random.default_rng(5).multinomial(6, np.full(6, 1 / 6), 40)
    low, high = np.quantile([difference(w) for w in weights], [0.025, 0.975])
    assert result.mean == pytest.approx(difference(np.ones(6, int)))
    assert (result.low, result.high) == pytest.approx((low, high))


def test_the_bootstrap_is_zero_for_equal_arms_and_positive_for_a_clear_gain():
    confusions = random_confusions(3)
    same = intervals.over_images(confusions, confusions, num_resamples=50)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    better = confusions + 30 * np.eye(3, dtype=int)
    gain = intervals.over_images(confusions, better, num_resamples=1200)
    assert 0 < gain.low < gain.mean < gain.high


def test_the_bootstrap_interval_covers_the_truth_as_often_as_its_level():
    """The images of both arms have one distribution, so the true difference is 0."""
    rng, inside = np.random.default_rng(7), 0
    for _ in range(200):
        first, second = (rng.integers(0, 50, (1, 40, 2, 2)) for _ in range(2))
        result = intervals.over_images(first, second, num_resamples=300)
        inside += result.low <= 0 <= result.high
    assert 0.88 < inside / 200 < 0.99


def test_arms_with_different_images_are_refused():
    with pytest.raises(ValueError, match=r"one shape. Received \(2, 6, 3, 3\) and \(2, 5, 3, 3\)"):
        intervals.over_images(random_confusions(1), random_confusions(1)[:, :5])


def test_default_bootstrap_has_95_percent_10000_resamples_and_seed_0():
    first, second = random_confusions(1), random_confusions(2)
    expected = intervals.over_images(first, second, level=0.95, num_resamples=10000, seed=0)
    assert intervals.over_images(first, second) == expected
    other = intervals.over_images(first, second, num_resamples=10000, seed=1)
    assert other.mean == expected.mean and other != expected
