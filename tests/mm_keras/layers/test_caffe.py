"""Caffe's layers against plain numpy and golden values, forward and backward."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mm_keras import layers


def _features(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _caffe_windows(length, pool_size, strides, padding):
    """(start, end) of each window on one axis, cut at the map (pooling_layer.cpp, written out)."""
    number = int(np.ceil(np.float32(length + 2 * padding - pool_size) / strides)) + 1
    if padding > 0 and (number - 1) * strides >= length + padding:
        number -= 1
    windows = []
    for k in range(number):
        start = k * strides - padding
        windows.append((max(start, 0), min(start + pool_size, length)))
    return windows


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(("pool_size", "strides"), [(2, 2), (3, 2), (3, 3), (3, 1)])
def test_pooling_has_caffe_windows_at_all_sizes(pool_size, strides, padding):
    layer = layers.CeilMaxPooling(pool_size, strides, padding)
    for length in range(max(1, pool_size - 2 * padding), 41):
        features = -1 - np.abs(_features(1, length, 5, 2))  # zeros from outside would win
        rows, columns = (_caffe_windows(n, pool_size, strides, padding) for n in (length, 5))
        expected = [
            [features[0, y0:y1, x0:x1].max((0, 1)) for x0, x1 in columns] for y0, y1 in rows
        ]
        pooled = layer(features)
        np.testing.assert_array_equal(pooled[0], expected, err_msg=f"length {length}")
        assert layer.compute_output_shape(features.shape) == pooled.shape


@pytest.mark.parametrize("padding", [0, 1])
def test_pooling_of_a_map_smaller_than_the_window_gives_one_cell(padding):
    features = _features(2, 1, 2, 3)
    pooled = layers.CeilMaxPooling(4, 2, padding)(features)
    np.testing.assert_array_equal(pooled, features.max((1, 2), keepdims=True))


def test_pooling_works_in_graph_mode_at_any_size():
    layer = layers.CeilMaxPooling(3, 2, 1)
    pool = tf.function(layer, input_signature=[tf.TensorSpec([None, None, None, 2])])
    for size in ((1, 1), (6, 9), (7, 4)):
        features = _features(2, *size, 2)
        np.testing.assert_array_equal(pool(features), layer(features))


def test_gradients_of_pooling_reach_the_largest_cell_of_each_window():
    features = tf.constant(np.arange(5, dtype="float32").reshape(1, 5, 1, 1))
    with tf.GradientTape() as tape:
        tape.watch(features)
        total = tf.reduce_sum(layers.CeilMaxPooling(3, 2, 1)(features))
    # Windows {0, 1}, {1, 2, 3}, {3, 4}.
    gradient = tape.gradient(total, features)
    np.testing.assert_array_equal(np.ravel(gradient), [0, 1, 0, 1, 1])


@pytest.mark.parametrize("arguments", [(2, 3), (3, 0), (3, 2, 3), (3, 2, -1)])
def test_windows_outside_of_the_map_are_rejected(arguments):
    with pytest.raises(ValueError, match="must be in.*Received"):
        layers.CeilMaxPooling(*arguments)


@pytest.mark.parametrize("num_channels", [1, 3, 12])
def test_response_normalization_divides_by_neighboring_channels(num_channels):
    features = 300 * _features(2, 3, 4, num_channels)
    expected = np.empty_like(features)
    for c in range(num_channels):
        window = features[..., max(0, c - 2) : c + 3]
        energy = np.sum(np.square(window.astype("float64")), -1)
        expected[..., c] = features[..., c] / (1 + 1e-4 / 5 * energy) ** 0.75
    normalized = layers.LocalResponseNormalization()(features)
    np.testing.assert_allclose(normalized, expected, rtol=1e-5, atol=1e-6)


def test_gradients_of_response_normalization_equal_tensorflow():
    features = tf.constant(100 * _features(2, 3, 4, 9))
    weights = _features(2, 3, 4, 9, seed=1)
    gradients = []
    for normalize in (
        layers.LocalResponseNormalization(),
        lambda x: tf.nn.local_response_normalization(x, 2, 1.0, 2e-5, 0.75),
    ):
        with tf.GradientTape() as tape:
            tape.watch(features)
            total = tf.reduce_sum(normalize(features) * weights)
        gradients.append(tape.gradient(total, features))
    np.testing.assert_allclose(*gradients, atol=1e-5)


def test_response_normalization_is_finite_in_float16():
    features = np.full((1, 1, 1, 8), 1000, "float16")  # the square is beyond float16
    normalized = layers.LocalResponseNormalization(dtype="mixed_float16")(features)
    assert normalized.dtype == "float16" and np.all(np.isfinite(normalized))
    np.testing.assert_allclose(normalized[..., 4], 1000 / (1 + 2e-5 * 5e6) ** 0.75, rtol=2e-3)


def test_an_even_window_of_response_normalization_is_rejected():
    with pytest.raises(ValueError, match="odd.*Received 4"):
        layers.LocalResponseNormalization(4)


def _convolve(features, kernel, bias, groups):
    """Grouped convolution, stride 1, "same", by loops over cells, written for odd kernels."""
    side = kernel.shape[0]
    padded = np.pad(features, [(0, 0), (side // 2,) * 2, (side // 2,) * 2, (0, 0)])
    inputs = np.split(padded, groups, axis=-1)
    kernels = np.split(kernel, groups, axis=-1)
    result = np.empty((*features.shape[:3], kernel.shape[-1]))
    for y in range(features.shape[1]):
        for x in range(features.shape[2]):
            parts = [
                np.einsum("bijc,ijco->bo", part[:, y : y + side, x : x + side], weights)
                for part, weights in zip(inputs, kernels, strict=True)
            ]
            result[:, y, x] = np.concatenate(parts, -1) + bias
    return result


def _grouped(groups=2, filters=6, num_channels=4):
    keras.utils.set_random_seed(0)
    layer = layers.GroupedConv2D(filters, 3, padding="same", groups=groups)
    layer.build((None, None, None, num_channels))
    layer.bias.assign(_features(filters, seed=3))
    return layer


@pytest.mark.parametrize("groups", [1, 2])
def test_grouped_convolution_is_one_convolution_per_group(groups):
    layer, features = _grouped(groups), _features(2, 5, 4, 4)
    assert [(w.name, w.shape) for w in layer.weights] == [
        ("kernel", (3, 3, 4 // groups, 6)),
        ("bias", (6,)),
    ]
    expected = _convolve(features, layer.kernel.numpy(), layer.bias.numpy(), groups)
    np.testing.assert_allclose(layer(features), expected, atol=1e-5)


def test_gradients_of_grouped_convolution_equal_a_single_convolution():
    """Convolution is linear in each argument, so differences along a direction are exact."""
    layer, features, weights = _grouped(), _features(1, 4, 3, 4), _features(1, 4, 3, 6, seed=1)
    with tf.GradientTape() as tape:
        inputs = tf.constant(features)
        tape.watch(inputs)
        total = tf.reduce_sum(layer(inputs) * weights)
    gradients = tape.gradient(total, [inputs, layer.kernel.value, layer.bias.value])
    point = [features, layer.kernel.numpy(), layer.bias.numpy()]
    for k, gradient in enumerate(gradients):
        direction = _features(*point[k].shape, seed=5)
        moved = [*point[:k], point[k] + direction, *point[k + 1 :]]
        change = np.sum((_convolve(*moved, 2) - _convolve(*point, 2)) * weights)
        np.testing.assert_allclose(np.sum(gradient * direction), change, rtol=1e-3)


def test_grouped_convolution_needs_no_xla():
    """XLA, Keras' own way on the CPU, would compile anew for each size of image."""
    model = keras.Sequential([keras.Input((None, None, 4)), _grouped()])
    graph = tf.function(lambda x: model(x)).get_concrete_function(
        tf.TensorSpec([None, None, None, 4])
    )
    assert not any("_XlaMustCompile" in str(n) for n in graph.graph.as_graph_def().node)
    names = {node.op for node in graph.graph.as_graph_def().node}
    assert "Conv2D" in names and not any("Call" in name for name in names)


