"""Load an exported model with the meaning of its classes. Needs TensorFlow."""

import os
import pathlib
import re

import numpy as np
import tensorflow as tf

from mm_keras.inference.class_table import CLASSES_FILE, EXTRA_ASSETS, ClassTable
from mm_keras.inference.predictor import Prediction

_PLACES = ("", "saved_model", "export/saved_model")
"""Places of the SavedModel in a path: the path itself, an exported folder, a working folder."""

_SIGNATURES = {"serving_default", "serve_probabilities"}


class ImageError(ValueError):
    """An image that the model cannot take."""


class LoadedPredictor:
    """An exported model. Call it with an image.

    Args:
        folder: the SavedModel that stage export or `Predictor.export` wrote.
        classes: the meaning of its class ids.

    Attributes:
        folder: path of the SavedModel.
        classes: `ClassTable`.
        num_bands: number of bands of its images; three are RGB.

    Raises:
        ValueError: if the folder holds no such model; names the folder.
    """

    def __init__(self, folder: pathlib.Path, classes: ClassTable):
        self.folder, self.classes = folder, classes
        try:
            self._model = tf.saved_model.load(os.fspath(folder))
            signatures = self._model.signatures
        except (OSError, ValueError, AttributeError, tf.errors.OpError) as error:
            raise ValueError(
                f"{folder} cannot be loaded: {_first_line(error).rstrip('.')}. Export the model "
                "again."
            ) from error
        if not set(signatures) >= _SIGNATURES:
            raise ValueError(
                f"{folder} is another kind of model. Expected the signatures "
                f"{', '.join(sorted(_SIGNATURES))}; received {', '.join(signatures) or 'none'}."
            )
        self._signatures = signatures
        images = signatures["serving_default"].structured_input_signature[1]["images"]
        self.num_bands = images.shape[-1]
        count = signatures["serve_probabilities"].structured_outputs["probabilities"].shape[-1]
        if count not in (None, classes.num_classes):
            raise ValueError(
                f"{folder} predicts {count} classes, and its {CLASSES_FILE} names "
                f"{classes.num_classes}. Export the model again."
            )

    def __call__(self, image) -> Prediction:
        """Predict the class of each pixel.

        Args:
            image: uint8 [H, W, num_bands], RGB if there are three; a tensor is not copied.

        Returns:
            `Prediction` of numpy arrays: class_ids int32 [H, W], probability float32 [H, W].

        Raises:
            ImageError: if the image has other values or bands, or is smaller than the network
                allows.
        """
        result = self._run("serving_default", image)
        return Prediction(result["class_ids"], result["probability"])

    def probabilities(self, image) -> np.ndarray:
        """Return the probability of each class, float32 [H, W, K], of uint8 [H, W, num_bands].

        Raises:
            ImageError: see `__call__`.
        """
        return self._run("serve_probabilities", image)["probabilities"]

    def _run(self, signature, image):
        image = image if tf.is_tensor(image) else np.asarray(image)
        bands, is_image = self.num_bands, image.ndim == 3 and 0 not in image.shape
        if image.dtype != np.uint8 or not is_image or image.shape[-1] != bands:
            kind, hint = (
                ("RGB ", " Give gray images three equal bands.") if bands == 3 else ("", "")
            )
            raise ImageError(
                f"The model takes one image, uint8 {kind}[height, width, {bands}]. "
                f"Received {image.dtype} of shape {list(image.shape)}.{hint}"
            )
        try:
            result = self._signatures[signature](images=tf.convert_to_tensor(image)[None])
        except tf.errors.InvalidArgumentError as error:
            raise ImageError(_first_line(error)) from error
        # A view of the tensor: a copy of a large image's result needs a gigabyte.
        return {name: np.asarray(memoryview(tensor))[0] for name, tensor in result.items()}


def load_predictor(path: str | os.PathLike) -> LoadedPredictor:
    """Load the model of a run.

    Args:
        path: a working folder with a finished stage export, its folder `export`, or a SavedModel
            that `Predictor.export` wrote with classes.

    Raises:
        ValueError: if there is no model, it is of another kind, or its classes are missing.

    Example:

    >>> predictor = load_predictor("runs/mine")  # doctest: +SKIP
    >>> class_ids, probability = predictor(image)  # doctest: +SKIP
    >>> predictor.classes.class_names[class_ids[0, 0]]  # doctest: +SKIP
    """
    folder = find_model(path)
    return LoadedPredictor(folder, ClassTable.read(_classes_file(folder)))


def find_model(path: str | os.PathLike) -> pathlib.Path:
    """Return the SavedModel of a working folder or an exported folder.

    Raises:
        ValueError: if there is none; names the places.
    """
    root = pathlib.Path(path).expanduser()
    places = [root / place for place in _PLACES]
    for place in places:
        if (place / "saved_model.pb").is_file():
            return place
    raise ValueError(
        f"{root} holds no exported model. Expected saved_model.pb in it, in saved_model/ or in "
        "export/saved_model/. In a working folder, run stage export first."
    )


def _classes_file(folder):
    """Return the file of the classes: inside the SavedModel, or beside it as older versions."""
    inside, beside = folder / EXTRA_ASSETS / CLASSES_FILE, folder.parent / CLASSES_FILE
    for file in (inside, beside):
        if file.is_file():
            return file
    raise ValueError(
        f"{folder} has no table of classes: expected {inside} or {beside}. Export the model again."
    )


def _first_line(error) -> str:
    """Return the sentence of a failed check in the graph, or else the first line."""
    text = str(getattr(error, "message", "") or error) or type(error).__name__
    failed = re.search(r"assertion failed: \[([^]]*)\]", text)
    return (failed[1] if failed else text.splitlines()[0])[:300]
