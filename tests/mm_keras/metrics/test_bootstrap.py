"""Intervals over images: a slow oracle, coverage of the point estimate, degenerate input."""

import numpy as np
import pytest

from mm_keras import metrics


def _confusions(num_images=30, num_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 50, (num_images, num_classes, num_classes)) + 60 * np.eye(
        num_classes, dtype=int
    )


def test_the_bounds_equal_a_loop_over_resampled_images():
    confusions = _confusions(8)
    found = metrics.image_intervals(confusions, level=0.9, num_resamples=200, seed=3)
    rng, mious, ious = np.random.default_rng(3), [], []
    for counts in rng.multinomial(8, np.full(8, 1 / 8), 200):
        matrix = sum(count * matrix for count, matrix in zip(counts, confusions, strict=True))
        mious.append(metrics.mean_iou(matrix))
        ious.append(metrics.per_class_iou(matrix))
    np.testing.assert_allclose(found.miou, np.quantile(mious, [0.05, 0.95]))
    np.testing.assert_allclose(found.per_class_iou, np.quantile(ious, [0.05, 0.95], axis=0).T)


def test_the_interval_contains_the_score_of_all_images():
    confusions = _confusions()
    low, high = metrics.image_intervals(confusions).miou
    assert low < metrics.mean_iou(confusions.sum(axis=0)) < high


def test_a_class_without_pixels_has_no_interval_and_does_not_count():
    confusions = np.zeros((5, 3, 3), int)
    confusions[:, :2, :2] = _confusions(5, 2)
    found = metrics.image_intervals(confusions)
    assert np.isnan(found.per_class_iou[2]).all() and not np.isnan(found.miou).any()
    assert np.isnan(metrics.image_intervals(np.zeros((2, 2, 2), int)).miou).all()


@pytest.mark.parametrize(
    ("shape", "level", "message"),
    [((3, 3), 0.95, "num_images, K, K"), ((0, 2, 2), 0.95, "num_images"), ((2, 2, 2), 1, "level")],
)
def test_wrong_arguments_are_refused(shape, level, message):
    with pytest.raises(ValueError, match=message):
        metrics.image_intervals(np.ones(shape, int), level)
