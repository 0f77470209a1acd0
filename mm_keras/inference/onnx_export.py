"""Export of a `Predictor` as one ONNX file. Needs TensorFlow, tf2onnx and onnx."""

import json
import os
import pathlib

from mm_keras.inference import export
from mm_keras.inference.class_table import ClassTable

OPSET = 18
"""Version of ONNX's operators; onnxruntime 1.14 and newer read it."""

METADATA = "classes"
"""Key of the metadata that holds the meaning of the class ids, as JSON."""


def save(predictor, path: str | os.PathLike, classes: ClassTable | None = None) -> None:
    """Write an ONNX model.

    Its input `images` is uint8 [B, H, W, bands] of any size. Its outputs are `class_ids`, int32
    [B, H, W], and `probability`, float32 [B, H, W], as in `Predictor.predict`.

    Args:
        predictor: `mm_keras.Predictor` without windows.
        path: the file.
        classes: the meaning of the class ids, stored as metadata "classes".

    Raises:
        ImportError: tf2onnx is missing.
        ValueError: the predictor has windows.
    """
    import tf2onnx

    images = export.images(predictor.num_bands)
    function = export.portable_function(predictor, images)
    model, _ = tf2onnx.convert.from_function(function, input_signature=[images], opset=OPSET)
    if classes is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = METADATA, json.dumps(classes.as_json())
    pathlib.Path(path).write_bytes(model.SerializeToString())


def read_classes(metadata: dict[str, str]) -> ClassTable:
    """Return the meaning of the class ids of an ONNX model.

    Args:
        metadata: the model's metadata, for example
            `session.get_modelmeta().custom_metadata_map` of onnxruntime.

    Raises:
        ValueError: the metadata have no such entry, or it is damaged.
    """
    if METADATA not in metadata:
        raise ValueError(f"Expected metadata {METADATA!r}. Received {', '.join(metadata)!r}.")
    return ClassTable.from_json(json.loads(metadata[METADATA]))
