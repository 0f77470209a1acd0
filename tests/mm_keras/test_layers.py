"""Pixels, pooling, and the hypercolumn: sparse, dense and golden."""

import numpy as np
import pytest

from mm_keras import layers
from mm_keras.backbones import PIXELS


def test_pixels_as_the_networks_expect_them(golden):
    cases = golden("network")["preprocess"]
    bgr = np.array([case["bgr"] for case in cases], "uint8")[None, None]
    rgb = bgr[..., ::-1]
    gray, colour = (
        layers.InputAdapter(PIXELS[name].colour, PIXELS[name].scale, PIXELS[name].mean)(rgb)
        for name in ("gray", "bgr")
    )
    np.testing.assert_allclose(gray[0, 0, :, 0], [c["gray_colorize"] for c in cases], atol=1e-6)
    expected = [case["bgr_minus_imagenet_mean"] for case in cases]
    np.testing.assert_allclose(colour[0, 0], expected, atol=1e-4)


def test_each_channel_may_have_its_own_scale():
    adapter = layers.InputAdapter("bgr", (1.0, 0.5, 0.25), (1.0, 2.0, 3.0))
    pixels = adapter(np.array([[[[40, 20, 10]]]], "uint8"))
    np.testing.assert_array_equal(pixels[0, 0, 0], [10 - 1, 20 * 0.5 - 2, 40 * 0.25 - 3])
    again = layers.InputAdapter.from_config(adapter.get_config())
    assert (again.scale, again.mean) == (adapter.scale, adapter.mean)


@pytest.mark.parametrize(
    "arguments",
    [
        {"colour": "hsv"},
        {"colour": "rgb", "mean": (1.0, 2.0)},
        {"colour": "rgb", "scale": (1.0, 2.0)},
    ],
)
def test_pixels_refuse_nonsense(arguments):
    with pytest.raises(ValueError, match="must be"):
        layers.InputAdapter(**arguments)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4), (7, 7)])
def test_pooling_rounds_up_and_ignores_the_outside(size):
    features = -1 - np.random.default_rng(0).uniform(size=(1, *size, 2)).astype("float32")
    pooled = layers.CeilMaxPooling()(features)
    rows, columns = ((length + 1) // 2 for length in size)
    expected = [
        [features[0, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max((0, 1)) for x in range(columns)]
        for y in range(rows)
    ]
    np.testing.assert_array_equal(pooled[0], expected)


@pytest.mark.parametrize("case", range(3))
def test_points_as_caffe_samples_them(golden, case):
    case = golden("network")["hypercolumn_bilinear"][case]
    features = np.transpose(np.array(case["feature_chw"], "float32"), (1, 2, 0))[None]
    points = np.array(case["points_yx"], "float32")[None]
    samples = layers.gather_points(features, points, case["scale"])
    np.testing.assert_allclose(samples[0], case["values_points_by_channel"], atol=2e-5)


def test_points_are_read_from_their_own_image():
    features = np.arange(3, dtype="float32")[:, None, None, None] * np.ones((3, 2, 2, 1), "float32")
    points = np.zeros((3, 1, 2), "int32")
    np.testing.assert_array_equal(layers.gather_points(features, points, 4)[:, 0, 0], [0, 1, 2])


def test_upsampling_reads_each_pixel_as_a_point():
    features = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    rows, columns = np.mgrid[0:9, 0:14]
    points = np.broadcast_to(np.stack([rows, columns], -1).reshape(1, -1, 2), (2, 126, 2))
    expected = np.reshape(layers.gather_points(features, points, 4), (2, 9, 14, 5))
    np.testing.assert_allclose(layers.upsample(features, 4, (9, 14)), expected, atol=1e-5)


def test_a_map_of_one_cell_is_constant():
    features = np.full((1, 1, 1, 2), 3.0, "float32")
    np.testing.assert_array_equal(
        layers.upsample(features, 128, (5, 6)), np.full((1, 5, 6, 2), 3.0)
    )


@pytest.mark.parametrize("taps", [[("b", 4, 2)], [("b", 4, 2), ("c", 8, 1)], [("a", 1, 3)]])
def test_a_hypercolumn_may_be_all_coarse_or_all_fine(taps):
    rng = np.random.default_rng(0)
    layer = layers.Hypercolumn(taps, units=6, stddev=1.0)
    layer.build()
    layer.bias.assign(rng.normal(size=6))
    maps = {
        name: rng.normal(size=(2, -(-9 // stride), -(-14 // stride), channels)).astype("float32")
        for name, stride, channels in taps
    }
    rows, columns = np.mgrid[0:9:2, 0:14:2]
    points = np.stack([rows, columns], -1).reshape(1, -1, 2).repeat(2, 0).astype("int32")
    prepared = layer.prepare(maps, rows.shape, 2)
    dense = layer.rows(prepared, np.array([0, 1, 2, 3, 4, 5]), 2)
    expected = np.reshape(layer(maps, points), (2, *rows.shape, 6))
    np.testing.assert_allclose(dense[:, :5], expected, atol=1e-4)
    np.testing.assert_array_equal(dense[:, 5], dense[:, 4])  # past the last row: the last
