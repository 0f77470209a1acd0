"""Stage export: write the evaluated predictor as SavedModel, ONNX or LiteRT, in folder export."""

import dataclasses
import importlib.util
import pathlib
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from mm_keras import inference
from mm_keras.inference import ClassTable, litert_export, onnx_export
from mm_keras.inference.export import PixelWindow
from pipelines import datasets
from trainers import config
from trainers.runs.files import replacing, write_json
from trainers.runs.runtime import Runtime
from trainers.training import networks

_NUM_CHECKED = 4  # images that another runtime predicts for comparison
_MIN_AGREEMENT = 0.999  # of class ids: rounding differs between the runtimes
_PACKAGES = {"onnx": ("onnxruntime", "tf2onnx")}
"""{format: packages of the extra of this name}."""


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Export the predictor, and write class names, colors and mask values beside the model.

    Returns:
        "onnx_agreement" and "litert_agreement" for these formats: the share of class ids on some
        evaluation images that are equal to the predictor's.
    """
    settings = experiment.export
    _check(experiment)
    classes = class_table(runtime.dataset.spec)
    predictor = networks.predictor(experiment, runtime)
    folder = runtime.folder("export")
    results = {}
    if "saved_model" in settings.format:
        with replacing(folder / "saved_model") as temporary:
            window = classes.window and PixelWindow(**classes.window)
            predictor.export(temporary, window, classes)
    if "onnx" in settings.format:
        with replacing(folder / "model.onnx") as temporary:
            onnx_export.save(predictor, temporary, classes)
            images = _images(runtime)
            results["onnx_agreement"] = _agreement(predictor, _onnx(temporary), images, "ONNX")
    if "litert" in settings.format:
        size = settings.size or next(_images(runtime)).shape[1:3]
        with replacing(folder / "model.tflite") as temporary:
            litert_export.save(predictor, temporary, size, classes)
            images = (image for image in _images(runtime) if image.shape[1:3] == size)
            results["litert_agreement"] = _agreement(
                predictor, _litert(temporary), images, "LiteRT"
            )
    write_json(folder / "classes.json", classes.as_json())
    return results


def class_table(spec: datasets.DatasetSpec) -> ClassTable:
    """Return the meaning of the class ids of a data set."""
    window = spec.window and dataclasses.asdict(spec.window)
    return ClassTable(
        spec.class_names, spec.colors, spec.mask_values, spec.background_label, window
    )


def _check(experiment):
    """Raise an error for formats that cannot be written, before a network is loaded."""
    others = [name for name in experiment.export.format if name != "saved_model"]
    if others and experiment.evaluate.window is not None:
        raise config.ConfigError(
            f"export.format={','.join(others)} has no windows. Set evaluate.window=none, or export "
            "saved_model."
        )
    for name in others:
        for package in _PACKAGES.get(name, ()):
            if importlib.util.find_spec(package) is None:
                raise config.ConfigError(
                    f'export.format={name} needs {package}: pip install -e ".[{name}]".'
                )


def _images(runtime) -> Iterator[np.ndarray]:
    """Yield some evaluation images, uint8 [1, H, W, 3], evenly spread."""
    split = runtime.dataset.eval
    chosen = datasets.spread(min(_NUM_CHECKED, split.num_images), split.num_images)
    for example in datasets.examples(split.take(chosen)):
        yield example["image"].numpy()[None]


def _agreement(
    predictor: inference.Predictor, other: Callable, images: Iterator[np.ndarray], name: str
) -> float | None:
    """Return the share of pixels whose class is the same; None without images.

    Raises:
        UserError: it is below 99.9 %.
    """
    num_equal = num_pixels = 0
    for image in images:
        expected = predictor.predict(image).class_ids.numpy()
        num_equal += int(np.sum(other(image) == expected))
        num_pixels += expected.size
    if num_equal < _MIN_AGREEMENT * num_pixels:
        raise config.UserError(
            f"The {name} model gives other classes than the predictor at "
            f"{num_pixels - num_equal:,} of {num_pixels:,} pixels, so it was not written. Export "
            "another format."
        )
    return num_equal / num_pixels if num_pixels else None


def _onnx(path: pathlib.Path) -> Callable:
    """Return a function from images to class ids, computed by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["class_ids"], {"images": images})[0]


def _litert(path: pathlib.Path) -> Callable:
    """Return a function from images to class ids, computed by TensorFlow's LiteRT interpreter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its successor is a package of its own, ai-edge-litert
        interpreter = tf.lite.Interpreter(model_content=path.read_bytes())
    interpreter.allocate_tensors()
    outputs = interpreter.get_output_details()
    place = next(output["index"] for output in outputs if output["dtype"] == np.int32)

    def class_ids(images):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(place)

    return class_ids
