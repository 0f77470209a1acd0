"""The base class of all segmenters."""

from keras import ops

from mm_keras import losses
from mm_keras.models.trainable import Trainable


class Segmenter(Trainable):
    """Base class of the segmenters: the loss over labelled pixels and its metrics.

    A subclass implements `call(images, training)`. It returns logits float32 [B, ceil(H /
    output_stride), ceil(W / output_stride), num_classes]; cell (i, j) lies on pixel (i, j) *
    output_stride. In training it may return another form that its own `paired` understands.

    `fit` takes the batches of `pipelines.batches.crops`: {"image": uint8 [B, H, W, 3],
    "label": uint8 [B, H, W]}. On any Keras backend it also takes images as x and labels as y.

    Metrics: loss; pixel_accuracy, the share of the labelled pixels of the loss whose class has the
    largest logit; gradient_norm; non_finite, the number of steps whose loss or gradient is not
    finite.

    Args:
        backbone: `mm_keras.backbones.Backbone`.
        num_classes: number of classes, void not counted.
        output_stride: image pixels per cell of the dense result, 1 or 2.
        name: name of the model.
        loss: function (labels [...], logits [..., num_classes]) -> float32 scalar that leaves out
            void; None for `mm_keras.losses.pixel_cross_entropy`.

    Raises:
        ValueError: if num_classes is below 1, or output_stride is not 1 or 2.
    """

    batch_keys = ("image", "label")

    def __init__(self, backbone, num_classes, output_stride, name, loss=None):
        check_positive(num_classes=num_classes)
        if output_stride not in (1, 2):
            raise ValueError(f"output_stride must be 1 or 2. Received {output_stride}.")
        super().__init__(name, ("pixel_accuracy", "gradient_norm"))
        self.backbone, self.num_classes = backbone, num_classes
        self.output_stride = output_stride
        self.pixel_loss = loss or losses.pixel_cross_entropy

    def batch_loss(self, inputs, targets, outputs):
        """Return the loss over the pixels of `paired`, void left out."""
        labels, logits = self.paired(ops.convert_to_tensor(targets), outputs)
        self._track_accuracy(labels, logits)
        return self.pixel_loss(labels, logits)

    def paired(self, labels, outputs):
        """Return labels [...] and logits [..., num_classes] of the same pixels.

        Args:
            labels: [B, H, W].
            outputs: the return value of `call`.
        """
        return labels[:, :: self.output_stride, :: self.output_stride], outputs

    def _track_accuracy(self, labels, logits):
        labels = ops.cast(labels, "int32")
        hits = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), labels)
        weights = ops.cast(labels != losses.VOID, "float32")
        self.trackers["pixel_accuracy"].update_state(
            ops.cast(hits, "float32"), sample_weight=weights
        )


def check_positive(**values: int):
    """Raise a ValueError that names the first argument below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received {value}.")
