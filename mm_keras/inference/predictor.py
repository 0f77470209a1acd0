"""Inference: uint8 images of any size to class ids and probabilities at their own size.

Evaluation measures a `Predictor` and export saves the same one, so geometry and preprocessing exist
once.
"""

import itertools
import os
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from mm_keras.inference import bands, export, portable, protocols, windows
from mm_keras.inference.class_table import ClassTable
from mm_keras.models import dense


class Prediction(NamedTuple):
    """Most probable class of each pixel.

    Attributes:
        class_ids: int32 [B, H, W].
        probability: float32 [B, H, W], the probability of that class.
    """

    class_ids: tf.Tensor
    probability: tf.Tensor


class Predictor:
    """Predict class probabilities of whole images.

    Probabilities are averaged over the segmenters and over the views of the image (mirrored,
    scaled). All averages are computed at the image's own pixels.

    Args:
        models: one segmenter, or several of equal `num_classes` and bands. Each maps pixels
            [B, H, W, bands], RGB if there are three, to logits every `output_stride` pixels.
            Expected pixels, pad colors and strides may differ.
        protocol: "native", "pascal" or "cityscapes", see `mm_keras.inference.protocols`.
        shorter_side: images whose shorter side is larger are reduced to it before the network
            ("native" only). One value, or one for each model.
        flip: whether to add the image mirrored left to right as a view.
        scales: sizes of the views, as factors on the image's size. Protocol "pascal" fixes the
            size and takes no other scale than 1.
        window: side in pixels of windows of the network's input that are computed one after the
            other and blended, to bound the memory; None computes the whole input at once.
        overlap: pixels that neighboring windows share at least.

    Raises:
        ValueError: if there are no models, their classes differ, or `protocols.check` raises.

    Example:

    >>> from mm_keras import FcnSegmenter, backbones
    >>> model = FcnSegmenter(backbones.build("testing"), num_classes=3)
    >>> predictor = Predictor(model, flip=True)
    >>> prediction = predictor.predict(tf.zeros([1, 40, 50, 3], tf.uint8))
    >>> prediction.class_ids.shape
    TensorShape([1, 40, 50])
    >>> predictor.export("/tmp/model")  # doctest: +SKIP
    """

    def __init__(
        self,
        models,
        protocol: str = "native",
        shorter_side: int | None | Sequence[int | None] = None,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        window: int | None = None,
        overlap: int = windows.OVERLAP,
    ):
        self.models = list(models) if isinstance(models, Sequence) else [models]
        _check_models(self.models)
        sides = _one_per_model(shorter_side, len(self.models))
        for side in sides:
            protocols.check(protocol, side, scales, window)
        self.num_classes = self.models[0].num_classes
        self.num_bands = self.models[0].backbone.spec.num_bands
        parts = [windows.of(model, window, overlap) for model in self.models]
        self._networks = list(map(protocols.Network, self.models, sides, parts))
        self._protocol = protocols.PROTOCOLS[protocol]
        self._mirrorings = (False, True) if flip else (False,)
        self._scales = tuple(scales)
        images = [export.images(self.num_bands)]
        self._probabilities = tf.function(self._average, input_signature=images)
        self._most_probable = tf.function(self._in_bands, input_signature=images)

    def probabilities(self, images) -> tf.Tensor:
        """Return class probabilities float32 [B, H, W, num_classes] of uint8 [B, H, W, bands]."""
        return self._probabilities(tf.convert_to_tensor(images, tf.uint8))

    def predict(self, images) -> Prediction:
        """Return the most probable class of each pixel of uint8 [B, H, W, bands] images.

        Protocol "native" computes it in bands of rows: the probabilities of all pixels of a large
        image need more memory than the image.
        """
        return Prediction(*self._most_probable(tf.convert_to_tensor(images, tf.uint8)))

    def export(
        self,
        path: str | os.PathLike,
        window: export.PixelWindow | None = None,
        classes: ClassTable | None = None,
    ):
        """Write a SavedModel that runs with TensorFlow alone.

        See `mm_keras.inference.export.signatures` for its signatures.

        Args:
            path: the folder of the SavedModel.
            window: the mapping of stored values of images to 8 bits, or None for images of 8 bits.
            classes: the meaning of the class ids; `mm_keras.load_predictor` needs it.

        Raises:
            ValueError: if the numbers of classes differ.
        """
        export.save(self, path, window, classes)

    @property
    def _views(self):
        return list(itertools.product(self._networks, self._scales, self._mirrorings))

    def portable(self, images) -> Prediction:
        """Return the most probable class of each pixel, with operations that ONNX has.

        It equals `predict` up to rounding. It computes the probabilities of all pixels at once.

        Raises:
            ValueError: if the predictor has windows.
        """
        if any(network.parts is not None for network in self._networks):
            raise ValueError("The portable form of a Predictor has no windows. Leave window out.")
        with dense.at_once():
            return Prediction(*_most_probable(self._average(images, portable.resized)))

    def _in_bands(self, images):
        if self._protocol is not protocols.native:
            return _most_probable(self._average(images))
        maps: list[bands.CellMap] = []
        for view in self._views:
            with tf.control_dependencies(maps[-1].source.computed if maps else []):
                maps.append(self._cells(images, *view))
        return bands.most_probable(maps, tf.shape(images)[:3], self.num_classes)

    def _cells(self, images, network, scale, is_mirrored) -> bands.CellMap:
        """Return the probabilities of one network for one view, in the cells of its output."""
        pixels = _input(images, network, scale, is_mirrored)
        size, is_kept = tf.shape(pixels)[1:3], network.keeps_size(scale)
        source = (
            bands.WholeMap(network(pixels)) if network.parts is None else network.strips(pixels)
        )
        return bands.CellMap(source, network.stride, size, is_kept, is_mirrored)

    def _average(self, images, resize=protocols.resized):
        views = self._views
        total = tf.constant(0.0)
        for view in views:
            # One view after the other, so that memory does not grow with their number.
            with tf.control_dependencies([total]):
                total += self._view(images, *view, resize)
        return total / len(views)

    def _view(self, images, network, scale, is_mirrored, resize):
        """Return the probabilities of one network for one view, at the image's own pixels."""
        pixels = _input(images, network, scale, is_mirrored, resize)
        probabilities = self._protocol(network, pixels)
        if is_mirrored:
            probabilities = tf.reverse(probabilities, axis=[2])
        if network.keeps_size(scale):
            return probabilities
        return resize(probabilities, tf.shape(images)[1:3])


