"""Preset folders: the settings, pixels and weights of a network on disk.

| folder of | settings | pixels | weights |
|---|---|---|---|
| KerasHub, `save_to_preset` | config.json | image_converter.json | model.weights.h5 |
| Hugging Face, `save_pretrained` | config.json | preprocessor_config.json | model.safetensors |

A folder may come from anywhere. Its class must be in `CLASSES` before anything is built, settings
are plain numbers, words and lists with limits, and no object of the file is deserialized. Weights
are read by Keras' HDF5 reader and by safetensors, never by pickle.
"""

import contextlib
import dataclasses
import inspect
import json
import math
import os
import pathlib

import keras

from mm_keras.backbones import segformer_files
from mm_keras.backbones.spec import PIXELS, Pixels

TRANSFORMERS = ("DINOV2Backbone", "DINOV3Backbone", "ViTBackbone", "MiTBackbone")
SEGFORMER = "SegFormerBackbone"
"""A MiTBackbone with the decoder of SegFormer. A backbone is made of the MiTBackbone alone."""

CLASSES = (
    *TRANSFORMERS,
    SEGFORMER,
    "CSPNetBackbone",
    "DenseNetBackbone",
    "EfficientNetBackbone",
    "HGNetV2Backbone",
    "MobileNetBackbone",
    "ResNetBackbone",
    "VGGBackbone",
    "XceptionBackbone",
)
"""Classes of KerasHub that may be built: image networks that `wrapped`, `transformers` or
`mix_transformers` takes."""

MODEL_TYPES = {
    "dinov2": "DINOV2Backbone",
    "dinov2_with_registers": "DINOV2Backbone",
    "dinov3_vit": "DINOV3Backbone",
    "vit": "ViTBackbone",
    "segformer": "MiTBackbone",
}
"""{model_type of a folder of Hugging Face: class of KerasHub}."""

SYMMETRIC = Pixels("rgb", 1 / 127.5, 1.0, (127, 127, 127))
DEFAULT_PIXELS = {
    "DINOV2Backbone": PIXELS["torch"],  # facebookresearch/dinov2, data/transforms.py
    "DINOV3Backbone": PIXELS["torch"],  # facebookresearch/dinov3, README, LVD-1689M
    "ViTBackbone": SYMMETRIC,  # google-research/vision_transformer, input_pipeline.py: -1..1
    "MiTBackbone": PIXELS["torch"],  # NVlabs/SegFormer, img_norm_cfg of its configurations
}
"""{class: the pixels of its published weights} for folders without a file about pixels."""

CONFIG = "config.json"
CONVERTERS = ("image_converter.json", "preprocessor_config.json")
KERAS_WEIGHTS = "model.weights.h5"
OTHER_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")

MAX_BYTES = 1 << 20
MAX_NUMBER = 16384
"""Limits of a file of settings, and of each number in it (ours)."""

# `name` would become a prefix of all variables. The run decides about precision. Rates of dropout
# are 0 in all published presets, and the drop path of KerasHub 0.32 drops nothing.
_IGNORED = ("name", "trainable", "dtype", "data_format", "dropout_rate", "attention_dropout")
_IGNORED += ("drop_path_rate", "apply_layernorm", "pooling")


@dataclasses.dataclass(frozen=True)
class Preset:
    """The settings of a network in a folder.

    Attributes:
        folder: the folder.
        class_name: one of `CLASSES`.
        is_keras: whether KerasHub wrote it; else Hugging Face did.
        arguments: arguments of the class, or the settings in Hugging Face's names.
        pixels: the pixels that the weights expect; None if the folder does not state them.
        decoder: channels of the decoder of SegFormer, if its weights lie in the same file.
    """

    folder: pathlib.Path
    class_name: str
    is_keras: bool
    arguments: dict
    pixels: Pixels | None
    decoder: int | None = None


def is_folder(name: str) -> bool:
    """Return whether the name of a network is a path, and no preset's name."""
    return "/" in name or os.sep in name or name in (".", "..") or pathlib.Path(name).is_dir()


