"""Networks of other libraries, by name: `applications/NAME`, `kerascv/NAME` and `kerashub/NAME`.

* applications: every function of keras.applications except NASNet, whose padding is fixed to one
  size of image.
* kerascv: the class names of KerasCV's sized backbones. These classes fetch their settings from a
  hub. ResNet, DenseNet and VGG-16 need no hub: their settings stand below, and they are built from
  the generic classes, offline.
* kerashub (extra `hub`): the preset names of KerasHub's image backbones, or a preset folder, see
  `hub`. ResNet, DenseNet, VGG, DINOv2, DINOv3 and MiT are built offline in the same way.

Another library is imported when one of its networks is built.
"""

import importlib
import importlib.util
import inspect
import os
import pathlib
import re
import warnings

import keras
import numpy as np

from mm_keras.backbones.hub import KerasHub, Request
from mm_keras.backbones.names import closest
from mm_keras.backbones.presets import SYMMETRIC
from mm_keras.backbones.spec import Pixels

# The middle of the range stands outside of an image for networks that scale pixels by themselves.
RAW = Pixels("rgb", 1.0, 0.0, (127, 127, 127))


def is_wrapped(name: str) -> bool:
    """Return whether a backbone's name belongs to another library: PREFIX/NAME."""
    return "/" in name


def check(name: str, weights: str | None = None, folder: str | None = None):
    """Raise an error for a network that cannot be built. Known names import no other library.

    Args:
        name: "applications/ResNet50" and the like.
        weights: as for `network`.
        folder: as for `network`.

    Raises:
        ValueError: if the library or network is unknown (the message lists the closest known ones),
            the library is not installed, or it does not have the weights. A preset folder that
            cannot be read, or holds another network.
    """
    prefix, _, own_name = name.partition("/")
    if prefix not in LIBRARIES:
        raise ValueError(
            f"Unknown library {prefix!r} in backbone {name!r}; known: {', '.join(LIBRARIES)}."
        )
    library = LIBRARIES[prefix]
    if folder is None:
        library.check(own_name)
    elif isinstance(library, KerasHub):
        library.check(own_name, folder)
    else:
        raise ValueError(f"A preset folder applies to kerashub/NAME only. Received {name!r}.")
    if weights not in library.weights:
        raise ValueError(
            f"weights must be {' or '.join(map(repr, library.weights))} for {name}. Received "
            f"{weights!r}. Pretrained weights come with applications/NAME and kerashub/NAME."
        )


def network(
    name: str, weights: str | None = None, folder: str | None = None, load: bool = True
) -> tuple[keras.Model, Pixels]:
    """Build a functional model from prepared images to its feature maps.

    Args:
        name: see `check`.
        weights: None for random weights, "pretrained" for the weights that the library publishes;
            "imagenet" is the same for applications/NAME.
        folder: preset folder of kerashub/NAME.
        load: whether to load these weights; else they are random, in the same network.

    Returns:
        The model, without classifier and global pooling, and the pixels that it expects.

    Raises:
        ValueError: see `check`. Also if a download fails; the message names file and place. Also
            weights that are damaged or of another network.
    """
    check(name, weights, folder)
    prefix, _, own_name = name.partition("/")
    library = LIBRARIES[prefix]
    if isinstance(library, KerasHub):
        return library.build(Request(own_name, weights, folder, load))
    return library.build(own_name, weights if load else None)


