"""Backbones: networks from raw RGB pixels to named feature maps, and the registry that builds them
by name.

A backbone is a `keras.Model` whose outputs are a dict {tap name: feature map} and which carries a
`BackboneSpec`. The stages know nothing else of it. To add one, write a function with the signature
of `vgg16.vgg16` and enter it in `BACKBONES`.
"""

import difflib

from mm_keras.backbones import alexnet, testing, vgg16
from mm_keras.backbones.spec import PIXELS, Backbone, BackboneSpec, Pixels, Tap

__all__ = ["BACKBONES", "PIXELS", "Backbone", "BackboneSpec", "Pixels", "Tap", "build"]

BACKBONES = {
    "alexnet": alexnet.alexnet,
    "alexnet_one_column": alexnet.alexnet_one_column,
    "testing": testing.testing,
    "vgg16": vgg16.vgg16,
}
"""Name -> function(pixels: Pixels, width: float) -> Backbone."""


def build(name: str, pixels: str = "bgr", width: float = 1.0) -> Backbone:
    """Builds a backbone with freshly initialised weights.

    Args:
        name: a key of `BACKBONES`.
        pixels: what its weights expect, a key of `PIXELS`: "bgr" for random weights, "gray" for
            colorization, "jigsaw" for jigsaw, "torch" for torchvision's.
        width: factor on all channel counts, > 0. 1 is the published network.

    Raises:
        ValueError: unknown name or pixels, or a width that is not positive.
    """
    builder = _entry(BACKBONES, name, "backbone")
    pixels = _entry(PIXELS, pixels, "kind of pixels")
    if not width > 0:
        raise ValueError(f"width must be positive: it multiplies channel counts. Received {width}.")
    return builder(pixels=pixels, width=width)


def _entry(table, name, kind):
    if name not in table:
        close = difflib.get_close_matches(name, table, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown {kind} {name!r}; known: {', '.join(sorted(table))}.{hint}")
    return table[name]
