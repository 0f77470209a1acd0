"""Inference: uint8 images of any size -> class ids and probabilities at their own size.

Evaluation measures a `Predictor` and export saves the very same one, so that geometry and
preprocessing exist once.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from mm_keras import layers

PASCAL_SIZE = 512
"""Side of the canvas of the Pascal test protocol (released resources/test_pascal.py)."""

IMAGES = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
ENCODED = tf.TensorSpec([None], tf.string, name="encoded")


class Native:
    """The image as it is; larger images are first shrunk until the shorter side is `shorter_side`,
    if that is given.

    Probabilities between the cells of the network's output are interpolated, at cell k = pixel k *
    stride.
    """

    def __init__(self, pad_colour=(0, 0, 0), shorter_side: int | None = None):
        del pad_colour  # every protocol is built alike; this one adds no border
        if shorter_side is not None and shorter_side < 1:
            raise ValueError(f"shorter_side must be at least 1 pixel. Received {shorter_side}.")
        self.shorter_side = shorter_side

    def enter(self, images):
        """uint8 [B, H, W, 3] -> what the network sees, RGB 0..255."""
        size = tf.shape(images)[1:3]
        network_size = self._network_size(size)
        return tf.cond(
            tf.reduce_all(size == network_size),
            lambda: tf.cast(images, tf.float32),
            lambda: tf.image.resize(images, network_size, antialias=True),
        )

    def leave(self, probabilities, stride, size):
        """float32 [B, h, w, K] of output cells -> [B, H, W, K] of the image's own pixels."""
        network_size = self._network_size(size)
        full = layers.upsample(probabilities, stride, network_size)
        return tf.cond(
            tf.reduce_all(size == network_size),
            lambda: full,
            lambda: tf.image.resize(full, size),
        )

    def _network_size(self, size):
        if self.shorter_side is None:
            return size
        lengths = tf.cast(size, tf.float64)
        shrunk = tf.round(lengths * (self.shorter_side / tf.reduce_min(lengths)))
        return tf.minimum(size, tf.maximum(1, tf.cast(shrunk, tf.int32)))


class Pascal:
    """The Pascal VOC test protocol of the paper: longer side 512, centred on a square canvas, and
    all of it undone.

    Sizes follow resources/test_pascal.py of the released code, in double precision and truncated;
    probabilities go back to the image by nearest neighbour without a half-pixel shift.
    """

    def __init__(self, pad_colour=(0, 0, 0), shorter_side: int | None = None):
        if shorter_side is not None:
            raise ValueError(
                f"Protocol 'pascal' fixes its own size; shorter_side={shorter_side} needs 'native'."
            )
        self.pad_colour = pad_colour

    def enter(self, images):
        """uint8 [B, H, W, 3] -> [B, 512, 512, 3], RGB 0..255."""
        offset, size = centred(tf.shape(images)[1:3], PASCAL_SIZE)
        resized = tf.round(tf.image.resize(images, size))
        pad_colour = tf.constant(self.pad_colour, tf.float32)
        # Padding with zeros after the pad colour was subtracted leaves the pad colour.
        padded = tf.image.pad_to_bounding_box(
            resized - pad_colour, offset[0], offset[1], PASCAL_SIZE, PASCAL_SIZE
        )
        return padded + pad_colour

    def leave(self, probabilities, stride, size):
        """float32 [B, 512 / stride, 512 / stride, K] of output cells -> [B, H, W, K] of the image's
        own pixels.
        """
        del stride
        offset, cells = centred(size, tf.shape(probabilities)[1])
        rows, columns = (
            offset[axis] + tf.range(size[axis]) * cells[axis] // size[axis] for axis in (0, 1)
        )
        return tf.gather(tf.gather(probabilities, rows, axis=1), columns, axis=2)


PROTOCOLS = {"native": Native, "pascal": Pascal}


def centred(size, canvas):
    """Where an image lies whose longer side fills a square canvas (released resize_uniform.py).

    Args:
        size: int32 [2], height and width of the image.
        canvas: int, side of the canvas.

    Returns:
        offset int32 [2], size int32 [2] on the canvas, both (height, width).
    """
    ratio = tf.cast(size[0], tf.float64) / tf.cast(size[1], tf.float64)
    side = tf.cast(canvas, tf.float64)
    is_tall = ratio > 1
    height = tf.where(is_tall, side, side * ratio)
    width = tf.where(is_tall, side / ratio, side)
    # Extreme ratios truncate to nothing in the released code; one row or column is the least that
    # can be seen.
    placed = tf.maximum(1, tf.cast(tf.stack([height, width]), tf.int32))
    return (canvas - placed) // 2, placed


