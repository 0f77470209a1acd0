"""Batch normalization by a fused kernel where the backend has one."""

from collections.abc import Collection, Iterable

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("mm_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer, computed by TensorFlow's fused kernels in float32 training.

    Keras composes mean, variance and normalization of single operations. Their passes over the
    maps, gradients included, take a quarter of a VGG-16 step on a CPU. The fused kernels need a
    third of that. Variables, statistics and results equal Keras' layer. Keras' own code runs where
    the kernels do not apply: on other backends and precisions, in inference, with masks,
    synchronized statistics or renormalization. The class has Keras' name, because the layout of
    weight files follows class names.

    Args: as for `keras.layers.BatchNormalization`.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable and self._is_fusable(inputs, mask)):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        channels = inputs.shape[-1]
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.convert_to_tensor(self.gamma) if self.scale else tf.ones([channels]),
            offset=ops.convert_to_tensor(self.beta) if self.center else tf.zeros([channels]),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel returns the unbiased variance. Keras and Caffe use the biased one.
        count = tf.cast(tf.size(inputs) // channels, tf.float32)
        self._update(self.moving_mean, mean)
        self._update(self.moving_variance, variance * (count - 1) / count)
        return outputs

    def _is_fusable(self, inputs, mask):
        return (
            keras.backend.backend() == "tensorflow"
            and keras.backend.standardize_dtype(inputs.dtype) == "float32"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and mask is None
            and not self.synchronized
            and not self.renorm
        )

    def _update(self, average, value):
        average.assign(average * self.momentum + value * (1 - self.momentum))


def set_to_statistics(
    network: keras.Model, batches: Iterable[np.ndarray], names: Collection[str] | None = None
) -> list[str]:
    """Set batch norms that are the identity to the statistics of their inputs.

    A network whose weights were trained without batch norm gets layers with mean 0, variance 1,
    slope 1 and bias 0. Inference then keeps its function, but a training step normalizes by the
    batch. This function computes mean and variance v of each layer's inputs, and sets slope to
    sqrt(v + epsilon) and bias to the mean. Training steps on like batches then keep the function as
    well.

    Args:
        network: a functional model; the function changes it in place.
        batches: inputs of the network, at least one batch.
        names: the layers to set; None for all batch norms with slope and bias.

    Returns:
        The names of the layers that were set.

    Raises:
        ValueError: if there is no batch.

    Example:

    >>> inputs = keras.Input((2,))
    >>> network = keras.Model(inputs, keras.layers.BatchNormalization(name="norm")(inputs))
    >>> batch = np.array([[1.0, 30.0], [3.0, 50.0]], "float32")
    >>> set_to_statistics(network, [batch])
    ['norm']
    >>> np.allclose(network(batch, training=True), batch, atol=1e-3)
    True
    """
    chosen = [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.scale
        and layer.center
        and (names is None or layer.name in names)
    ]
    if not chosen:
        return []
    inner = keras.Model(network.inputs, [layer.input for layer in chosen])
    sums = [0.0] * len(chosen)
    for batch in batches:
        maps = inner(batch, training=False)
        maps = maps if isinstance(maps, (list, tuple)) else [maps]
        sums = [total + _sums(values) for total, values in zip(sums, maps, strict=True)]
    if isinstance(sums[0], float):
        raise ValueError("There are no batches to compute statistics from.")
    for layer, (count, total, squares) in zip(chosen, sums, strict=True):
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 0)
        layer.gamma.assign(np.sqrt(variance + layer.epsilon))
        layer.beta.assign(mean)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)
    return [layer.name for layer in chosen]


def _sums(values):
    """Return count, sums and sums of squares of each channel, float64 [3, C]."""
    axes = list(range(len(values.shape) - 1))
    mean, variance = (
        ops.convert_to_numpy(moment).astype("float64")
        for moment in ops.moments(ops.cast(values, "float32"), axes=axes)
    )
    count = float(np.prod(ops.shape(values)[:-1]))
    return count * np.stack([np.ones_like(mean), mean, variance + mean**2])