def test_batch_norm_accumulates_as_caffe_does(golden):
    case = golden("network")["batchnorm"]
    layer = layers.AccumulatedBatchNormalization()
    for step in case["steps"]:
        batch = np.array(step["batch"], "float32")[:, None]
        np.testing.assert_allclose(layer(batch, training=True)[:, 0], step["train_output"], 1e-5)
        blobs = [float(w.numpy()[0]) for w in layer.weights]
        np.testing.assert_allclose(blobs, step["BatchNorm_blobs_mean_var_factor"], rtol=1e-6)
        mean, variance = step["BatchNorm_test_mean_var"]
        expected = (batch - mean) / np.sqrt(variance + case["eps"])
        np.testing.assert_allclose(layer(batch), expected, rtol=1e-5, atol=1e-6)
    assert [w.name for w in layer.weights] == ["accumulated_mean", "accumulated_variance", "factor"]
    assert not layer.trainable_weights


def test_batch_norm_accumulates_over_a_sequence_of_maps():
    """The accumulators, one step at a time in float64."""
    layer = layers.AccumulatedBatchNormalization(fraction=0.9)
    step = tf.function(lambda x: layer(x, training=True))
    mean, variance, factor = np.zeros(3), np.zeros(3), 0
    for k in range(6):
        maps = k + _features(2, 3 + k, 4, 3, seed=k) * [1, 5, 0.1]
        values = maps.reshape(-1, 3).astype("float64")
        mean, factor = 0.9 * mean + values.mean(0), 0.9 * factor + 1
        variance = 0.9 * variance + values.var(0, ddof=1)
        expected = (maps - values.mean(0)) / np.sqrt(values.var(0) + 1e-5)
        np.testing.assert_allclose(step(maps.astype("float32")), expected, atol=1e-4)
    maps = _features(1, 2, 2, 3)
    expected = (maps - mean / factor) / np.sqrt(variance / factor + 1e-5)
    np.testing.assert_allclose(layer(maps), expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_without_statistics_does_not_change_values():
    maps = _features(2, 3, 3, 4)
    layer = layers.AccumulatedBatchNormalization()
    np.testing.assert_allclose(layer(maps), maps, rtol=1e-4)


def test_batch_norm_of_a_single_value_or_a_constant_is_finite():
    layer = layers.AccumulatedBatchNormalization()
    np.testing.assert_array_equal(layer(np.full((1, 2), 7.0), training=True), [[0, 0]])
    np.testing.assert_array_equal(layer.accumulated_variance.numpy(), [0, 0])
    np.testing.assert_array_equal(layer(np.full((3, 2), 7.0), training=True), np.zeros((3, 2)))
    assert np.all(np.isfinite(layer(np.full((1, 2), 7.0))))


def test_batch_norm_that_is_not_trainable_keeps_its_statistics():
    layer, maps = layers.AccumulatedBatchNormalization(), 3 + _features(8, 2)
    layer(maps, training=True)
    layer.trainable = False
    before = [w.numpy() for w in layer.weights]
    np.testing.assert_array_equal(layer(maps + 5, training=True), layer(maps + 5))
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_batch_norm_has_float32_statistics_under_mixed_precision():
    layer = layers.AccumulatedBatchNormalization(dtype="mixed_float16")
    maps = (200 + 300 * _features(16, 4)).astype("float16")  # squares are beyond float16
    normalized = layer(maps, training=True)
    assert normalized.dtype == "float16"
    assert {weight.dtype for weight in layer.weights} == {"float32"}
    np.testing.assert_allclose(
        layer.accumulated_variance.numpy(), maps.astype("float64").var(0, ddof=1), rtol=1e-4
    )
    np.testing.assert_allclose(np.std(normalized, 0), 1, rtol=1e-2)


@pytest.mark.parametrize(
    "layer",
    [
        layers.CeilMaxPooling(3, 2, 1),
        layers.LocalResponseNormalization(3, 2e-4, 0.5, 2.0),
        layers.GroupedConv2D(4, 3, groups=2),
        layers.AccumulatedBatchNormalization(0.9, 1e-3),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_configurations_survive_serialization(layer):
    config = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.get_config() == layer.get_config()
    features = np.abs(_features(1, 5, 5, 4))
    assert copy(features).shape == layer(features).shape


def test_batch_norm_after_a_reset_has_the_statistics_of_later_batches_alone():
    layer, fresh = layers.AccumulatedBatchNormalization(), layers.AccumulatedBatchNormalization()
    layer(_features(4, 3, 3, 2, seed=1) + 5, training=True)
    layer.reset_statistics()
    for k in (2, 3):
        layer(_features(4, 3, 3, 2, seed=k), training=True)
        fresh(_features(4, 3, 3, 2, seed=k), training=True)
    for ours, theirs in zip(layer.weights, fresh.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
