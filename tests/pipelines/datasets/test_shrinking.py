"""Shrunk label maps: a slow oracle, the pipeline's own shrinking, and degenerate maps."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines.batches import views
from pipelines.datasets import shrinking
from pipelines.datasets.spec import VOID


def random_label(seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, rng.integers(1, 40, 2)).astype(np.uint8)
    label[label == 3] = VOID
    return label, int(rng.integers(1, 30))


def slow_overlap(label, side):
    """Follow each pixel to its place in the small map and back, in floats."""
    small = [max(1, int(length * side / min(label.shape) + 0.5)) for length in label.shape]
    if min(label.shape) <= side:
        small = label.shape
    found = np.zeros((2, 256), np.int64)
    for y, x in np.ndindex(*label.shape):
        place = [int((v + 0.5) * s / n) for v, s, n in zip((y, x), small, label.shape, strict=True)]
        pixel = [int((v + 0.5) * n / s) for v, s, n in zip(place, small, label.shape, strict=True)]
        truth, shown = label[y, x], label[tuple(pixel)]
        if truth != VOID:
            found[0, truth] += truth == shown
            for value in {truth, shown} - {VOID}:
                found[1, value] += 1
    return found


@pytest.mark.parametrize("seed", range(30))
def test_pixels_are_counted_as_by_a_slow_oracle(seed):
    label, side = random_label(seed)
    np.testing.assert_array_equal(shrinking.overlap(label, side), slow_overlap(label, side))


@pytest.mark.parametrize("seed", range(5))
def test_the_small_map_is_that_of_the_input_pipeline(seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, rng.integers(9, 40, 2)).astype(np.uint8)
    side = int(rng.integers(2, min(label.shape)))
    size = views.scaled_size(tf.constant(label.shape), views.View(crop=64, shorter_side=side))
    small = views._seen_label(
        tf.constant(label), views.Placement(size, False, tf.zeros(2, tf.int32), 64, True)
    ).numpy()
    rows, columns = (
        (2 * np.arange(length) + 1) * now // (2 * length)
        for length, now in zip(label.shape, small.shape, strict=True)
    )
    enlarged = shrinking.shrink_and_enlarge(label, side)
    np.testing.assert_array_equal(enlarged, small[rows][:, columns])


@pytest.mark.parametrize("side", [7, 8, 100])
def test_small_maps_keep_every_pixel(side):
    label = np.random.default_rng(0).integers(0, 3, (7, 9)).astype(np.uint8)
    common, union = shrinking.overlap(label, side)
    np.testing.assert_array_equal(common, union)


def test_a_thin_line_is_lost_and_a_wide_one_stays():
    label = np.zeros((40, 60), np.uint8)
    label[11, :] = 1
    label[20:30, :] = 2
    common, union = shrinking.overlap(label, 10)
    assert common[1] < 0.5 * union[1] and common[2] > 0.7 * union[2]


def test_a_void_map_has_no_pixels():
    assert not shrinking.overlap(np.full((5, 5), VOID, np.uint8), 2).any()


def test_void_that_grows_over_a_class_counts_for_it():
    """The mask's pixels are lost, although the shrunk map is void there."""
    label = np.full((4, 4), VOID, np.uint8)
    label[1] = 1
    common, union = shrinking.overlap(label, 1)
    assert union[1] == 4 and common[1] in (0, 4)