class Prediction(NamedTuple):
    """class_ids: int32 [B, H, W]; probability: float32 [B, H, W] of that class."""

    class_ids: tf.Tensor
    probability: tf.Tensor


class Predictor:
    """Class probabilities of whole images, averaged over one or more segmenters.

    Args:
        models: one segmenter or several of equal `num_classes`; each maps RGB pixels [B, H, W, 3]
            to logits every `output_stride` pixels.
        protocol: "native" or "pascal", see the classes of these names.
        shorter_side: images whose shorter side is larger are shrunk to it before the network
            ("native" only).

    Raises:
        ValueError: no models, models of different classes or strides, unknown protocol.
    """

    def __init__(self, models, protocol: str = "native", shorter_side: int | None = None):
        self.models = list(models) if isinstance(models, Sequence) else [models]
        _check_models(self.models)
        if protocol not in PROTOCOLS:
            raise ValueError(f"Unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}.")
        self.num_classes = self.models[0].num_classes
        self.output_stride = self.models[0].output_stride
        self._protocols = [
            PROTOCOLS[protocol](model.backbone.spec.pad_colour, shorter_side)
            for model in self.models
        ]
        self._probabilities = tf.function(self._average, input_signature=[IMAGES])

    def probabilities(self, images) -> tf.Tensor:
        """Class probabilities of uint8 [B, H, W, 3]; float32 [B, H, W, num_classes]."""
        return self._probabilities(tf.convert_to_tensor(images, tf.uint8))

    def predict(self, images) -> Prediction:
        """The most probable class of each pixel of uint8 [B, H, W, 3] images."""
        return _most_probable(self.probabilities(images))

    def export(self, path: str | os.PathLike):
        """Writes a SavedModel that runs with TensorFlow alone.

        `serving_default` takes images, uint8 [B, H, W, 3]; `serve_encoded` takes encoded, string
        [B], the JPEG or PNG bytes of images of one size. Both give class_ids, int32 [B, H, W], and
        probability, float32 [B, H, W]. `serve_probabilities` takes images and gives probabilities,
        float32 [B, H, W, num_classes].
        """
        module = tf.Module()
        module.network_variables = [
            variable.value for model in self.models for variable in model.variables
        ]
        tf.saved_model.save(
            module,
            os.fspath(path),
            signatures={
                "serving_default": tf.function(self._serve, input_signature=[IMAGES]),
                "serve_encoded": tf.function(self._serve_encoded, input_signature=[ENCODED]),
                "serve_probabilities": tf.function(
                    self._serve_probabilities, input_signature=[IMAGES]
                ),
            },
        )

    def _average(self, images):
        size = tf.shape(images)[1:3]
        total = 0.0
        for model, protocol in zip(self.models, self._protocols, strict=True):
            seen = protocol.enter(images)
            _check_size(seen, model.backbone.spec)
            logits = model(seen, training=False)
            probabilities = keras.ops.softmax(tf.cast(logits, tf.float32))
            total += protocol.leave(probabilities, self.output_stride, size)
        return total / len(self.models)

    def _serve(self, images):
        return _most_probable(self._average(images))._asdict()

    def _serve_encoded(self, encoded):
        return self._serve(tf.map_fn(_decode, encoded, fn_output_signature=IMAGES_OF_ONE_SIZE))

    def _serve_probabilities(self, images):
        return {"probabilities": self._average(images)}


IMAGES_OF_ONE_SIZE = tf.TensorSpec([None, None, 3], tf.uint8)


def _decode(encoded):
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _most_probable(probabilities) -> Prediction:
    return Prediction(
        tf.argmax(probabilities, axis=-1, output_type=tf.int32),
        tf.reduce_max(probabilities, axis=-1),
    )


def _check_size(images, spec):
    """Fails at run time too, also in the SavedModel, where sizes are not known before."""
    if spec.min_size > 1:
        tf.debugging.assert_greater_equal(
            tf.reduce_min(tf.shape(images)[1:3]),
            spec.min_size,
            f"{spec.name} takes images of at least {spec.min_size} pixels a side.",
        )


def _check_models(models):
    if not models:
        raise ValueError("A Predictor needs at least one model.")
    kinds = {(model.num_classes, model.output_stride) for model in models}
    if len(kinds) > 1:
        raise ValueError(
            f"Models must agree in (num_classes, output_stride). Received {sorted(kinds)}."
        )
