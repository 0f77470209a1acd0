"""The base class of all segmenters."""

import keras
from keras import ops

from mm_keras import losses
from mm_keras.models import trainable
from mm_keras.models.trainable import counted


class Segmenter(keras.Model):
    """What the segmenters share: the training step, the loss and its metrics.

    A subclass implements `call(images, training)`: logits float32 [B, ceil(H / output_stride),
    ceil(W / output_stride), num_classes], cell (i, j) on pixel (i, j) * output_stride. In training
    it may give another form that its own `paired` understands.

    `fit` takes what `pipelines.batches.crops` yields, {"image": uint8 [B, H, W, 3], "label": uint8
    [B, H, W]}, or images as x and labels as y on any Keras backend.

    Args:
        backbone: `mm_keras.backbones.Backbone`.
        num_classes: number of classes, void not counted.
        output_stride: image pixels per cell of the dense result.

    Metrics: loss; pixel_accuracy, the share of the labelled pixels of the loss whose class has the
    largest logit; gradient_norm; non_finite, the number of steps whose loss or gradient was not
    finite.

    Raises:
        ValueError: num_classes below 1.
    """

    def __init__(self, backbone, num_classes, output_stride, name):
        super().__init__(name=name)
        check_positive(num_classes=num_classes)
        self.backbone, self.num_classes = backbone, num_classes
        self.output_stride = output_stride
        self.trackers = {
            name: keras.metrics.Mean(name=name) for name in ("pixel_accuracy", "gradient_norm")
        }
        self.non_finite = trainable.NonFinite()

    def train_step(self, *args):
        """One step on {"image", "label"} or (images, labels) in TensorFlow's graph mode; Keras' own
        step elsewhere.
        """
        if keras.backend.backend() != "tensorflow":
            return super().train_step(*args)
        import tensorflow as tf

        images, labels = trainable.unpack(*args, keys=("image", "label"))
        with tf.GradientTape() as tape:
            outputs = self(images, training=True)
            loss = self.compute_loss(images, labels, outputs)
            scaled_loss = trainable.scaled(self, loss)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        gradient_norm = trainable.update_weights(self, gradients)
        trainable.track_step(self, loss, gradient_norm)
        return self.get_metrics_result()

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Cross-entropy over the pixels that `paired` gives; void left out."""
        labels, logits = self.paired(ops.convert_to_tensor(y), y_pred)
        self._track_accuracy(labels, logits)
        return counted(self, losses.pixel_cross_entropy(labels, logits))

    def paired(self, labels, outputs):
        """Labels [...] and logits [..., num_classes] of the same pixels.

        Args:
            labels: [B, H, W].
            outputs: what `call` returned.
        """
        return labels[:, :: self.output_stride, :: self.output_stride], outputs

    def _track_accuracy(self, labels, logits):
        labels = ops.cast(labels, "int32")
        hits = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), labels)
        weights = ops.cast(labels != losses.VOID, "float32")
        self.trackers["pixel_accuracy"].update_state(
            ops.cast(hits, "float32"), sample_weight=weights
        )


def check_positive(**values):
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received {value}.")
