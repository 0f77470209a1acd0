"""Layers that Caffe and Keras define differently.

They are pooling, grouped convolution, response and batch normalization, and the "xavier" filler.
"""

import keras
from keras import ops


def xavier() -> keras.initializers.Initializer:
    """Return Caffe's "xavier" filler, uniform in +-sqrt(3 / fan_in).

    Source: caffe/include/caffe/filler.hpp. Each call returns a new object, because a Keras
    initializer that is used twice gives the same values twice.
    """
    return keras.initializers.VarianceScaling(scale=1.0, mode="fan_in", distribution="uniform")


@keras.saving.register_keras_serializable("mm_keras")
class CeilMaxPooling(keras.layers.Layer):
    """Max pooling that rounds sizes up as in Caffe: the last window may reach over the border.

    One axis of length L has ceil((L + 2 padding - pool_size) / strides) + 1 windows. The first
    window starts `padding` cells before the map. With padding, a last window that would start at or
    beyond L + padding is dropped (caffe/src/caffe/layers/pooling_layer.cpp). Cells outside of the
    map are ignored. Maps too small for a single window give one cell; Caffe rejects them.

    Args:
        pool_size: side of the square window.
        strides: cells between windows, at most `pool_size`.
        padding: cells around the map, less than `pool_size`.

    Call with float [B, H, W, C].

    Raises:
        ValueError: if strides or padding would leave a window without a cell of the map.

    Example:

    >>> tuple(CeilMaxPooling()(ops.ones((1, 5, 4, 3))).shape)
    (1, 3, 2, 3)
    """

    def __init__(self, pool_size=2, strides=2, padding=0, **kwargs):
        super().__init__(**kwargs)
        if not 1 <= strides <= pool_size:
            raise ValueError(f"strides must be in 1..pool_size = {pool_size}. Received {strides}.")
        if not 0 <= padding < pool_size:
            raise ValueError(f"padding must be in 0..{pool_size - 1}. Received {padding}.")
        self.pool_size, self.strides, self.padding = pool_size, strides, padding

    def call(self, features):
        if (self.pool_size, self.strides, self.padding) == (2, 2, 0):
            # "same" gives the same result here and needs no padded copy.
            return ops.max_pool(features, pool_size=2, strides=2, padding="same")
        borders = [(self.padding, self._windows(n)[1]) for n in ops.shape(features)[1:3]]
        padded = ops.pad(features, [(0, 0), *borders, (0, 0)], constant_values=-float("inf"))
        return ops.max_pool(padded, self.pool_size, self.strides, padding="valid")

    def _windows(self, length):
        """Return the windows along an axis, and the cells of the last window beyond it.

        `length` is an integer or an integer tensor, and so are the results.
        """
        low, high = (min, max) if isinstance(length, int) else (ops.minimum, ops.maximum)
        rounded_up = -(-(length + 2 * self.padding - self.pool_size) // self.strides) + 1
        num_starts = -(-(length + self.padding) // self.strides)  # before length + padding
        number = high(low(rounded_up, num_starts), 1)
        end = (number - 1) * self.strides + self.pool_size - self.padding
        return number, high(end - length, 0)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        sizes = (None if n is None else self._windows(n)[0] for n in (height, width))
        return (batch, *sizes, channels)

    def get_config(self):
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "strides": self.strides,
            "padding": self.padding,
        }


@keras.saving.register_keras_serializable("mm_keras")
class LocalResponseNormalization(keras.layers.Layer):
    """Normalize across channels as in Caffe.

        x / (bias + alpha / size * sum of squares over `size` neighboring channels) ** beta

    Caffe divides alpha by the size of the window (caffe/src/caffe/layers/lrn_layer.cpp). Channels
    that do not exist count as zeros. The layer computes in float32, since squares leave the range
    of float16.

    Args:
        size: number of channels of the window, odd.
        alpha: Caffe's alpha. All defaults follow the released Alexnet/*/train_graph.prototxt.
        beta: Caffe's beta.
        bias: Caffe's k.

    Call with float [..., C].

    Raises:
        ValueError: if `size` is even or not positive.
    """

    def __init__(self, size=5, alpha=1e-4, beta=0.75, bias=1.0, **kwargs):
        super().__init__(**kwargs)
        if size < 1 or size % 2 == 0:
            raise ValueError(f"size must be odd and positive. Received {size}.")
        self.size, self.alpha, self.beta, self.bias = size, alpha, beta, bias

    def call(self, features):
        values = ops.cast(features, "float32")
        # On a CPU, one product with a banded matrix and exp of log take an eighth of the time of
        # shifted copies and a power, gradients included.
        energy = ops.matmul(ops.square(values), self._window(values.shape[-1]))
        scale = self.bias + self.alpha / self.size * energy
        return ops.cast(values * ops.exp(-self.beta * ops.log(scale)), self.compute_dtype)

    def _window(self, num_channels):
        """Return float32 [C, C], 1 where two channels lie in one window."""
        channels = ops.arange(num_channels)
        distance = ops.abs(channels[:, None] - channels)
        return ops.cast(distance <= self.size // 2, "float32")

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "alpha": self.alpha,
            "beta": self.beta,
            "bias": self.bias,
        }


@keras.saving.register_keras_serializable("mm_keras")
class GroupedConv2D(keras.layers.Conv2D):
    """Convolve the groups of a `keras.layers.Conv2D` one by one, then concatenate.

    Results and weights (kernel [kh, kw, in / groups, out], bias [out]) equal Conv2D. TensorFlow has
    no gradient of a grouped convolution on the CPU without oneDNN. There Keras uses XLA, which
    compiles again for every size of image.
    """

    def convolution_op(self, inputs, kernel):
        groups = zip(
            ops.split(inputs, self.groups, axis=-1),
            ops.split(kernel, self.groups, axis=-1),
            strict=True,
        )
        convolve = super().convolution_op
        return ops.concatenate([convolve(*group) for group in groups], axis=-1)


@keras.saving.register_keras_serializable("mm_keras")
class AccumulatedBatchNormalization(keras.layers.Layer):
    """Caffe's "BatchNorm": no scale and shift, statistics as decaying sums.

    Training normalizes with the mean and the biased variance of the batch, and updates

        factor <- fraction * factor + 1
        accumulated_mean <- fraction * accumulated_mean + batch mean
        accumulated_variance <- fraction * accumulated_variance + m / (m - 1) * batch variance

    where m is the number of values per channel. Inference divides both sums by the factor
    (caffe/src/caffe/layers/batch_norm_layer.cpp). Unlike in moving averages, the start value has no
    weight, even after one step.

    All three start at 0. While the factor is 0, inference uses mean 0 and variance 1; Caffe would
    divide by sqrt(epsilon). So an untrained network, or one with weights of a network without
    normalization, stays usable.

    Args:
        fraction: Caffe's moving_average_fraction.
        epsilon: added to the variance.

    Call with float [..., C]; `training` selects the statistics. Statistics and arithmetic are
    float32, for features of any precision. A layer that is not trainable uses the accumulated
    statistics, as Keras' own batch normalization does.

    Weights, not trainable: accumulated_mean [C], accumulated_variance [C], factor [1], as in
    Caffe's blobs.
    """

    def __init__(self, fraction=0.999, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.fraction, self.epsilon = fraction, epsilon
        self.num_replicas = 1  # number that share their batch, see `mm_keras.layers.synchronize`

    def build(self, input_shape):
        self.accumulated_mean, self.accumulated_variance, self.factor = (
            self.add_weight(
                name=name, shape=(size,), initializer="zeros", trainable=False, autocast=False
            )
            for name, size in (
                ("accumulated_mean", input_shape[-1]),
                ("accumulated_variance", input_shape[-1]),
                ("factor", 1),
            )
        )

    def call(self, features, training=False):
        values = ops.cast(features, "float32")
        if training and self.trainable:
            mean, variance = ops.moments(
                values,
                axes=list(range(len(values.shape) - 1)),
                synchronized=self.num_replicas > 1,
            )
            self._accumulate(mean, variance, values)
        else:
            mean, variance = self.statistics()
        normalized = ops.batch_normalization(values, mean, variance, axis=-1, epsilon=self.epsilon)
        return ops.cast(normalized, self.compute_dtype)

    def reset_statistics(self):
        """Forget all batches, so that the next ones alone give the statistics."""
        for total in (self.accumulated_mean, self.accumulated_variance, self.factor):
            total.assign(ops.zeros_like(total))

    def _accumulate(self, mean, variance, values):
        count = ops.cast(ops.size(values[..., 0]) * self.num_replicas, "float32")
        unbiased = variance * count / ops.maximum(count - 1, 1)
        for total, value in (
            (self.accumulated_mean, mean),
            (self.accumulated_variance, unbiased),
            (self.factor, 1.0),
        ):
            total.assign(self.fraction * total + value)

    def statistics(self):
        """Return mean and variance for inference, float32 [C] each."""
        factor = ops.convert_to_tensor(self.factor)
        is_empty = factor == 0
        divisor = ops.where(is_empty, 1.0, factor)
        variance = ops.where(is_empty, 1.0, self.accumulated_variance / divisor)
        return self.accumulated_mean / divisor, variance

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "fraction": self.fraction, "epsilon": self.epsilon}
