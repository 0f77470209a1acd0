"""Networks of KerasHub: by the name of a preset, or from a preset folder.

Settings of the usual networks stand in this package, so that they build without a connection. For
other names, and for weights, KerasHub fetches the files of a preset and keeps them.
"""

import importlib.util
import inspect
import pathlib
from typing import NamedTuple

import keras

from mm_keras.backbones import presets
from mm_keras.backbones.names import closest
from mm_keras.backbones.spec import Pixels

INSTALL = "pip install 'mm-keras[hub]'"
IMAGE_CONVERTER, WEIGHTS = "image_converter.json", presets.KERAS_WEIGHTS

IDENTITY = (
    "num_layers",
    "hidden_dim",
    "num_heads",
    "num_register_tokens",
    "patch_size",
    "stackwise_num_blocks",
    "stackwise_num_repeats",
    "layerwise_depths",
    "hidden_dims",
)
"""Settings by which a folder is compared with the network that its caller names."""

OF_HUGGING_FACE = {
    "num_hidden_layers": "num_layers",
    "hidden_size": "hidden_dim",
    "num_attention_heads": "num_heads",
    "depths": "layerwise_depths",
    "hidden_sizes": "hidden_dims",
}
"""{setting of a folder of Hugging Face: the same in `IDENTITY`}, where the names differ."""


class Request(NamedTuple):
    """A network of KerasHub to build.

    Attributes:
        name: a preset's name or a preset folder.
        weights: None for random weights, "pretrained" for the published ones.
        folder: preset folder with the network called `name`; None to use the settings of this
            package, or to fetch the preset.
        load: whether to load pretrained weights; else they are random, in the same network.
    """

    name: str
    weights: str | None = None
    folder: str | None = None
    load: bool = True

    @property
    def source(self) -> str | None:
        """The preset folder, if there is one."""
        return self.name if self.folder is None and presets.is_folder(self.name) else self.folder


class KerasHub:
    """Networks of KerasHub.

    Args:
        settings: {preset's name: (class, its arguments)} of the networks that build offline.
        pixels: the pixels of networks with random weights whose class has no own ones.
    """

    weights = (None, "pretrained")

    def __init__(self, settings: dict[str, tuple[str, dict]], pixels: Pixels):
        self.settings, self.pixels = settings, pixels

    def check(self, name: str, folder: str | None = None):
        """Raise a ValueError if there is no such network. Known names import nothing."""
        if importlib.util.find_spec("keras_hub") is None:
            raise ValueError(f"KerasHub is not installed: {INSTALL}.")
        request = Request(name, folder=folder)
        if request.source is not None:
            self._check_same(name, presets.read(request.source))
        elif name not in self.settings:
            known = {*self.settings, *published()}
            if name not in known:
                raise ValueError(
                    f"Unknown network {name!r} of KerasHub; known without a network connection: "
                    f"{', '.join(self.settings)}. Or give a preset folder."
                    f"{closest(name, sorted(known))}"
                )

    def build(self, request: Request) -> tuple[keras.Model, Pixels]:
        """Return the network and its pixels.

        Raises:
            ValueError: see `check` and `presets.build`. Also if files cannot be fetched, or the
                pixels of pretrained weights are unknown.
        """
        is_pretrained = request.weights == "pretrained"
        if request.source is None and not is_pretrained and request.name in self.settings:
            return self._random(request.name)
        load = is_pretrained and request.load
        folder = request.source or fetched(request.name, load)
        preset = presets.read(folder)
        if request.source is not None:
            self._check_same(request.name, preset)
        pixels = preset.pixels or presets.DEFAULT_PIXELS.get(preset.class_name)
        if pixels is None and is_pretrained:
            raise ValueError(
                f"{folder}: the pixels that its weights expect are unknown. Expected "
                f"{IMAGE_CONVERTER}."
            )
        return presets.build(preset, load), pixels or self.pixels

    def _random(self, name):
        import keras_hub

        class_name, arguments = self.settings[name]
        arguments = presets.arguments_of(class_name, arguments)
        network = getattr(keras_hub.models, class_name)(**arguments)
        return network, presets.DEFAULT_PIXELS.get(class_name, self.pixels)

    def _check_same(self, name, preset):
        """Raise an error if a folder holds another network than the known preset `name`."""
        if name not in self.settings:
            return
        class_name, arguments = self.settings[name]
        if preset.class_name != class_name:
            raise ValueError(
                f"{preset.folder}: is the preset of {preset.class_name}. {name} is of {class_name}."
            )
        expected = presets.as_json({k: v for k, v in arguments.items() if k in IDENTITY})
        received = _identity(preset)
        other = [k for k in expected if received.get(k, expected[k]) != expected[k]]
        if other:
            raise ValueError(
                f"{preset.folder}: is another network than {name}: {other[0]} is "
                f"{received[other[0]]}. Expected {expected[other[0]]}."
            )


def _identity(preset) -> dict:
    """Return the settings of a folder in KerasHub's names."""
    if preset.is_keras:
        return preset.arguments
    named = {OF_HUGGING_FACE.get(key, key): value for key, value in preset.arguments.items()}
    return {"num_register_tokens": 0} | named  # Hugging Face's DINOv2 has no such setting


def published() -> list[str]:
    """Return the names of all presets of KerasHub whose class may be built. Imports KerasHub."""
    return list(_presets())


def _presets() -> dict[str, str]:
    try:
        import keras_hub
    except ImportError as error:
        raise ValueError(f"KerasHub cannot be imported ({error}): {INSTALL}.") from error
    kinds = [getattr(keras_hub.models, name, None) for name in presets.CLASSES]
    return {name: kind for kind in kinds if inspect.isclass(kind) for name in kind.presets}


def fetched(name: str, with_weights: bool) -> pathlib.Path:
    """Return the folder with the files of a published preset; missing ones are fetched.

    Args:
        name: the name of the preset.
        with_weights: whether to fetch the weights.

    Raises:
        ValueError: if the files cannot be fetched, or need a license to be accepted first.
    """
    from keras_hub.src.utils import preset_utils  # the public functions fetch and build at once

    try:
        config = pathlib.Path(preset_utils.get_file(name, presets.CONFIG))
        preset_utils.check_file_exists(name, IMAGE_CONVERTER)
        if with_weights:
            preset_utils.get_file(name, WEIGHTS)
    except Exception as error:  # requests, kagglehub and Keras have no common narrower class
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ValueError(
            f"KerasHub fetches the preset {name} from a hub, which failed ({type(error).__name__}: "
            f"{reason}). Accept its license there if it has one, or fetch its folder on another "
            "machine and give the folder."
        ) from None
    return config.parent
