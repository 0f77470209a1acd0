"""Lab colors: golden values, the way back, gray of the same lightness."""

import numpy as np
import pytest

from mm_keras.layers import lab


def test_colors_equal_the_golden_values(golden):
    expected = golden("starts")["lab"]
    rgb = np.array(expected["rgb_uint8"], "uint8")
    np.testing.assert_allclose(lab.rgb_to_lab(rgb), expected["lab"], atol=2e-3)
    np.testing.assert_allclose(lab.lab_to_rgb(np.array(expected["lab"])), rgb, atol=0.02)


def test_every_gray_and_random_colors_come_back():
    rng = np.random.default_rng(0)
    colors = np.concatenate([np.arange(256)[:, None].repeat(3, 1), rng.integers(0, 256, (500, 3))])
    np.testing.assert_allclose(lab.lab_to_rgb(lab.rgb_to_lab(colors)), colors, atol=0.05)


def test_colors_outside_of_rgb_are_clipped():
    pixels = lab.lab_to_rgb(
        np.array([[50.0, 110.0, -110.0], [120.0, 0.0, 0.0], [-9.0, 0.0, 300.0]])
    )
    assert np.all(np.isfinite(pixels)) and np.min(pixels) >= 0 and np.max(pixels) <= 255


def test_gray_keeps_the_lightness(golden):
    rows = golden("starts")["lab"]["grey_of_the_same_lightness"]["rows"]
    rgb = np.array([row["rgb"] for row in rows], "uint8")
    gray = np.array(lab.gray_of_same_lightness(rgb))
    np.testing.assert_allclose(gray[:, 0], [row["grey_value"] for row in rows], atol=1e-2)
    assert np.all(gray == gray[:, :1])
    np.testing.assert_allclose(lab.rgb_to_lab(gray)[:, 0], lab.rgb_to_lab(rgb)[:, 0], atol=2e-3)


@pytest.mark.parametrize("shape", [(3,), (1, 1, 3), (2, 3, 4, 3), (0, 5, 3)])
def test_any_number_of_axes_is_taken(shape):
    assert lab.rgb_to_lab(np.zeros(shape, "uint8")).shape == shape
    assert lab.gray_of_same_lightness(np.zeros(shape, "uint8")).shape == shape
