"""Backbones: networks from raw RGB pixels to named feature maps, and the registry that builds them
by name.

A backbone is a `keras.Model` whose outputs are a dict {tap name: feature map} and which carries a
`BackboneSpec`. The stages know nothing else of it. To add one, write a function with the signature
of `vgg16.vgg16` and enter it in `BACKBONES`. Networks of other libraries need no entry:
`applications/ResNet50`, `kerascv/NAME` and `kerashub/NAME` are wrapped (`libraries`, `wrapped`).
"""

from mm_keras.backbones import alexnet, libraries, testing, vgg16, wrapped
from mm_keras.backbones.spec import PIXELS, Backbone, BackboneSpec, Pixels, Tap

__all__ = [
    "BACKBONES",
    "PIXELS",
    "Backbone",
    "BackboneSpec",
    "Pixels",
    "Tap",
    "build",
    "check",
    "has_width",
]

BACKBONES = {
    "alexnet": alexnet.alexnet,
    "alexnet_one_column": alexnet.alexnet_one_column,
    "testing": testing.testing,
    "vgg16": vgg16.vgg16,
}
"""Name -> function(pixels: Pixels, width: float) -> Backbone."""

DEFAULT_PIXELS = "bgr"
"""Of the entries of `BACKBONES`. Wrapped networks have their own, "own"."""


def build(
    name: str, pixels: str | None = None, width: float = 1.0, weights: str | None = None
) -> Backbone:
    """Builds a backbone.

    Args:
        name: a key of `BACKBONES`, or PREFIX/NAME of another library, see `libraries`.
        pixels: what its weights expect, a key of `PIXELS`: "bgr" for random weights, "gray" for
            colorization, "jigsaw" for jigsaw, "torch" for torchvision's. None is the network's
            default: "bgr", and "own" for a wrapped one, the preprocessing it is published with.
        width: factor on all channel counts, > 0. 1 is the published network.
        weights: None for fresh random ones; "imagenet" for those that Keras publishes
            (applications/NAME), downloaded to Keras' folder when they are first asked for.

    Raises:
        ValueError: as `check`; a download that failed, naming the file and where to put it.
    """
    check(name, pixels, width, weights)
    if libraries.is_wrapped(name):
        return wrapped.build(name, weights)
    return BACKBONES[name](pixels=PIXELS[pixels or DEFAULT_PIXELS], width=width)


def check(name: str, pixels: str | None = None, width: float = 1.0, weights: str | None = None):
    """Refuses what `build` cannot build, without building anything. Arguments as for `build`.

    Raises:
        ValueError: unknown name, pixels or weights (with what is known), a library that is not
            installed, a width that is not positive, or not 1 for a wrapped network.
    """
    if not width > 0:
        raise ValueError(f"width must be positive: it multiplies channel counts. Received {width}.")
    if libraries.is_wrapped(name):
        libraries.check(name, weights)
        _check_wrapped(name, pixels, width)
        return
    if name not in BACKBONES:
        raise ValueError(_unknown_backbone(name))
    if pixels is not None and pixels not in PIXELS:
        known = ", ".join(sorted(PIXELS))
        hint = libraries.closest(pixels, PIXELS)
        raise ValueError(f"Unknown kind of pixels {pixels!r}; known: {known}.{hint}")
    if weights is not None:
        raise ValueError(f"{name} is built with random weights: weights={weights!r} has none.")


def has_width(name: str) -> bool:
    """Whether `width` may be other than 1: not for networks of other libraries."""
    return not libraries.is_wrapped(name)


def _check_wrapped(name, pixels, width):
    if width != 1:
        raise ValueError(
            f"network.width must be 1 for {name}, which comes in one width. Received {width}."
        )
    if pixels not in (None, "own"):
        raise ValueError(
            f"pixels must be 'own' or None for {name}, which prepares pixels as it was published. "
            f"Received {pixels!r}."
        )


def _unknown_backbone(name):
    known = ", ".join((*sorted(BACKBONES), *(f"{prefix}/NAME" for prefix in libraries.LIBRARIES)))
    applications = [f"applications/{item}" for item in libraries.Applications().names()]
    hint = libraries.closest(name, BACKBONES) or libraries.closest(name, applications)
    return f"Unknown backbone {name!r}; known: {known}.{hint}"