class Applications:
    """Networks of keras.applications, with ImageNet weights."""

    weights = (None, "imagenet", "pretrained")

    def names(self) -> list[str]:
        functions = inspect.getmembers(keras.applications, inspect.isfunction)
        return [name for name, _ in functions if not name.startswith("NASNet")]

    def check(self, name):
        if name.startswith("NASNet"):
            raise ValueError(
                f"applications/{name} pads its maps for images of one fixed size; a backbone takes "
                "any size. Choose another network."
            )
        if name not in self.names():
            known = ", ".join(self.names())
            hint = closest(name, self.names())
            raise ValueError(
                f"Unknown network {name!r} of keras.applications; known: {known}.{hint}"
            )

    def build(self, name, weights):
        function = getattr(keras.applications, name)
        with warnings.catch_warnings():
            # MobileNets warn that weights of 224 x 224 are taken for images of any size.
            warnings.simplefilter("ignore", UserWarning)
            try:
                model = function(
                    include_top=False,
                    weights=weights and "imagenet",
                    input_shape=(None, None, 3),
                )
            except Exception as error:  # get_file raises no narrower class
                if failure := _download_failure(f"applications/{name}", str(error)):
                    raise ValueError(failure) from None
                raise
        # Each family is a module with its own preprocess_input.
        return model, pixels_of(inspect.getmodule(function).preprocess_input)


def _download_failure(name, message):
    """Return the file to fetch and its place if `message` reports a failed download, else None."""
    found = re.search(r"URL fetch failure on (\S+): (.*)", message)  # text of keras.utils.get_file
    if found is None:
        return None
    url, reason = found.groups()
    # The local name equals the source's, except for NASNet.
    path = _keras_home() / "models" / url.rpartition("/")[2]
    return (
        f"ImageNet weights for {name} could not be downloaded ({reason}). Fetch {url} on another "
        f"machine and put it at {path}."
    )


def _keras_home() -> pathlib.Path:
    """Return the folder of `keras.utils.get_file`: KERAS_HOME or its documented default."""
    return pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()


def pixels_of(preprocess) -> Pixels:
    """Return order, scale and mean of a `preprocess_input` function, measured by calls.

    It is affine in each channel (caffe, tf, torch and identity modes): black gives the means, one
    color per channel the scales and the order.

    Args:
        preprocess: function from float RGB 0..255 [B, H, W, 3] to the pixels that weights expect.

    Returns:
        `Pixels`. pad_color is the color that becomes zero, truncated to whole numbers: the mean, or
        (127, 127, 127) for -1..1. It is also the latter if the function changes nothing, since such
        networks scale pixels themselves.

    Raises:
        ValueError: if the function mixes channels or is not affine in them.
    """
    probes = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3), [[10.0, 200.0, 77.0]]])
    black, *primaries, color = np.array(preprocess(probes[:, None, None].copy()))[:, 0, 0]
    gains = (np.array(primaries) - black) / 255  # [input channel, output channel]
    order, flip = ("rgb", 1) if gains[0, 0] else ("bgr", -1)
    scale = gains[::flip].diagonal()
    expected = np.vstack([255 * np.diag(scale)[::flip], scale * probes[-1, ::flip]]) + black
    if not np.all(scale) or not np.allclose([*primaries, color], expected):
        raise ValueError(f"{preprocess} is not a scale and a shift of each channel.")
    zero = (-black / scale)[::flip] if np.any(black) else RAW.pad_color
    pad_color = tuple(int(value) for value in np.clip(zero, 0, 255))
    return Pixels(order, _floats(scale), _floats(0.0 - black), pad_color)


def _floats(values):
    return tuple(float(value) for value in values)


