"""The fused batch norm equals Keras' layer, and delegates to it where it does not apply."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mm_keras import layers


def _pair(channels=5, **arguments):
    """Keras' layer and ours with the same random weights."""
    rng = np.random.default_rng(0)
    pair = [
        kind(momentum=0.9, epsilon=1e-5, name="batch", **arguments)
        for kind in (keras.layers.BatchNormalization, layers.BatchNormalization)
    ]
    for layer in pair:
        layer.build((None, None, None, channels))
    for theirs, ours in zip(*(layer.variables for layer in pair), strict=True):
        theirs.assign(rng.uniform(0.5, 2, channels))
        ours.assign(theirs)
    return pair


def _inputs(*shape):
    return tf.constant(np.random.default_rng(1).normal(3, 2, shape).astype("float32"))


def _run(layer, inputs, training, jit_compile=False):
    """Outputs, gradients and variables after one call."""

    @tf.function(jit_compile=jit_compile)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=training)
            loss = tf.reduce_sum(tf.cast(outputs, "float32") ** 3)
        return outputs, tape.gradient(loss, [inputs, *layer.trainable_variables])

    outputs, gradients = step()
    return [outputs, *gradients, *layer.variables]


def _uses_the_kernel(layer, inputs, **arguments):
    graph = tf.function(lambda: layer(inputs, **arguments)).get_concrete_function().graph
    return any(op.type == "FusedBatchNormV3" for op in graph.get_operations())


def _assert_close(results, others):
    for result, other in zip(results, others, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(result, other, rtol=1e-3, atol=1e-3 * scale + 1e-4)


@pytest.mark.parametrize("shape", [(4, 3, 6, 5), (1, 1, 2, 5), (1, 1, 1, 5)])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_fused_batch_norm_equals_keras(shape, affine, training):
    results = [
        _run(layer, _inputs(*shape), training) for layer in _pair(scale=affine, center=affine)
    ]
    _assert_close(*results)


def test_fused_batch_norm_equals_keras_under_xla():
    results = [_run(layer, _inputs(4, 3, 6, 5), True, jit_compile=True) for layer in _pair()]
    _assert_close(*results)


def test_the_fused_kernel_runs_only_where_it_applies():
    inputs = _inputs(2, 3, 4, 5)
    _, layer = _pair()
    assert _uses_the_kernel(layer, inputs, training=True)
    assert not _uses_the_kernel(layer, inputs, training=False)
    assert not _uses_the_kernel(layer, inputs, training=True, mask=tf.ones([2, 3, 4], bool))
    layer.trainable = False
    assert not _uses_the_kernel(layer, inputs, training=True)
    _, layer = _pair(synchronized=True)
    assert not _uses_the_kernel(layer, inputs, training=True)
    layer = layers.BatchNormalization(dtype="mixed_float16")
    assert not _uses_the_kernel(layer, inputs, training=True)


def test_the_layer_survives_serialization():
    layer = layers.BatchNormalization(momentum=0.8, scale=False)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(copy) is type(layer) and copy.momentum == 0.8 and not copy.scale


def _convolutions(has_norm):
    keras.utils.set_random_seed(0)
    features = inputs = keras.Input((None, None, 3))
    for k in range(3):
        features = keras.layers.Conv2D(6, 3, bias_initializer="random_normal")(features)
        if has_norm:
            features = layers.BatchNormalization(epsilon=1e-5, name=f"norm{k}")(features)
        features = keras.layers.ReLU()(features)
    return keras.Model(inputs, features)


def test_batch_norm_from_statistics_keeps_the_function_in_training():
    """ImageNet VGG-16 has no batch norm: as the identity it voids biases in the first step."""
    plain, network = _convolutions(False), _convolutions(True)
    for k, layer in enumerate(layer for layer in network.layers if "conv" in layer.name):
        layer.set_weights([x for x in plain.layers if "conv" in x.name][k].get_weights())
    batch = _inputs(8, 20, 20, 3)
    expected = plain(batch).numpy()
    scale = np.abs(expected).max()
    assert np.abs(network(batch, training=True) - expected).max() > 0.1 * scale
    for layer in network.layers:
        if layer.name.startswith("norm"):  # forget the step above
            layer.moving_mean.assign(np.zeros(6))
            layer.moving_variance.assign(np.ones(6))
    done = layers.set_to_statistics(network, [batch[:3], batch[3:]])
    assert done == ["norm0", "norm1", "norm2"]
    np.testing.assert_allclose(network(batch), expected, atol=1e-3 * scale)
    np.testing.assert_allclose(network(batch, training=True), expected, atol=1e-3 * scale)


def test_statistics_need_a_batch_and_a_layer():
    network = _convolutions(True)
    assert layers.set_to_statistics(network, [], names=[]) == []
    with pytest.raises(ValueError, match="There are no batches"):
        layers.set_to_statistics(network, [])