def read(folder: str | os.PathLike) -> Preset:
    """Read the settings of a preset folder, without building anything.

    Args:
        folder: path of the folder.

    Raises:
        ValueError: if there is no folder, a file is damaged or too large, or the class is not in
            `CLASSES`. The message names the file.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: there is no such folder. Expected a preset folder with {CONFIG}."
        )
    path, config = folder / CONFIG, _json(folder / CONFIG)
    class_name, is_keras = _class_of(path, config)
    settings = config.get("config") if is_keras else config
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: 'config' must be an object. Received {settings!r:.80}.")
    decoder = None
    if class_name == SEGFORMER:
        settings, decoder = _of_segformer(path, settings)
        class_name = "MiTBackbone"
    ignored = _IGNORED if is_keras else ()
    arguments = {
        key: value
        for key, value in settings.items()
        if key not in ignored and (is_keras or _is_plain(value))
    }
    for key, value in arguments.items():
        _check_value(path, key, value)
    return Preset(folder, class_name, is_keras, arguments, _pixels(folder), decoder)


def _of_segformer(path, settings) -> tuple[dict, int]:
    """Return the settings of the MiTBackbone in a SegFormerBackbone, and the decoder's channels."""
    encoder, decoder = settings.get("image_encoder"), settings.get("projection_filters")
    name = encoder.get("registered_name") if isinstance(encoder, dict) else encoder
    if name != "keras_hub>MiTBackbone" or not isinstance(encoder.get("config"), dict):
        raise ValueError(f"{path}: image_encoder must be a MiTBackbone. Received {name!r:.80}.")
    if not isinstance(decoder, int) or not 1 <= decoder <= MAX_NUMBER:
        raise ValueError(
            f"{path}: projection_filters must be 1 to {MAX_NUMBER}. Received {decoder!r:.80}."
        )
    return encoder["config"], decoder


def build(preset: Preset, load: bool = True) -> keras.Model:
    """Build the network of a preset.

    Args:
        preset: the result of `read`.
        load: whether to load the weights of the folder; else they are random.

    Raises:
        ValueError: if the settings do not fit the class, or the weights are missing, damaged or of
            another network. The message names the file.
    """
    import keras_hub

    kind = getattr(keras_hub.models, preset.class_name)
    weights = _weights_file(preset) if load else None
    if not preset.is_keras:
        return _of_hugging_face(kind, preset, weights)
    network = _from_settings(kind, preset)
    if weights is not None:
        stored = network
        with _errors_of(weights, preset.class_name):
            if preset.decoder is not None:
                stored = keras_hub.models.SegFormerBackbone(network, preset.decoder)
            stored.load_weights(weights)
        _check_complete(weights, stored)
    return network


def _of_hugging_face(kind, preset, weights) -> keras.Model:
    file = weights or preset.folder / CONFIG
    if preset.class_name != "MiTBackbone":
        with _errors_of(file, preset.class_name):
            return kind.from_preset(os.fspath(preset.folder), load_weights=weights is not None)
    with _errors_of(preset.folder / CONFIG, preset.class_name):  # KerasHub does not read these
        settings = segformer_files.arguments(preset.arguments)
        network = kind(**arguments_of(preset.class_name, settings))
    if weights is not None:
        with _errors_of(weights, preset.class_name):
            segformer_files.load(network, weights)
    return network


def _check_complete(path, network):
    """Raise an error for a file without some layers: Keras leaves them random with a warning."""
    import h5py  # late: `mm_keras` imports without it

    found = []
    with h5py.File(path, "r") as file:
        file.visititems(lambda _, item: found.append(isinstance(item, h5py.Dataset)))
    count = sum(found)
    if count < len(network.weights):
        raise ValueError(
            f"{path}: has {count} arrays. The network of {CONFIG} has {len(network.weights)}."
        )


def arguments_of(class_name: str, settings: dict) -> dict:
    """Return the arguments of a class with the size of image that suits a backbone.

    Convolutions take any size. DINOv2 gets the size of its stored position table, so that KerasHub
    does not resample it. ViT has a table of the size of its images. DINOv3 and MiT have no table.
    """
    settings = dict(settings)
    if class_name == "DINOV2Backbone":
        height, width, *_ = settings.get("position_embedding_shape", (518, 518))
        return settings | {"image_shape": (height, width, 3)}
    if class_name == "DINOV3Backbone":
        return settings | {"image_shape": (settings.get("patch_size", 16),) * 2 + (3,)}
    if class_name == "MiTBackbone":
        # The smallest square on which no map of KerasHub's network has a partial cell.
        side = math.prod(settings["layerwise_strides"]) * max(settings["layerwise_sr_ratios"])
        return settings | {"image_shape": (side, side, 3), "max_drop_path_rate": 0.0}
    if class_name == "ViTBackbone":
        return settings
    return settings | {"image_shape": (None, None, 3)}


