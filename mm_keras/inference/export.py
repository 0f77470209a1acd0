"""Export of a `Predictor` as a SavedModel that runs with TensorFlow alone. Needs TensorFlow."""

import json
import os
import pathlib
from typing import NamedTuple

import tensorflow as tf

from mm_keras.inference.class_table import CLASSES_FILE, EXTRA_ASSETS, ClassTable

ENCODED = tf.TensorSpec([None], tf.string, name="encoded")
IMAGES_OF_ONE_SIZE = tf.TensorSpec([None, None, 3], tf.uint8)


def images(num_bands: int = 3) -> tf.TensorSpec:
    """Return the form of images of a number of bands: uint8 [B, H, W, num_bands]."""
    return tf.TensorSpec([None, None, None, num_bands], tf.uint8, name="images")


class PixelWindow(NamedTuple):
    """The mapping of stored values of images to 8 bits that the training data had.

    Attributes:
        num_bands: the number of bands of the stored images.
        bands: indices of the bands that become the bands of the network's images. Three become
            red, green and blue.
        low: the value of each of these bands that becomes 0.
        high: the value of each of these bands that becomes 255.
    """

    num_bands: int
    bands: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def apply(self, values):
        """Map stored values, float32 [B, H, W, num_bands], to uint8 [B, H, W, len(bands)].

        Example:
            >>> window = PixelWindow(1, (0, 0, 0), (0.0,) * 3, (1000.0,) * 3)
            >>> window.apply(tf.fill([1, 1, 1, 1], 500.0))[0, 0, 0].numpy().tolist()
            [128, 128, 128]
        """
        low, high = tf.constant(self.low), tf.constant(self.high)
        chosen = tf.gather(values, self.bands, axis=-1)
        chosen = tf.where(tf.math.is_nan(chosen), 0.0, chosen)
        scaled = (chosen - low) * (255 / (high - low))
        return tf.cast(tf.floor(tf.clip_by_value(scaled, 0.0, 255.0) + 0.5), tf.uint8)


def save(
    predictor,
    path: str | os.PathLike,
    window: PixelWindow | None = None,
    classes: ClassTable | None = None,
):
    """Write a SavedModel with the signatures of `signatures`.

    Args:
        predictor: `mm_keras.Predictor`.
        path: the folder of the SavedModel.
        window: the mapping of stored values of images to 8 bits, or None for images of 8 bits.
        classes: the meaning of the class ids, written into the folder `assets.extra`.

    Raises:
        ValueError: if the numbers of classes differ.
    """
    if classes is not None and classes.num_classes != predictor.num_classes:
        raise ValueError(
            f"Expected the names of {predictor.num_classes} classes. Received "
            f"{classes.num_classes}."
        )
    module = variables_of(predictor)
    tf.saved_model.save(module, os.fspath(path), signatures=signatures(predictor, window))
    if classes is not None:
        write_classes(path, classes)


def variables_of(predictor) -> tf.Module:
    """Return a module that holds the variables of a predictor, for functions that use them."""
    module = tf.Module()
    module.network_variables = [
        variable.value for model in predictor.models for variable in model.variables
    ]
    return module


def portable_function(predictor, images: tf.TensorSpec):
    """Return `Predictor.portable` for inputs of a shape, a `tf.function` -> {name: tensor}.

    Raises:
        ValueError: the predictor has windows.
    """
    function = tf.function(
        lambda images: predictor.portable(images)._asdict(), input_signature=[images]
    )
    function.get_concrete_function()  # a refusal comes now, and not inside a converter
    return function


def write_classes(path: str | os.PathLike, classes: ClassTable):
    """Write the meaning of the class ids into a SavedModel."""
    folder = pathlib.Path(path) / EXTRA_ASSETS
    folder.mkdir(exist_ok=True)
    content = json.dumps(classes.as_json(), indent=1)
    (folder / CLASSES_FILE).write_text(content + "\n", encoding="utf-8")


def signatures(predictor, window: PixelWindow | None = None) -> dict:
    """Return the signatures of the SavedModel, {name: `tf.function`}.

    `serving_default` takes images, uint8 [B, H, W, bands]. `serve_encoded` takes encoded, string
    [B], the JPEG or PNG bytes of images of one size; only networks of three bands have it. Both
    return class_ids, int32 [B, H, W], and probability, float32 [B, H, W]. `serve_probabilities`
    takes images and returns probabilities, float32 [B, H, W, num_classes]. With a window,
    `serve_raw` takes values, float32 [B, H, W, num_bands], the stored values of images, and returns
    the same as `serving_default`.
    """
    of_images = images(predictor.num_bands)

    def serve(images):
        return predictor.predict(images)._asdict()

    def serve_encoded(encoded):
        return serve(tf.map_fn(_decode, encoded, fn_output_signature=IMAGES_OF_ONE_SIZE))

    def serve_probabilities(images):
        return {"probabilities": predictor.probabilities(images)}

    def serve_raw(values):
        return serve(window.apply(values))

    found = {
        "serving_default": tf.function(serve, input_signature=[of_images]),
        "serve_probabilities": tf.function(serve_probabilities, input_signature=[of_images]),
    }
    if predictor.num_bands == 3:
        found["serve_encoded"] = tf.function(serve_encoded, input_signature=[ENCODED])
    if window is not None:
        values = tf.TensorSpec([None, None, None, window.num_bands], tf.float32, name="values")
        found["serve_raw"] = tf.function(serve_raw, input_signature=[values])
    return found


def _decode(encoded):
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)
