"""Filters from windows of a layer's inputs: golden values, geometry, degenerate inputs."""

import keras
import numpy as np
import pytest
from keras import ops

from mm_keras.weights import filters


@pytest.fixture(scope="module")
def patches():
    """All 64 windows of 3 x 3 of the golden images, float64 [64, 18]."""
    x = (((37 * np.arange(288) + 11) % 101) / 50 - 1).reshape(4, 6, 6, 2)
    views = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    return np.moveaxis(views, 3, -1).reshape(64, 18)


def test_principal_directions_equal_the_golden_values(golden, patches):
    expected = golden("starts")["data_dependent"]["pca"]
    found = filters.principal(patches, 3)[::-1]  # the golden ones ascend
    signs = np.sign([row[np.argmax(np.abs(row))] for row in found])
    rows = np.array(expected["filters_rows_sign_fixed_so_that_the_largest_entry_is_positive"])
    np.testing.assert_allclose(found * signs[:, None], rows, atol=1e-7)
    responses = (patches - patches.mean(axis=0)) @ found.T
    np.testing.assert_allclose(responses.std(axis=0), expected["std_of_responses"], atol=1e-7)


def test_the_centers_of_kmeans_equal_the_golden_values(golden, patches):
    expected = golden("starts")["data_dependent"]["kmeans"]
    found = filters.kmeans(patches, np.array([0, 21, 42]), num_passes=100)
    np.testing.assert_allclose(found, expected["filters_rows"], atol=1e-7)
    responses = (patches - patches.mean(axis=0)) @ found.T
    np.testing.assert_allclose(responses.std(axis=0), expected["std_of_responses"], atol=1e-7)


def test_kmeans_finds_the_middles_of_separate_clusters():
    rng = np.random.default_rng(0)
    middles = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    rows = middles.repeat(20, axis=0) + 0.01 * rng.normal(size=(60, 2))
    found = filters.clusters(rows, rows[[0, 25, 50]], num_passes=10)
    np.testing.assert_allclose(found, middles, atol=0.02)


def test_a_center_without_rows_and_one_of_opposite_rows_keep_their_places():
    rows = np.array([[1.0, 0.1], [-1.0, -0.1]])
    centers = np.array([[0.0, 0.0], [0.0, -9.0]])
    np.testing.assert_array_equal(filters.clusters(rows, centers, num_passes=3), centers)


@pytest.mark.parametrize("directions", filters.DIRECTIONS)
def test_filters_are_finite_and_differ_where_inputs_are_fewer_than_filters(directions):
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(200, 3)) @ np.diag([9.0, 1.0, 0.0])  # one input is constant
    found = filters.filters(samples, 5, directions, rng)
    assert found.shape == (5, 3) and np.isfinite(found).all()
    assert len(np.unique(found.round(6), axis=0)) == 5


def test_fewer_samples_than_filters_give_gaussian_filters():
    samples = np.random.default_rng(1).normal(size=(4, 3))
    found = filters.filters(samples, 5, "kmeans", np.random.default_rng(0))
    np.testing.assert_array_equal(found, np.random.default_rng(0).normal(size=(5, 3)))


def test_equal_samples_give_no_direction():
    assert len(filters.principal(np.ones((9, 3)), 2)) == 0
    found = filters.filters(np.ones((9, 3)), 2, "pca", np.random.default_rng(0))
    assert found.shape == (2, 3) and np.any(found)


def test_unknown_directions_are_rejected():
    with pytest.raises(ValueError, match="directions must be one of .* Received 'zca'"):
        filters.filters(np.ones((9, 3)), 2, "zca", np.random.default_rng(0))


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv2D(4, (3, 2), strides=2, padding="same"),
        keras.layers.Conv2D(4, 3, padding="valid", groups=2),
        keras.layers.Conv2D(4, 3, padding="same", dilation_rate=2),
        keras.layers.DepthwiseConv2D(2, strides=2, padding="same", depth_multiplier=2),
        keras.layers.Dense(4),
    ],
    ids=["strides", "groups", "dilation", "depthwise", "dense"],
)
def test_windows_are_the_inputs_of_the_layers_outputs(layer):
    inputs = np.random.default_rng(0).normal(size=(2, 7, 6, 4)).astype("float32")
    outputs = ops.convert_to_numpy(layer(inputs)).reshape(-1, layer.kernel.shape[-1])
    found = filters.windows(layer, inputs, np.random.default_rng(0))
    kernel = ops.convert_to_numpy(layer.kernel)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        outputs = outputs.reshape(-1, 4, 2)
        responses = np.einsum("nhwc,hwcm->ncm", found, kernel)
    else:
        groups = getattr(layer, "groups", 1)
        parts = zip(np.split(found, groups, -1), np.split(kernel, groups, -1), strict=True)
        responses = np.concatenate(
            [p.reshape(len(p), -1) @ k.reshape(-1, k.shape[-1]) for p, k in parts], axis=-1
        )
    np.testing.assert_allclose(responses, outputs.reshape(responses.shape), atol=1e-5)
    made = filters.kernel(layer, inputs, "kmeans", np.random.default_rng(0))
    assert made.shape == kernel.shape and np.isfinite(made).all()


def test_the_filters_of_a_group_come_from_its_own_inputs():
    layer = keras.layers.Conv2D(4, 1, groups=2)
    inputs = np.random.default_rng(0).normal(size=(1, 5, 5, 2)).astype("float32")
    layer(inputs)
    first = filters.kernel(layer, inputs, "pca", np.random.default_rng(0))
    inputs[..., 1] *= 10
    second = filters.kernel(layer, inputs, "pca", np.random.default_rng(0))
    np.testing.assert_array_equal(first[..., :2], second[..., :2])
    assert np.any(first[..., 2] != second[..., 2])


def test_many_positions_are_sampled(monkeypatch):
    monkeypatch.setattr(filters, "NUM_SAMPLES", 7)
    layer = keras.layers.Conv2D(1, 3)
    inputs = np.zeros((2, 8, 8, 3), "float32")
    layer(inputs)
    assert filters.windows(layer, inputs, np.random.default_rng(0)).shape == (7, 3, 3, 3)