def _from_settings(kind, preset) -> keras.Model:
    path = preset.folder / CONFIG
    unknown = sorted(set(preset.arguments) - set(inspect.signature(kind).parameters))
    if unknown:
        raise ValueError(f"{path}: {preset.class_name} has no setting {unknown[0]!r}.")
    with _errors_of(path, preset.class_name):
        return kind(**arguments_of(preset.class_name, preset.arguments))


def as_json(arguments: dict) -> dict:
    """Return arguments as they look after JSON: tuples are lists."""
    return json.loads(json.dumps(arguments))


def _json(path: pathlib.Path) -> dict:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file. A preset folder has it.")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: is larger than {MAX_BYTES} bytes, which no preset is.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is no JSON file: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must be an object. Received {content!r:.80}.")
    return content


def _class_of(path, config) -> tuple[str, bool]:
    """Return the class of KerasHub, and whether KerasHub wrote the file."""
    is_keras = "registered_name" in config
    if is_keras:
        class_name = str(config["registered_name"]).rpartition("keras_hub>")[2]
        known = CLASSES
    else:
        class_name = MODEL_TYPES.get(str(config.get("model_type")))
        known = tuple(MODEL_TYPES)
    if class_name not in CLASSES:
        received = config.get("registered_name" if is_keras else "model_type")
        raise ValueError(
            f"{path}: is the preset of another kind of network: {received!r:.80}. Expected one of "
            f"{', '.join(known)}."
        )
    return class_name, is_keras


def _is_plain(value) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _check_value(path, key, value):
    if not _is_plain(value):
        raise ValueError(
            f"{path}: {key} must be a number, a word or a list of them. Received {value!r:.80}."
        )
    for number in _numbers(value):
        if not abs(number) <= MAX_NUMBER:
            raise ValueError(f"{path}: {key} must be at most {MAX_NUMBER}. Received {number}.")


def _numbers(value):
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _pixels(folder) -> Pixels | None:
    for name, affine in zip(CONVERTERS, (_of_converter, _of_preprocessor), strict=True):
        if (folder / name).is_file():
            content = _json(folder / name)
            try:
                scale, offset = affine(content)
            except (TypeError, KeyError, ValueError, ArithmeticError, AttributeError) as error:
                raise ValueError(f"{folder / name}: has no usable scale and offset.") from error
            return _as_pixels(folder / name, scale, offset)
    return None


def _of_converter(content):
    """Return scale and offset of KerasHub's ImageConverter, with its former arguments too."""
    config = content["config"]
    scale, offset = config.get("scale"), config.get("offset")
    if "mean" in config and "variance" in config:
        deviations = [math.sqrt(variance) for variance in config["variance"]]
        scale = [scale / deviation for deviation in deviations]
        offset = [-m / d for m, d in zip(config["mean"], deviations, strict=True)]
    return _three(1.0 if scale is None else scale), _three(0.0 if offset is None else offset)


def _of_preprocessor(content):
    factor = content.get("rescale_factor", 1 / 255) if content.get("do_rescale", True) else 1.0
    if not content.get("do_normalize", True):
        return _three(factor), _three(0.0)
    deviations = _three(content["image_std"])
    offsets = [-m / d for m, d in zip(_three(content["image_mean"]), deviations, strict=True)]
    return [factor / deviation for deviation in deviations], offsets


def _three(value) -> list[float]:
    values = list(value) if isinstance(value, list) else [value] * 3
    if len(values) != 3:
        raise TypeError(f"Expected one number or three. Received {values}.")
    return [float(number) for number in values]


def _as_pixels(path, scale, offset) -> Pixels:
    if not all(map(math.isfinite, [*scale, *offset])) or 0 in scale:
        raise ValueError(f"{path}: has no usable scale and offset. Received {scale}, {offset}.")
    zeros = [-shift / factor for factor, shift in zip(scale, offset, strict=True)]
    color = tuple(round(min(max(value, 0.0), 255.0)) for value in zeros)
    return Pixels("rgb", tuple(scale), tuple(-shift for shift in offset), color)


def _weights_file(preset) -> pathlib.Path:
    names = (KERAS_WEIGHTS,) if preset.is_keras else OTHER_WEIGHTS
    for name in names:
        if (preset.folder / name).is_file():
            return preset.folder / name
    raise ValueError(f"{preset.folder}: has no weights. Expected {names[0]}.")


@contextlib.contextmanager
def _errors_of(path, class_name):
    """Convert any error of KerasHub, Keras, h5py or safetensors to one that names the file."""
    try:
        yield
    except Exception as error:  # they have no common narrower class
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ValueError(f"{path}: does not fit {class_name}, or is damaged: {reason}") from error
