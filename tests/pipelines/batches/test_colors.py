"""Changes of colors, blur and noise, against their definitions."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageFilter

from pipelines import chroma
from pipelines.batches import colors


@pytest.fixture(scope="module")
def pixels():
    """A soft random image, away from 0 and 255."""
    rng = np.random.default_rng(0)
    return rng.integers(60, 190, (24, 31, 3)).astype("float32")


def change(pixels, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0):
    return colors.change(pixels, colors.Change(brightness, contrast, saturation, hue)).numpy()


def test_no_change_returns_the_same_pixels(pixels):
    np.testing.assert_allclose(change(pixels), pixels, atol=1e-3)


@pytest.mark.parametrize(
    "name, enhance",
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.6, 1.2])
def test_factors_are_defined_as_in_pillow(pixels, name, enhance, factor):
    picture = Image.fromarray(pixels.astype(np.uint8))
    expected = np.asarray(enhance(picture).enhance(factor)).astype("float32")
    # Pillow rounds the gray level and the result.
    np.testing.assert_allclose(change(pixels, **{name: factor}), expected, atol=1.5)


def test_saturation_zero_is_gray(pixels):
    gray = change(pixels, saturation=0.0, hue=0.3)
    expected = np.repeat((pixels @ np.array(chroma.LUMA))[..., None], 3, axis=-1)
    np.testing.assert_allclose(gray, expected, atol=1e-3)


def test_hue_keeps_the_gray_level_and_returns_after_a_full_turn(pixels):
    soft = 127 + (pixels - 127) / 4  # nothing is clipped
    turned = change(soft, hue=0.2)
    np.testing.assert_allclose(turned @ np.array(chroma.LUMA), soft @ np.array(chroma.LUMA), 1e-4)
    assert abs(turned - soft).max() > 5
    np.testing.assert_allclose(change(soft, hue=1.0), soft, atol=1e-2)
    np.testing.assert_allclose(change(change(soft, hue=0.2), hue=-0.2), soft, atol=1e-2)


def test_a_third_of_a_turn_moves_red_towards_another_primary():
    red = np.tile(np.float32([200, 60, 60]), (2, 2, 1))
    first, second = (change(red, hue=turn)[0, 0] for turn in (1 / 3, -1 / 3))
    assert {int(first.argmax()), int(second.argmax())} == {1, 2}


def test_results_are_clipped_to_the_range_of_pixels():
    extreme = np.float32([[[0, 255, 255], [255, 0, 0]]])
    changed = change(extreme, 2.0, 3.0, 2.0, 0.1)
    assert changed.min() >= 0 and changed.max() <= 255


def test_blur_equals_a_gaussian(pixels):
    blurred = colors.blur(tf.constant(pixels), tf.constant(1.2), 2.0).numpy()
    picture = Image.fromarray(pixels.astype(np.uint8))
    expected = np.asarray(picture.filter(ImageFilter.GaussianBlur(1.2))).astype("float32")
    inside = np.s_[6:-6, 6:-6]  # Pillow approximates by boxes
    assert abs(blurred[inside] - expected[inside]).max() < 6
    np.testing.assert_allclose(blurred.mean(), pixels.mean(), atol=0.5)


def test_blur_and_noise_of_deviation_zero_change_nothing(pixels):
    zero = tf.constant(0.0)
    np.testing.assert_array_equal(colors.blur(tf.constant(pixels), zero, 2.0), pixels)
    np.testing.assert_array_equal(colors.add_noise(tf.constant(pixels), zero, [1, 2]), pixels)


def test_images_smaller_than_the_kernel_are_blurred():
    ramp = tf.constant(np.float32([[[0] * 3, [100] * 3], [[0] * 3, [100] * 3]]))
    blurred = colors.blur(ramp, tf.constant(8.0), 8.0).numpy()
    assert np.isfinite(blurred).all() and abs(blurred - 50).max() < 10


def test_noise_has_its_deviation_and_depends_on_the_seed_alone(pixels):
    noisy = [
        colors.add_noise(tf.constant(pixels), tf.constant(10.0), seed).numpy()
        for seed in ([1, 2], [1, 2], [1, 3])
    ]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert (noisy[0] != noisy[2]).mean() > 0.99
    assert 9 < (noisy[0] - pixels).std() < 11
