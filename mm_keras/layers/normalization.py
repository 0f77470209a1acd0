"""Batch normalization by a fused kernel where the backend has one."""

import keras
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