class Package:
    """KerasCV: networks with settings in this module, and networks of a hub.

    Args:
        title: name of the library for messages.
        module: module to import.
        install: command that installs it.
        pixels: the pixels that the networks expect, including their own rescaling.
        settings: {name: (generic class, its arguments)} of the networks that build offline.
        hub_names: function(module) -> all names of the hub.
        from_hub: function(module, name) -> model without weights.
    """

    weights = (None,)

    def __init__(self, title, module, install, pixels, settings, hub_names, from_hub):
        self.title, self.module, self.install = title, module, install
        self.pixels, self.settings = pixels, settings
        self.hub_names, self.from_hub = hub_names, from_hub

    def check(self, name):
        if importlib.util.find_spec(self.module) is None:
            raise ValueError(f"{self.title} is not installed: {self.install}.")
        if name not in self.settings:
            known = {*self.settings, *self.hub_names(self._imported())}
            if name not in known:
                raise ValueError(
                    f"Unknown network {name!r} of {self.title}; known without a network "
                    f"connection: {', '.join(self.settings)}.{closest(name, sorted(known))}"
                )

    def build(self, name, weights):
        del weights  # `check` rejects them
        module = self._imported()
        if name not in self.settings:
            return self._from_hub(module, name), self.pixels
        generic, arguments = self.settings[name]
        return getattr(module.models, generic)(**arguments), self.pixels

    def _imported(self):
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            raise ValueError(
                f"{self.title} cannot be imported ({error}): {self.install}."
            ) from error

    def _from_hub(self, module, name):
        try:
            return self.from_hub(module, name)
        except Exception as error:  # requests, kagglehub and Keras have no common narrower class
            raise ValueError(
                f"{self.title} fetches the settings of {name} from a hub, which failed "
                f"({type(error).__name__}: {error}). These need no network: "
                f"{', '.join(self.settings)}."
            ) from None


# He et al. 2016, table 1; Huang et al. 2017, table 1; Simonyan and Zisserman 2015, table 1. A test
# compares the numbers of weights with the numbers that the two libraries publish.
RESNET_BLOCKS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}
RESNET_BLOCKS |= {152: [3, 8, 36, 3]}
DENSENET_BLOCKS = {121: [6, 12, 24, 16], 169: [6, 12, 32, 32], 201: [6, 12, 48, 32]}
VGG_BLOCKS = {11: [1, 1, 2, 2, 2], 13: [2, 2, 2, 2, 2], 16: [2, 2, 3, 3, 3], 19: [2, 2, 4, 4, 4]}


def _kerascv_settings():
    settings = {}
    for depth, blocks in RESNET_BLOCKS.items():
        arguments = {
            "stackwise_filters": [64, 128, 256, 512],
            "stackwise_blocks": blocks,
            "stackwise_strides": [1, 2, 2, 2],
            "block_type": "basic_block" if depth < 50 else "block",
            "include_rescaling": True,
        }
        settings[f"ResNet{depth}Backbone"] = ("ResNetBackbone", arguments)
        settings[f"ResNet{depth}V2Backbone"] = ("ResNetV2Backbone", arguments)
    for depth, blocks in DENSENET_BLOCKS.items():
        arguments = {"stackwise_num_repeats": blocks, "include_rescaling": True}
        settings[f"DenseNet{depth}Backbone"] = ("DenseNetBackbone", arguments)
    arguments = {
        "include_rescaling": True,
        "include_top": False,
        "input_shape": (None, None, 3),
    }
    return settings | {"VGG16Backbone": ("VGG16Backbone", arguments)}


def _kerashub_settings():
    settings = {}
    # KerasHub has no preset of ResNet-34, and of the second version only these.
    for family, depths in (("resnet", (18, 50, 101, 152)), ("resnet_v2", (50, 101))):
        for depth in depths:
            arguments = {
                "input_conv_filters": [64],
                "input_conv_kernel_sizes": [7],
                "stackwise_num_filters": [64, 128, 256, 512],
                "stackwise_num_blocks": RESNET_BLOCKS[depth],
                "stackwise_num_strides": [1, 2, 2, 2],
                "block_type": "basic_block" if depth < 50 else "bottleneck_block",
                "use_pre_activation": family == "resnet_v2",
            }
            settings[f"{family}_{depth}_imagenet"] = ("ResNetBackbone", arguments)
    for depth, blocks in DENSENET_BLOCKS.items():
        settings[f"densenet_{depth}_imagenet"] = (
            "DenseNetBackbone",
            {"stackwise_num_repeats": blocks},
        )
    for depth, blocks in VGG_BLOCKS.items():
        arguments = {
            "stackwise_num_repeats": blocks,
            "stackwise_num_filters": [64, 128, 256, 512, 512],
        }
        settings[f"vgg_{depth}_imagenet"] = ("VGGBackbone", arguments)
    return settings | _dinov2_settings() | _dinov3_settings() | _mit_settings()


