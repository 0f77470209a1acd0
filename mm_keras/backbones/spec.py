"""The record that describes a backbone. Other code does not distinguish networks."""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Pixels:
    """The pixels that a network's weights expect.

    Attributes:
        color: see `mm_keras.layers.InputAdapter`.
        scale: see `mm_keras.layers.InputAdapter`.
        mean: see `mm_keras.layers.InputAdapter`.
        pad_color: uint8 RGB of the area outside an image. It is the mean color if a mean is
            subtracted, mid-gray for networks that scale pixels themselves, else black. For "bands"
            it has one value for each band.
        of_color: for "bands", the pixels of color images from which `of_bands` made these.
    """

    color: str
    scale: float | tuple[float, ...]
    mean: float | tuple[float, ...]
    pad_color: tuple[int, ...]
    of_color: "Pixels | None" = None

    @property
    def num_bands(self) -> int:
        """The number of bands of the images."""
        return len(self.pad_color)

    def of_bands(self, num_bands: int) -> "Pixels":
        """Return the pixels of images of a number of bands.

        Three bands are red, green and blue, and nothing changes. Otherwise band b has scale, mean
        and pad color of the color b mod 3, and a single band has the mean of the three. The order
        of the bands does not change, and nothing is converted.

        Args:
            num_bands: 1 to `MAX_BANDS`.

        Raises:
            ValueError: if the number is out of range, or the pixels are a conversion of colors.

        Example:
            >>> PIXELS["jigsaw"].of_bands(4).mean
            (123.0, 117.0, 104.0, 123.0)
            >>> PIXELS["gray"].of_bands(2).pad_color
            (0, 0)
        """
        if not 1 <= num_bands <= MAX_BANDS:
            raise ValueError(f"A network takes 1 to {MAX_BANDS} bands. Received {num_bands}.")
        if num_bands == 3:
            return self
        if self.color in ("lab", "lightness"):
            raise ValueError(
                f"Pixels {self.color!r} are computed from red, green and blue. Received "
                f"{num_bands} bands: use 3, or other pixels."
            )
        step = -1 if self.color == "bgr" else 1
        scale, mean = (np.broadcast_to(x, 3)[::step] for x in (self.scale, self.mean))
        values = (_cyclic(x, num_bands) for x in (scale, mean, np.array(self.pad_color)))
        scale, mean, pad_color = (x.tolist() for x in values)
        return Pixels("bands", tuple(scale), tuple(mean), tuple(map(round, pad_color)), self)


MAX_BANDS = 64
"""Largest number of bands of an image. Source: ours; Sentinel-2 has 13."""


def _cyclic(values, num_bands):
    """Return the values of three colors for bands: in turn, or their mean for a single band."""
    return values.mean(keepdims=True) if num_bands == 1 else np.resize(values, num_bands)


# Released train_graph.prototxt files: "colorize" nets take x / 255 - 0.4488 as one gray channel and
# pad with black. "random" nets take BGR minus the ImageNet mean and pad with that mean, cast to
# uint8 as in resources/test_pascal.py. The "jigsaw" net takes BGR minus a rounded mean. "torch" is
# for torchvision's ImageNet weights, which take RGB as (x / 255 - mean) / deviation. "lab" and
# "lightness" are the inputs of Zhang et al. 2016b and 2016a, L - 50. Gray of 119 has L = 50.03.
# "bigan" is the input of the encoder of Donahue et al., (BGR - 127.5) * 0.0078431.
_TORCH_MEAN, _TORCH_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS = {
    "gray": Pixels("gray", 0.00392156862745098, 0.4488, (0, 0, 0)),
    "bgr": Pixels("bgr", 1.0, (104.00699, 116.66877, 122.67892), (122, 116, 104)),
    "jigsaw": Pixels("bgr", 1.0, (104.0, 117.0, 123.0), (123, 117, 104)),
    "torch": Pixels(
        "rgb",
        scale=tuple(1 / (255 * deviation) for deviation in _TORCH_DEVIATION),
        mean=tuple(m / d for m, d in zip(_TORCH_MEAN, _TORCH_DEVIATION, strict=True)),
        pad_color=tuple(round(255 * mean) for mean in _TORCH_MEAN),
    ),
    "lab": Pixels("lab", 1.0, (50.0, 0.0, 0.0), (119, 119, 119)),
    "lightness": Pixels("lightness", 1.0, 50.0, (119, 119, 119)),
    "bigan": Pixels("bgr", 0.0078431, 127.5 * 0.0078431, (128, 128, 128)),
}


@dataclasses.dataclass(frozen=True)
class Tap:
    """A named feature map: cell k lies on image pixel k * stride + offset.

    Attributes:
        name: name of the output.
        stride: image pixels per cell.
        channels: number of channels.
        offset: image pixels from pixel 0 to the middle of the first cell. It is 0 for convolutions,
            and half a patch for transformers.
    """

    name: str
    stride: int
    channels: int
    offset: float = 0.0


