"""The hypercolumn, sparse and dense, and interpolation: golden."""

import numpy as np
import pytest
import tensorflow as tf

from mm_keras import layers


@pytest.mark.parametrize("case", range(3))
def test_points_are_sampled_as_in_caffe(golden, case):
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


@pytest.mark.parametrize("cells, stride", [(1, 128), (3, 4), (16, 2)])
def test_the_interpolation_matrix_equals_interpolation(cells, stride):
    features = np.random.default_rng(0).normal(size=(1, 2, cells, 3)).astype("float32")
    positions = np.arange(cells * stride + 3)
    matrix = layers.interpolation_matrix(positions, stride, cells)
    np.testing.assert_allclose(np.sum(matrix, axis=1), 1, atol=1e-6)
    expected = layers.interpolate(features, positions, stride, axis=2)
    np.testing.assert_allclose(matrix @ features, expected, atol=1e-6)


def test_a_map_of_one_cell_is_constant():
    features = np.full((1, 1, 1, 2), 3.0, "float32")
    np.testing.assert_array_equal(
        layers.upsample(features, 128, (5, 6)), np.full((1, 5, 6, 2), 3.0)
    )


def test_aligned_corners_follow_caffe(golden):
    case = golden("alexnet")["interp_align_corners"]
    features = np.array(case["input"], "float32")[None, ..., None]
    resized = layers.resize_aligned(features, case["output_size"])
    np.testing.assert_allclose(resized[0, ..., 0], case["output"], atol=1e-5)


@pytest.mark.parametrize("cells", [(1, 1), (1, 4), (17, 18)])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 4), (64, 33)])
def test_aligned_corners_equal_interpolation_axis_by_axis(cells, size):
    features = np.random.default_rng(0).normal(size=(2, *cells, 3)).astype("float32")
    places = [
        np.arange(pixels) * (number - 1) / max(pixels - 1, 1)
        for number, pixels in zip(cells, size, strict=True)
    ]
    expected = np.apply_along_axis(_at(places[0]), 1, features)
    expected = np.apply_along_axis(_at(places[1]), 2, expected)
    resized = layers.resize_aligned(features, size)
    assert resized.shape == expected.shape
    np.testing.assert_allclose(resized, expected, atol=1e-5)


def _at(places):
    return lambda values: np.interp(places, np.arange(len(values)), values)


def test_aligned_corners_work_in_graph_mode():
    signature = [tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([2], tf.int32)]
    resize = tf.function(layers.resize_aligned, input_signature=signature)
    for size in ((5, 9), (1, 3)):
        features = np.random.default_rng(0).normal(size=(2, 3, 4, 3)).astype("float32")
        expected = layers.resize_aligned(features, size)
        np.testing.assert_allclose(resize(features, size), expected, atol=1e-6)


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