def _most_probable(probabilities):
    """Return class ids int32 [B, H, W] and their probabilities float32 [B, H, W]."""
    class_ids = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
    return class_ids, tf.reduce_max(probabilities, axis=-1)


def _input(images, network, scale, is_mirrored, resize=protocols.resized):
    """Return the input of a network for one view of the images."""
    pixels = images
    if not network.keeps_size(scale):
        size = network.input_size(tf.shape(images)[1:3], scale)
        pixels = resize(images, size, antialias=True)
    return tf.reverse(pixels, axis=[2]) if is_mirrored else pixels


def _one_per_model(value, num_models):
    values = list(value) if isinstance(value, Sequence) else [value] * num_models
    if len(values) != num_models:
        raise ValueError(
            f"shorter_side must be one value or one for each model. Received {len(values)} values "
            f"for {num_models} models."
        )
    return values


def _check_models(models):
    if not models:
        raise ValueError("A Predictor needs at least one model.")
    counts = [model.num_classes for model in models]
    if len(set(counts)) > 1:
        raise ValueError(f"Models of a Predictor must have equal num_classes. Received {counts}.")
    counts = [model.backbone.spec.num_bands for model in models]
    if len(set(counts)) > 1:
        raise ValueError(f"Models of a Predictor must take equal bands. Received {counts}.")