@dataclasses.dataclass(frozen=True)
class BackboneSpec:
    """The properties of a backbone that the stages use.

    Attributes:
        name: the key in the registry.
        pixels: the pixels that its weights expect.
        taps: feature maps for the hypercolumn, fine to coarse, then in the order of the network.
        embedding: the output that M&M embeds (VGG-16: pool5) and that a segmenter's own layers
            take.
        width: factor on the published channel counts.
        hypercolumn_units: width of the hidden layer over the hypercolumn.
        context_units: channels of the segmenter's fc6, fc7, conv_add1 and conv_add2, or of its fc6
            and fc7. Empty if the segmenter has no such layers.
        segmenter: the segmenter that the paper uses with it: "hypercolumn"
            (`mm_keras.HypercolumnSegmenter`) or "fcn" (`mm_keras.FcnSegmenter`).
        min_size: smallest side of an image in pixels that the network takes.
        license: license of the published weights if it has terms of its own, else empty.
    """

    name: str
    pixels: Pixels
    taps: tuple[Tap, ...]
    embedding: Tap
    width: float = 1.0
    hypercolumn_units: int = 1024
    context_units: tuple[int, ...] = ()
    segmenter: str = "hypercolumn"
    min_size: int = 1
    license: str = ""

    @property
    def pad_color(self) -> tuple[int, ...]:
        return self.pixels.pad_color

    @property
    def num_bands(self) -> int:
        """The number of bands of the images that the network takes."""
        return self.pixels.num_bands


class Backbone(keras.Model):
    """A functional model from pixels 0..255 [B, H, W, bands] to {name: feature map}.

    Args:
        inputs: keras tensor of the pixels.
        outputs: {name: keras tensor} with the taps and the embedding of the spec.
        spec: the description of the backbone.
        blocks: function () -> groups of trainable variables, from the input on; None for one group
            for each stride of the taps.

    Raises:
        ValueError: if an output that the spec names is missing, or has other channels.
    """

    def __init__(
        self, inputs, outputs, spec: BackboneSpec, blocks: Callable | None = None, **kwargs
    ):
        _check_outputs(outputs, spec)
        # Keras reserves slashes for paths.
        name = spec.name.replace("/", "_")
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        self.spec = spec
        self._find_blocks = blocks or functools.partial(blocks_by_stride, inputs, outputs, spec)

    @property
    def blocks(self) -> list[list[keras.Variable]]:
        """Groups of trainable variables by depth, from the input on, for layer-wise rates."""
        return self._find_blocks()

    def call(self, inputs, training=None, mask=None):
        """Return all outputs for pixels [B, H, W, bands]; three bands are RGB.

        With `trainable` False, dropout and the statistics of norms are off in training as well.

        Raises:
            ValueError: if H or W is known and below `spec.min_size`.
        """
        sides = [side for side in inputs.shape[1:3] if side is not None]
        if sides and min(sides) < self.spec.min_size:
            raise ValueError(
                f"{self.spec.name} takes images of at least {self.spec.min_size} pixels per side. "
                f"Received {tuple(inputs.shape)}."
            )
        return super().call(inputs, training=training if self.trainable else False, mask=mask)


def blocks_by_stride(inputs, outputs: dict, spec: BackboneSpec) -> list[list[keras.Variable]]:
    """Return the trainable variables before the last tap of each stride, fine to coarse.

    Each variable is in the first group whose tap depends on it.

    Args:
        inputs: keras tensor of the network's input.
        outputs: {tap name: keras tensor}.
        spec: names the taps and the embedding.
    """
    last = {tap.stride: outputs[tap.name] for tap in (*spec.taps, spec.embedding)}
    seen, groups = set(), []
    for stride in sorted(last):
        variables = keras.Model(inputs, last[stride]).trainable_variables
        groups.append([variable for variable in variables if id(variable) not in seen])
        seen |= set(map(id, variables))
    return [group for group in groups if group]


def _check_outputs(outputs, spec: BackboneSpec):
    for tap in (*spec.taps, spec.embedding):
        if tap.name not in outputs:
            raise ValueError(
                f"Backbone {spec.name!r} has no output {tap.name!r}: {sorted(outputs)}."
            )
        if outputs[tap.name].shape[-1] != tap.channels:
            raise ValueError(
                f"Output {tap.name!r} of backbone {spec.name!r} has "
                f"{outputs[tap.name].shape[-1]} channels; its spec expects {tap.channels}."
            )


def scaled(channels: int, width: float) -> int:
    """Return `channels` times `width`, rounded, at least 1."""
    return max(1, round(channels * width))