# The sizes of DINOv2 (Oquab et al. 2023) and DINOv3 (Simeoni et al. 2025). A test compares the
# numbers of weights with the published numbers.
_SIZES = {
    "small": {"num_layers": 12, "hidden_dim": 384, "num_heads": 6, "intermediate_dim": 1536},
    "base": {"num_layers": 12, "hidden_dim": 768, "num_heads": 12, "intermediate_dim": 3072},
    "large": {"num_layers": 24, "hidden_dim": 1024, "num_heads": 16, "intermediate_dim": 4096},
}
_GIANT = {"num_layers": 40, "hidden_dim": 1536, "num_heads": 24, "intermediate_dim": 6144}


def _dinov2_settings():
    settings = {}
    for size, arguments in (_SIZES | {"giant": _GIANT | {"use_swiglu_ffn": True}}).items():
        arguments = {"patch_size": 14, "position_embedding_shape": (518, 518, 3)} | arguments
        settings[f"dinov2_{size}"] = ("DINOV2Backbone", arguments | {"num_register_tokens": 0})
        registers = {"num_register_tokens": 4, "antialias_in_interpolation": True}
        settings[f"dinov2_with_registers_{size}"] = ("DINOV2Backbone", arguments | registers)
    return settings


def _dinov3_settings():
    common = {"patch_size": 16, "num_register_tokens": 4, "use_key_bias": False}
    gated = {"use_gated_mlp": True, "hidden_activation": "silu"}
    sizes = _SIZES | {"small_plus": _SIZES["small"] | gated}
    return {
        f"dinov3_vit_{size}_lvd1689m": ("DINOV3Backbone", common | arguments)
        for size, arguments in sizes.items()
    }


# Xie et al. 2021, table 6: MiT-B0 to B5. The presets of a size differ in their training data.
_MIT_DEPTHS = (
    (2, 2, 2, 2),
    (2, 2, 2, 2),
    (3, 4, 6, 3),
    (3, 4, 18, 3),
    (3, 8, 27, 3),
    (3, 6, 40, 3),
)


def _mit_settings():
    settings = {}
    for k, depths in enumerate(_MIT_DEPTHS):
        arguments = {
            "num_layers": 4,
            "layerwise_depths": list(depths),
            "hidden_dims": [64, 128, 320, 512] if k else [32, 64, 160, 256],
            "layerwise_num_heads": [1, 2, 5, 8],
            "layerwise_sr_ratios": [8, 4, 2, 1],
            "layerwise_patch_sizes": [7, 3, 3, 3],
            "layerwise_strides": [4, 2, 2, 2],
        }
        for data in ("ade20k_640" if k == 5 else "ade20k_512", "cityscapes_1024"):
            settings[f"mit_b{k}_{data}"] = ("MiTBackbone", arguments)
    return settings


def _backbone_classes(module):
    base = module.models.Backbone
    members = inspect.getmembers(module.models, inspect.isclass)
    return {name: kind for name, kind in members if issubclass(kind, base)}


def _kerascv_names(module):
    # The sized classes construct their generic class in __new__, with settings from the hub.
    return [name for name, kind in _backbone_classes(module).items() if "__new__" in vars(kind)]


LIBRARIES = {
    "applications": Applications(),
    "kerascv": Package(
        "KerasCV",
        "keras_cv",
        "pip install keras-cv",
        RAW,
        _kerascv_settings(),
        _kerascv_names,
        lambda module, name: getattr(module.models, name)(),
    ),
    "kerashub": KerasHub(_kerashub_settings(), SYMMETRIC),
}
"""{prefix of a name: the library of its networks}."""
