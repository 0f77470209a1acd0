"""Functional image networks as backbones: their feature maps are found by stride."""

import bisect
import functools
import math

import keras

from mm_keras import layers
from mm_keras.backbones import libraries, mix_transformers, more_bands, transformers
from mm_keras.backbones.spec import Backbone, BackboneSpec, Pixels, Tap, blocks_by_stride

STRIDES = (2, 4, 8, 16, 32)

# Side of the square on which strides are measured. Networks that do not pad lose a few cells at
# each border. On a square of this size, the nearest power of two is still correct.
PROBE_SIZE = 512


def build(
    name: str,
    weights: str | None = None,
    folder: str | None = None,
    load: bool = True,
    num_bands: int = 3,
) -> Backbone:
    """Build a backbone from a network of another library.

    The momentum of its batch norm is at most 0.9, as for VGG-16 here. With the 0.999 of MobileNets,
    60 % of a random network's meaningless start would remain after 500 steps.

    Args:
        name: "applications/ResNet50" and the like, see `mm_keras.backbones.libraries`.
        weights: see `libraries.network`.
        folder: see `libraries.network`.
        load: see `libraries.network`.
        num_bands: number of bands of the images, see `more_bands`.

    Raises:
        ValueError: see `libraries.network`, `wrap` and `more_bands.of_bands`.
    """
    network, pixels = libraries.network(name, weights, folder, load)
    if num_bands != 3:
        network, pixels = more_bands.of_bands(name, network, pixels, num_bands)
    if transformers.is_transformer(network):
        return transformers.wrap(name, network, pixels)
    if mix_transformers.is_mix_transformer(network):
        return mix_transformers.wrap(name, network, pixels)
    _limit_momentum(network)
    return wrap(name, network, pixels)


def _limit_momentum(network):
    for layer in layers.inner_layers(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, 0.9)


def wrap(name: str, network: keras.Model, pixels: Pixels) -> Backbone:
    """Make a backbone of a functional network, with the taps stride2, stride4, ... stride32.

    A tap is the last map of its stride in the network's order of layers, the input of the next
    halving. Strides that the network skips have no tap. The coarsest tap is the embedding. Maps
    with an added border (zero padding) are no taps, and a nested model counts as one layer. The
    network itself is the backbone's layer "network".

    The network rounds a side that is no multiple of the stride up or down. The hypercolumn reads
    cell k at pixel k * stride, as for VGG-16. The cells of other networks lie up to about one
    stride beside it, depending on the network's padding.

    Args:
        name: name of the backbone.
        network: functional model from prepared images [B, H, W, 3] of any size.
        pixels: the pixels that the network expects.

    Raises:
        ValueError: if the network does not take images of any size, or has no feature map.
    """
    maps = {f"stride{stride}": output for stride, output in _last_maps(name, network).items()}
    features = keras.Model(network.inputs[0], maps, name="network")
    images = keras.Input((None, None, pixels.num_bands), name="pixels")
    adapted = layers.InputAdapter(pixels.color, pixels.scale, pixels.mean, name="input_adapter")(
        images
    )
    outputs = features(adapted)
    taps = tuple(
        Tap(f"stride{stride}", stride, outputs[f"stride{stride}"].shape[-1])
        for stride in STRIDES
        if f"stride{stride}" in outputs
    )
    spec = BackboneSpec(name, pixels, taps, taps[-1], min_size=_min_size(features))
    blocks = functools.partial(blocks_by_stride, network.inputs[0], maps, spec)
    return Backbone(images, outputs, spec, blocks=blocks)


def _last_maps(name, network):
    """Return {stride: keras tensor}, the last map of each stride of `STRIDES` in the network."""
    outputs = [
        layer.output
        for layer in network.layers
        if isinstance(layer.output, keras.KerasTensor) and len(layer.output.shape) == 4
    ]
    last = {}
    for output, shape in zip(outputs, _shapes(name, network, outputs), strict=True):
        stride = _stride(shape[1])
        if stride in STRIDES:
            last[stride] = output
    if not last:
        raise ValueError(f"Backbone {name!r} has no feature map of a stride in {STRIDES}.")
    return last


def _shapes(name, network, outputs):
    """Return the shapes of the maps on the probing square. An odd size reveals a fixed size."""
    probe, bands = keras.Model(network.inputs[0], outputs), network.inputs[0].shape[-1]
    try:
        probe.compute_output_shape((1, PROBE_SIZE - 1, PROBE_SIZE - 1, bands))
        return probe.compute_output_shape((1, PROBE_SIZE, PROBE_SIZE, bands))
    except ValueError as error:
        raise ValueError(f"Backbone {name!r} does not take images of any size: {error}") from error


def _stride(num_cells):
    """Return the power of two closest to PROBE_SIZE / num_cells.

    It is None for a map with a border, which has more cells than the stride gives.
    """
    exponent = round(math.log2(PROBE_SIZE / num_cells))
    return 2**exponent if num_cells <= PROBE_SIZE / 2**exponent else None


def _min_size(features):
    """Return the smallest side of an image on which every map has a cell."""

    def fits(side):
        try:
            shapes = features.compute_output_shape((1, side, side, features.inputs[0].shape[-1]))
        except ValueError:  # a window larger than its map
            return False
        return all(min(shape[1:3]) > 0 for shape in shapes.values())

    return 1 + bisect.bisect_left(range(1, PROBE_SIZE), True, key=fits)
