"""One affine placement for image and label map, against numpy and tf.image."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines.batches import affine
from pipelines.datasets import VOID


@pytest.fixture(scope="module")
def pair():
    """A noisy image of 40 x 50 with random labels."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3), np.uint8)
    return image, rng.choice([0, 1, 9, VOID], (40, 50)).astype(np.uint8)


def placement(size=(40, 50), origin=(3, 7), degrees=0.0, mirror=False, crop=20):
    return affine.Placement(
        tf.constant(size),
        tf.constant(origin),
        tf.constant(np.deg2rad(degrees), tf.float32),
        tf.constant(mirror),
        crop,
    )


def show(pair, placed):
    shown = affine.show_image(pair[0], placed)
    label = affine.show_label(pair[1], placed)
    return shown.pixels.numpy(), label.numpy(), shown.is_inside.numpy()


def test_without_changes_the_crop_is_a_slice(pair):
    pixels, label, is_inside = show(pair, placement())
    np.testing.assert_array_equal(pixels, pair[0][3:23, 7:27])
    np.testing.assert_array_equal(label, pair[1][3:23, 7:27])
    assert is_inside.all()


def test_a_mirrored_crop_is_the_flipped_slice(pair):
    pixels, label, _ = show(pair, placement(mirror=True))
    np.testing.assert_array_equal(pixels, pair[0][3:23, 7:27][:, ::-1])
    np.testing.assert_array_equal(label, pair[1][3:23, 7:27][:, ::-1])


@pytest.mark.parametrize("degrees, turns", [(90, 3), (180, 2), (-90, 1)])
def test_quarter_turns_equal_numpy(pair, degrees, turns):
    pixels, label, _ = show(pair, placement(degrees=degrees))
    np.testing.assert_allclose(pixels, np.rot90(pair[0][3:23, 7:27], turns), atol=1e-2)
    np.testing.assert_array_equal(label, np.rot90(pair[1][3:23, 7:27], turns))


# Sizes at which no pixel has its center between two pixels of the file.
@pytest.mark.parametrize("size", [(20, 25), (32, 22), (80, 150), (80, 25)])
def test_scaling_equals_tf_image(pair, size):
    """Reduced with antialiasing, enlarged bilinearly; labels are the nearest pixel."""
    origin = [side - 20 for side in size]
    pixels, label, _ = show(pair, placement(size=size, origin=origin))
    window = np.s_[size[0] - 20 :, size[1] - 20 :]
    whole = tf.image.resize(pair[0], size, antialias=True).numpy()
    # Pixels are rounded between reducing one axis and enlarging the other.
    assert abs(pixels - whole[window]).max() <= 0.5 + 1e-3
    nearest = tf.image.resize(pair[1][..., None], size, method="nearest").numpy()[..., 0]
    np.testing.assert_array_equal(label, nearest[window])


def test_outside_the_image_labels_are_void(pair):
    pixels, label, is_inside = show(pair, placement(origin=(-5, 40), crop=30))
    assert not is_inside[:5].any() and not is_inside[:, 10:].any() and is_inside[5:, :10].all()
    assert (label[~is_inside] == VOID).all()
    np.testing.assert_array_equal(label[5:, :10], pair[1][:25, 40:])
    np.testing.assert_array_equal(pixels[5:, :10], pair[0][:25, 40:])


def test_a_rotated_crop_turns_around_its_center():
    image = np.zeros((41, 41, 3), np.uint8)
    label = np.full((41, 41), VOID, np.uint8)
    image[20, 20], label[20, 20] = 200, 4
    image[20, 30], label[20, 30] = 100, 5
    for degrees in (0, 30, 77, 180):
        placed = placement((41, 41), (10, 10), degrees, crop=21)
        shown, labels = affine.show_image(image, placed), affine.show_label(label, placed)
        np.testing.assert_allclose(shown.pixels[10, 10], 200, atol=1e-2)
        assert labels[10, 10] == 4
        distance = np.linalg.norm(np.argwhere(labels.numpy() == 5) - 10, axis=1)
        assert (abs(distance - 10) < 1).all()  # none where the nearest pixel misses it


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 5)])
def test_tiny_images_are_shown(size):
    image, label = np.full((1, 1, 3), 9, np.uint8), np.full((1, 1), 3, np.uint8)
    placed = placement(size, (0, 0), 45.0, crop=7)
    pixels, labels, is_inside = show((image, label), placed)
    assert (pixels == 9).all() and (labels[is_inside] == 3).all()
    assert (labels[~is_inside] == VOID).all()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("degrees", [0, 25, 180])
def test_the_wanted_pixel_appears_at_its_place(mirror, degrees):
    label = np.full((60, 80), VOID, np.uint8)
    label[30:33, 50:53] = 6  # 3 x 3, so that a rotation cannot miss it
    placed = placement((60, 80), (0, 0), degrees, mirror, crop=24)
    place, pixel = tf.constant([5, 17]), tf.constant([31, 51])
    origin = affine.origin_that_shows(placed, tf.constant([60, 80]), pixel, place)
    assert affine.show_label(label, placed._replace(origin=origin))[5, 17] == 6
