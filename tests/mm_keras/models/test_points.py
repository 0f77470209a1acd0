"""Class-balanced draws of labelled pixels."""

import keras
import numpy as np
import tensorflow as tf

from mm_keras.models import points


def _labels():
    """Vertical stripes of two classes with some void, and a rare class of 8 pixels."""
    labels = np.zeros((2, 32, 32), "int32")
    labels[:, :, 10:] = 1
    labels[:, 30:, 28:] = 2
    labels[:, :4] = 255
    return labels


def _drawn(labels, num_points):
    seed = keras.random.SeedGenerator(0)
    return np.array(points.draw_balanced(tf.constant(labels), num_points, 3, seed))


def test_points_are_distinct_labelled_pixels_of_all_classes_alike():
    labels = _labels()
    drawn = _drawn(labels, 32)
    for label, chosen in zip(labels, drawn, strict=True):
        assert len({tuple(point) for point in chosen}) == 32
        counts = np.bincount(label[tuple(chosen.T)], minlength=256)
        # Uniform draws would give 0 or 1 pixel of the rare class.
        assert counts[255] == 0 and np.all(counts[:3] >= 3)
    assert np.any(drawn[0] != drawn[1])


def test_images_with_few_labelled_pixels_are_filled_up_with_void():
    labels = np.full((1, 8, 8), 255, "int32")
    labels[0, 2, 3], labels[0, 5, 1] = 1, 2
    drawn = labels[0][tuple(_drawn(labels, 40)[0].T)]
    assert sorted(drawn)[:2] == [1, 2] and np.all(np.sort(drawn)[2:] == 255)
    assert _drawn(labels, 100).shape == (1, 64, 2)


def test_labels_are_read_at_their_points():
    labels = _labels()
    drawn = _drawn(labels, 20)
    expected = [label[tuple(places.T)] for label, places in zip(labels, drawn, strict=True)]
    np.testing.assert_array_equal(points.labels_at(labels, drawn), expected)


def test_pixels_inside_keep_their_distance_from_the_border():
    inside = np.asarray(points.inside((16, 32), 3 / 16))
    assert inside[3:13, 6:26].all() and inside.sum() == 10 * 20
