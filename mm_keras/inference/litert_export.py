"""Export of a `Predictor` as one LiteRT file (formerly TensorFlow Lite). Needs TensorFlow."""

import contextlib
import io
import json
import os
import pathlib
import warnings
import zipfile
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from mm_keras.inference import export
from mm_keras.inference.class_table import CLASSES_FILE, ClassTable


class ConversionError(ValueError):
    """LiteRT's converter cannot write the model."""


def save(
    predictor,
    path: str | os.PathLike,
    size: tuple[int, int],
    classes: ClassTable | None = None,
    representative: Iterable[np.ndarray] | None = None,
) -> None:
    """Write a LiteRT model of built-in operators only.

    Its input is uint8 [1, height, width, bands]. Its outputs are class ids, int32
    [1, height, width], and their probability, float32 [1, height, width], as in
    `Predictor.predict`.

    Args:
        predictor: `mm_keras.Predictor` without windows.
        path: the file.
        size: (height, width) of the images; LiteRT has no free sizes here.
        classes: the meaning of the class ids, appended as classes.json. LiteRT's convention for
            associated files is a ZIP archive at the end of the model.
        representative: images uint8 [1, height, width, 3] whose activations give the ranges of a
            model with int8 weights and activations. Operators without an int8 kernel stay float.
            None for a float model.

    Raises:
        ValueError: the predictor has windows.
        ConversionError: LiteRT has no built-in operator for a part of the model.
    """
    images = tf.TensorSpec([1, *size, predictor.num_bands], tf.uint8, name="images")
    function = export.portable_function(predictor, images)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], export.variables_of(predictor)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if representative is not None:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image] for image in representative)
    stream = io.BytesIO(_converted(converter))
    if classes is not None:
        with zipfile.ZipFile(stream, "a") as archive:
            archive.writestr(CLASSES_FILE, json.dumps(classes.as_json(), indent=1))
    pathlib.Path(path).write_bytes(stream.getvalue())


def _converted(converter) -> bytes:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return converter.convert()
    except Exception as error:  # the converter raises errors of many types, and some of its own
        raise ConversionError(f"LiteRT cannot convert the model: {_problem(error)}") from error


def _problem(error) -> str:
    """Return the line that names the missing operators, else the last line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    named = [line for line in lines if line.startswith(("TF Select ops:", "Custom ops:"))]
    reason = f"no built-in operator for {named[0].partition(': ')[2]}" if named else lines[-1]
    return reason[:300]


def interpreter(path: str | os.PathLike) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from images uint8 [1, H, W, 3] to class ids int32 [1, H, W].

    It runs the model in LiteRT's interpreter: of the package ai_edge_litert where it is installed,
    else of TensorFlow.
    """
    model = _interpreter(pathlib.Path(path).read_bytes())
    model.allocate_tensors()
    place = next(d["index"] for d in model.get_output_details() if d["dtype"] == np.int32)

    def class_ids(images):
        model.set_tensor(model.get_input_details()[0]["index"], images)
        model.invoke()
        return model.get_tensor(place)

    return class_ids


def _interpreter(content: bytes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow announces the other package
        try:
            from ai_edge_litert import interpreter as litert
        except ImportError:
            litert = tf.lite
        return litert.Interpreter(model_content=content)


def read_classes(path: str | os.PathLike) -> ClassTable:
    """Return the meaning of the class ids of a LiteRT model.

    Raises:
        ValueError: the file has no such table, or it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(CLASSES_FILE)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no {CLASSES_FILE}: {error}.") from error
    return ClassTable.from_json(json.loads(content))
