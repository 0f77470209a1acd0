"""Pixels as the networks of each source expect them."""

import numpy as np
import pytest

from mm_keras import layers
from mm_keras.backbones import PIXELS


def _adapter(name):
    return layers.InputAdapter(PIXELS[name].color, PIXELS[name].scale, PIXELS[name].mean)


def test_pixels_have_the_golden_values(golden):
    cases = golden("network")["preprocess"]
    bgr = np.array([case["bgr"] for case in cases], "uint8")[None, None]
    rgb = bgr[..., ::-1]
    for name, key in (
        ("gray", "gray_colorize"),
        ("bgr", "bgr_minus_imagenet_mean"),
        ("jigsaw", "bgr_minus_jigsaw_mean"),
    ):
        adapted = np.squeeze(_adapter(name)(rgb))
        np.testing.assert_allclose(adapted, [case[key] for case in cases], atol=1e-4)


def test_pixels_equal_torchvisions_normalization():
    rgb = np.array([[0, 0, 0], [255, 255, 255], [10, 20, 30]], "uint8")
    expected = (rgb / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(_adapter("torch")(rgb[None, None])[0, 0], expected, atol=1e-5)


def test_each_channel_may_have_its_own_scale():
    adapter = layers.InputAdapter("bgr", (1.0, 0.5, 0.25), (1.0, 2.0, 3.0))
    pixels = adapter(np.array([[[[40, 20, 10]]]], "uint8"))
    np.testing.assert_array_equal(pixels[0, 0, 0], [10 - 1, 20 * 0.5 - 2, 40 * 0.25 - 3])
    again = layers.InputAdapter.from_config(adapter.get_config())
    assert (again.scale, again.mean) == (adapter.scale, adapter.mean)


@pytest.mark.parametrize("name", PIXELS)
def test_the_pad_color_is_the_mean_or_black(name):
    color = np.array(PIXELS[name].pad_color, "uint8")
    adapted = _adapter(name)(color[None, None, None])
    black = _adapter(name)(np.zeros((1, 1, 1, 3), "uint8"))
    if name == "gray":
        np.testing.assert_array_equal(adapted, black)
    else:
        # Within one gray level of zero.
        assert np.abs(adapted).max() < np.max(PIXELS[name].scale)


@pytest.mark.parametrize("arguments", [{"color": "hsv"}, {"mean": (1.0, 2.0)}, {"scale": (1.0,)}])
def test_unknown_colors_and_wrong_scales_are_rejected(arguments):
    with pytest.raises(ValueError, match="must be"):
        layers.InputAdapter(**arguments)


def test_lab_and_lightness_are_shifted_lab_colors():
    rgb = np.array([[200, 120, 40], [10, 20, 30]], "uint8")[None]
    expected = np.array([[57.91229, 25.29522, 54.08278], [5.94847, -0.66931, -8.13641]])
    np.testing.assert_allclose(_adapter("lab")(rgb)[0], expected - [50, 0, 0], atol=1e-3)
    lightness = layers.InputAdapter.from_config(_adapter("lightness").get_config())
    np.testing.assert_allclose(lightness(rgb)[0], expected[:, :1] - 50, atol=1e-3)
    assert lightness.compute_output_shape((1, 4, 4, 3)) == (1, 4, 4, 1)
