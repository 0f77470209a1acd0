"""The base class of all segmenters."""

from typing import NamedTuple

from keras import ops

from mm_keras import losses
from mm_keras.models.trainable import Trainable


class WithMaps(NamedTuple):
    """The result of a segmenter with a contrast, in training.

    Attributes:
        outputs: the result of `classified`.
        maps: {name: [B, h, w, C]}, `feature_maps`.
    """

    outputs: object
    maps: dict


class Segmenter(Trainable):
    """Base class of the segmenters: the loss over labelled pixels and its metrics.

    A subclass implements `classified(maps, images, training)`. It returns logits float32 [B, ceil(H
    / output_stride), ceil(W / output_stride), num_classes]; cell (i, j) lies on pixel (i, j) *
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
        contrast: `mm_keras.models.auxiliary_contrast.AuxiliaryContrast` whose loss is added in
            training; None for none.

    Raises:
        ValueError: if num_classes is below 1, or output_stride is not 1 or 2.
    """

    batch_keys = ("image", "label")

    def __init__(self, backbone, num_classes, output_stride, name, loss=None, contrast=None):
        check_positive(num_classes=num_classes)
        if output_stride not in (1, 2):
            raise ValueError(f"output_stride must be 1 or 2. Received {output_stride}.")
        super().__init__(name, ("pixel_accuracy", "gradient_norm"))
        self.backbone, self.num_classes = backbone, num_classes
        self.output_stride = output_stride
        self.pixel_loss = loss or losses.pixel_cross_entropy
        self.contrast = contrast

    def call(self, images, training=False):
        """Return logits of images [B, H, W, 3] with RGB values 0..255.

        Args:
            images: the images.
            training: whether batch norm normalizes by the batch and dropout is on. With a contrast,
                a training call returns `WithMaps`.
        """
        maps = self.feature_maps(images, training)
        outputs = self.classified(maps, images, training)
        if not training or self.contrast is None:
            return outputs
        return WithMaps(outputs, maps)

    def feature_maps(self, images, training=False):
        """Return the maps of the backbone, {name: [B, h, w, C]}."""
        return self.backbone(images, training=training)

    def classified(self, maps, images, training=False):
        """Return the logits of `call` for the `feature_maps` of images."""
        raise NotImplementedError(f"{type(self).__name__} must implement classified.")

    def batch_loss(self, inputs, targets, outputs):
        """Return the loss over the pixels of `paired`, void left out, and the contrast."""
        labels = ops.convert_to_tensor(targets)
        if not isinstance(outputs, WithMaps):
            return self.output_loss(labels, outputs)
        return self.output_loss(labels, outputs.outputs) + self.contrast(outputs.maps, labels)

    def output_loss(self, labels, outputs):
        """Return the loss of the result of `classified`, and track the accuracy.

        Args:
            labels: [B, H, W].
            outputs: the result.
        """
        labels, logits = self.paired(labels, outputs)
        self._track_accuracy(labels, logits)
        return self.pixel_loss(labels, logits)

    def paired(self, labels, outputs):
        """Return labels [...] and logits [..., num_classes] of the same pixels.

        Args:
            labels: [B, H, W].
            outputs: the result of `classified`.
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
