"""Stage export: write the evaluated predictor as SavedModel, ONNX or LiteRT, in folder export."""

import dataclasses
import functools
import importlib.util
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from mm_keras import inference
from mm_keras.inference import ClassTable, litert_export, onnx_export
from mm_keras.inference.export import PixelWindow
from pipelines import datasets
from trainers import config
from trainers.runs.files import replacing, write_json
from trainers.runs.runtime import Runtime
from trainers.training import networks

_NUM_CHECKED = 4  # images that another runtime predicts for comparison
_NUM_REPRESENTATIVE = 32  # training images that give the ranges of int8 activations; ours
_MIN_AGREEMENT = 0.999  # of class ids: rounding differs between the runtimes
_PACKAGES = {"onnx": ("onnxruntime", "tf2onnx")}
"""{format: packages of the extra of this name}."""


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Export the predictor, and write class names, colors and mask values beside the model.

    Returns:
        "onnx_agreement", "litert_agreement" and "litert_int8_agreement" for these formats: the
        share of class ids on some evaluation images that are equal to the predictor's.

    Raises:
        config.UserError: a format cannot be written, or a float model gives other classes.
    """
    _check(experiment)
    classes = class_table(runtime.dataset.spec)
    parts = _Parts(networks.predictor(experiment, runtime), classes, experiment, runtime)
    results = {}
    for name in experiment.export.format:
        results |= _WRITERS[name](parts)
    write_json(runtime.folder("export") / "classes.json", classes.as_json())
    return results


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The parts of a model that all formats share."""

    predictor: inference.Predictor
    classes: ClassTable
    experiment: config.Experiment
    runtime: Runtime

    @property
    def folder(self) -> pathlib.Path:
        return self.runtime.folder("export")

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the input of formats that have one size."""
        return self.experiment.export.size or next(_images(self.runtime)).shape[1:3]


def _saved_model(parts) -> dict:
    window = parts.classes.window and PixelWindow(**parts.classes.window)
    with replacing(parts.folder / "saved_model") as temporary:
        parts.predictor.export(temporary, window, parts.classes)
    return {}


def _onnx(parts) -> dict:
    with replacing(parts.folder / "model.onnx") as temporary:
        onnx_export.save(parts.predictor, temporary, parts.classes)
        share = _agreement(parts.predictor, _onnx_runtime(temporary), _images(parts.runtime))
        _check_agreement("ONNX", share)
    return {"onnx_agreement": share}


def _litert(parts) -> dict:
    with replacing(parts.folder / "model.tflite") as temporary:
        share = _litert_agreement(parts, temporary, None)
        _check_agreement("LiteRT", share)
    return {"litert_agreement": share}


def _litert_int8(parts) -> dict:
    representative = list(_representative(parts))
    with replacing(parts.folder / "model_int8.tflite") as temporary:
        share = _litert_agreement(parts, temporary, representative)
    text = "none has the size of the model" if share is None else f"{share:.2%} equal class ids"
    parts.runtime.log(f"export: int8 model, ranges from {len(representative)} images; {text}")
    return {"litert_int8_agreement": share}


_WRITERS = {
    "saved_model": _saved_model,
    "onnx": _onnx,
    "litert": _litert,
    "litert_int8": _litert_int8,
}
"""{format: function that writes it and returns its results}."""


def _litert_agreement(parts, path, representative) -> float | None:
    """Write a LiteRT model and return its agreement with the predictor."""
    try:
        litert_export.save(parts.predictor, path, parts.size, parts.classes, representative)
    except litert_export.ConversionError as error:
        raise config.UserError(f"{error}. Export another format (export.format).") from error
    images = (image for image in _images(parts.runtime) if image.shape[1:3] == parts.size)
    return _agreement(parts.predictor, litert_export.interpreter(path), images)


def _representative(parts) -> Iterator[np.ndarray]:
    """Yield training images in the size of the model, uint8 [1, H, W, 3], evenly spread."""
    split = parts.runtime.dataset.train.labelled()
    chosen = datasets.spread(min(_NUM_REPRESENTATIVE, split.num_images), split.num_images)
    for example in datasets.examples(split.take(chosen)):
        image = Image.fromarray(example["image"].numpy())
        yield np.asarray(image.resize(parts.size[::-1], Image.Resampling.BILINEAR))[None]


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
    predictor: inference.Predictor, other: Callable, images: Iterator[np.ndarray]
) -> float | None:
    """Return the share of pixels whose class is the same; None without images."""
    num_equal = num_pixels = 0
    for image in images:
        expected = predictor.predict(image).class_ids.numpy()
        num_equal += int(np.sum(other(image) == expected))
        num_pixels += expected.size
    return num_equal / num_pixels if num_pixels else None


def _check_agreement(name: str, share: float | None):
    """Raise UserError if a float model gives other classes at more than 0.1 % of the pixels."""
    if share is not None and share < _MIN_AGREEMENT:
        raise config.UserError(
            f"The {name} model gives other classes than the predictor at {1 - share:.2%} of the "
            "pixels, so it was not written. Export another format."
        )


def _onnx_runtime(path: pathlib.Path) -> Callable:
    """Return a function from images to class ids, computed by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["class_ids"], {"images": images})[0]
