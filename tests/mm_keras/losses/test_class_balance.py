"""Class weights against golden values and their definitions."""

import json
import pathlib

import numpy as np
import pytest

from mm_keras.losses import class_balance, class_weights

GOLDEN = json.loads((pathlib.Path(__file__).parents[2] / "golden/fine_tuning.json").read_text())


def test_enet_weights_equal_the_golden_values():
    golden = GOLDEN["class_weights"]
    weights = class_weights(golden["pixel_counts"], "enet")
    np.testing.assert_allclose(weights, golden["enet_1_over_ln_1.02_plus_p"], rtol=1e-6)


def test_median_weights_equal_the_golden_values():
    golden = GOLDEN["class_weights"]["median_frequency"]
    weights = class_weights(golden["counts_per_image"], "median")
    np.testing.assert_allclose(weights, golden["weight"], rtol=1e-6)


def test_inverse_frequency_gives_all_classes_the_same_total_weight():
    counts = np.array([[500, 30, 0], [100, 0, 7]])
    weights = class_weights(counts, "inverse_frequency")
    totals = weights * counts.sum(0)
    np.testing.assert_allclose(totals, totals[0], rtol=1e-6)
    np.testing.assert_allclose(totals.sum() / counts.sum(), 1, rtol=1e-6)  # the mean over pixels


@pytest.mark.parametrize("rare, rule", [(51, "none"), (49, "enet"), (0, "none")])
def test_auto_weighs_the_classes_where_one_of_them_is_rare(rare, rule):
    counts = [[10_000 - 100 - rare, 100, rare]]
    np.testing.assert_array_equal(class_weights(counts, "auto"), class_weights(counts, rule))


def test_inverse_roots_lie_halfway_between_equal_and_inverse_weights():
    counts = [[400, 25, 0]]
    inverse, root = (class_weights(counts, f"inverse_{rule}") for rule in ("frequency", "root"))
    np.testing.assert_allclose(root, np.sqrt(inverse))
    assert root[1] / root[0] == pytest.approx(4)


def test_effective_numbers_follow_the_published_formula():
    counts = np.array([900, 90, 10, 0])
    base = 1 - 1 / (1000 / 3)
    expected = (1 - base) / (1 - base ** counts[:3])
    weights = class_weights(counts, "effective_number")
    np.testing.assert_allclose(weights[:3], expected / expected.mean(), rtol=1e-5)
    assert weights[3] == 0


def test_effective_numbers_of_billions_of_pixels_are_exact_enough():
    small = class_weights([900, 90, 10], "effective_number")
    large = class_weights([900e9, 90e9, 10e9], "effective_number")
    np.testing.assert_allclose(large, small, rtol=0.01)


@pytest.mark.parametrize("rule", class_balance.RULES)
def test_rarer_classes_weigh_more_and_absent_ones_are_finite(rule):
    weights = class_weights([[1000, 50, 1, 0]], rule)
    assert weights.dtype == np.float32 and np.isfinite(weights).all()
    if rule != "none":  # one class of the counts is rare, so "auto" weighs them
        assert weights[0] < weights[1] < weights[2]


@pytest.mark.parametrize("counts", [[0, 0], [[1, -1]], [], [[[1]]]])
def test_counts_without_pixels_raise_an_error(counts):
    with pytest.raises(ValueError, match="numbers of pixels"):
        class_weights(counts, "median")


def test_an_unknown_rule_raises_an_error():
    with pytest.raises(ValueError, match=r"'inverse'.*inverse_frequency"):
        class_weights([1, 2], "inverse")
