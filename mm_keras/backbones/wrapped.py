"""Any functional network of images as a backbone: its feature maps are found by their strides."""

import bisect
import math

import keras

from mm_keras import layers
from mm_keras.backbones import libraries
from mm_keras.backbones.spec import Backbone, BackboneSpec, Pixels, Tap

STRIDES = (2, 4, 8, 16, 32)

# Side of the square on which strides are measured. Networks that do not pad lose a few cells at
# each border; on so large a square their maps still lie closest to the right power of two.
PROBE_SIZE = 512


def build(name: str, weights: str | None = None) -> Backbone:
    """A network of another library as a backbone.

    Its batch norm forgets as fast as VGG-16's here, momentum 0.9: at the 0.999 of MobileNets 60 %
    of a random network's meaningless start would be left after 500 steps.

    Args:
        name: "applications/ResNet50" and the like, see `mm_keras.backbones.libraries`.
        weights: None, or "imagenet" for those that Keras publishes (applications only).

    Raises:
        ValueError: as `libraries.network` and `wrap`.
    """
    network, pixels = libraries.network(name, weights)
    _forget_faster(network)
    return wrap(name, network, pixels)


def _forget_faster(network):
    for layer in layers.inner_layers(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, 0.9)


def wrap(name: str, network: keras.Model, pixels: Pixels) -> Backbone:
    """A functional network as a backbone with the taps stride2, stride4, ... stride32.

    A tap is the last map of its stride in the network's order of layers, the one that the next
    halving starts from; strides that the network skips have none. The coarsest tap is the
    embedding. Maps to which a border was added (zero padding) are no taps, and a nested model
    counts as one layer. The network itself is the backbone's layer "network".

    Sizes are the network's own: a side that is no multiple of the stride is rounded up or down.
    The hypercolumn reads cell k at pixel k * stride, where VGG-16's cells lie. Those of other
    networks lie beside it, by up to about one stride, depending on how the network pads.

    Args:
        name: of the backbone.
        network: functional, from prepared images [B, H, W, 3] of any size.
        pixels: what it expects.

    Raises:
        ValueError: the network does not take images of any size, or has no feature map.
    """
    maps = {f"stride{stride}": output for stride, output in _last_maps(name, network).items()}
    features = keras.Model(network.inputs[0], maps, name="network")
    images = keras.Input((None, None, 3), name="pixels")
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
    return Backbone(images, outputs, spec)


def _last_maps(name, network):
    """{stride: keras tensor}, the last map of each stride of `STRIDES` that the network has."""
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
    """Shapes of the maps on the probing square; an odd size shows networks that fix their size."""
    probe = keras.Model(network.inputs[0], outputs)
    try:
        probe.compute_output_shape((1, PROBE_SIZE - 1, PROBE_SIZE - 1, 3))
        return probe.compute_output_shape((1, PROBE_SIZE, PROBE_SIZE, 3))
    except ValueError as error:
        raise ValueError(f"Backbone {name!r} does not take images of any size: {error}") from error


def _stride(num_cells):
    """The power of two that is closest to PROBE_SIZE / num_cells; None for a map with a border
    around it, which has more cells than the stride gives.
    """
    exponent = round(math.log2(PROBE_SIZE / num_cells))
    return 2**exponent if num_cells <= PROBE_SIZE / 2**exponent else None


def _min_size(features):
    """The smallest side of an image on which every map has a cell."""

    def fits(side):
        try:
            shapes = features.compute_output_shape((1, side, side, 3))
        except ValueError:  # a window larger than its map
            return False
        return all(min(shape[1:3]) > 0 for shape in shapes.values())

    return 1 + bisect.bisect_left(range(1, PROBE_SIZE), True, key=fits)
