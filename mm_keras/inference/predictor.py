"""Inference: uint8 images of any size -> class ids and probabilities at their own size.

Evaluation measures a `Predictor` and export saves the very same one, so that geometry and
preprocessing exist once.
"""

import itertools
import os
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from mm_keras.inference import protocols

IMAGES = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
ENCODED = tf.TensorSpec([None], tf.string, name="encoded")


class Prediction(NamedTuple):
    """class_ids: int32 [B, H, W]; probability: float32 [B, H, W] of that class."""

    class_ids: tf.Tensor
    probability: tf.Tensor


class Predictor:
    """Class probabilities of whole images, averaged over one or more segmenters and, if asked for,
    over several views of the image. All averages are taken at the image's own pixels.

    Args:
        models: one segmenter or several of equal `num_classes`; each maps RGB pixels [B, H, W, 3]
            to logits every `output_stride` pixels. Pixels that they expect, pad colors and strides
            may differ.
        protocol: "native", "pascal" or "cityscapes", see `mm_keras.protocols`.
        shorter_side: images whose shorter side is larger are shrunk to it before the network
            ("native" only); one value, or one for each model.
        flip: also look at the image mirrored left to right.
        scales: sizes at which to look at the image, as factors on its own (not "pascal", which
            fixes the size).

    Raises:
        ValueError: no models, models of different classes, or what `protocols.check` refuses.
    """

    def __init__(
        self,
        models,
        protocol: str = "native",
        shorter_side: int | None | Sequence[int | None] = None,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
    ):
        self.models = list(models) if isinstance(models, Sequence) else [models]
        _check_models(self.models)
        sides = _one_per_model(shorter_side, len(self.models))
        for side in sides:
            protocols.check(protocol, side, scales)
        self.num_classes = self.models[0].num_classes
        self._networks = list(map(protocols.Network, self.models, sides))
        self._protocol = protocols.PROTOCOLS[protocol]
        self._mirrorings = (False, True) if flip else (False,)
        self._scales = tuple(scales)
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
        views = list(itertools.product(self._networks, self._scales, self._mirrorings))
        total = tf.constant(0.0)
        for view in views:
            # One view after the other, so that memory stays that of one.
            with tf.control_dependencies([total]):
                total += self._view(images, *view)
        return total / len(views)

    def _view(self, images, network, scale, is_mirrored):
        """What one network says of one view, at the image's own pixels."""
        size = tf.shape(images)[1:3]
        pixels = protocols.resized(images, network.input_size(size, scale), antialias=True)
        if is_mirrored:
            pixels = tf.reverse(pixels, axis=[2])
        probabilities = self._protocol(network, pixels)
        if is_mirrored:
            probabilities = tf.reverse(probabilities, axis=[2])
        return protocols.resized(probabilities, size)

    def _serve(self, images):
        return _most_probable(self._probabilities(images))._asdict()

    def _serve_encoded(self, encoded):
        return self._serve(tf.map_fn(_decode, encoded, fn_output_signature=IMAGES_OF_ONE_SIZE))

    def _serve_probabilities(self, images):
        return {"probabilities": self._probabilities(images)}


IMAGES_OF_ONE_SIZE = tf.TensorSpec([None, None, 3], tf.uint8)


def _decode(encoded):
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _most_probable(probabilities) -> Prediction:
    return Prediction(
        tf.argmax(probabilities, axis=-1, output_type=tf.int32),
        tf.reduce_max(probabilities, axis=-1),
    )


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
        raise ValueError(f"Models must agree in num_classes to be averaged. Received {counts}.")
