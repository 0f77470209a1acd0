"""Export of a `Predictor` as one LiteRT file (formerly TensorFlow Lite). Needs TensorFlow."""

import io
import json
import os
import pathlib
import zipfile

import tensorflow as tf

from mm_keras.inference import export
from mm_keras.inference.class_table import CLASSES_FILE, ClassTable


def save(
    predictor, path: str | os.PathLike, size: tuple[int, int], classes: ClassTable | None = None
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

    Raises:
        ValueError: the predictor has windows.
    """
    images = tf.TensorSpec([1, *size, predictor.num_bands], tf.uint8, name="images")
    function = export.portable_function(predictor, images)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], export.variables_of(predictor)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    stream = io.BytesIO(converter.convert())
    if classes is not None:
        with zipfile.ZipFile(stream, "a") as archive:
            archive.writestr(CLASSES_FILE, json.dumps(classes.as_json(), indent=1))
    pathlib.Path(path).write_bytes(stream.getvalue())


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
