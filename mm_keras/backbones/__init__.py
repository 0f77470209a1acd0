"""Backbones: networks from raw RGB pixels to named feature maps, and their registry.

A backbone is a `keras.Model` with a `BackboneSpec`. Its outputs are a dict {tap name: feature map}.
The stages use nothing else of it. To add one, write a function with the signature of `vgg16.vgg16`
and enter it in `BACKBONES`. Networks of other libraries need no entry: `applications/ResNet50`,
`kerascv/NAME` and `kerashub/NAME` are wrapped (`libraries`, `wrapped`, `transformers`).
"""

from mm_keras.backbones import alexnet, libraries, testing, vgg16, wrapped
from mm_keras.backbones.spec import MAX_BANDS, PIXELS, Backbone, BackboneSpec, Pixels, Tap

__all__ = [
    "BACKBONES",
    "MAX_BANDS",
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
"""{name: function(pixels: Pixels, width: float) -> Backbone}."""

DEFAULT_PIXELS = "bgr"
"""Default pixels of the entries of `BACKBONES`. Wrapped networks use "own"."""


def build(
    name: str,
    pixels: str | None = None,
    width: float = 1.0,
    weights: str | None = None,
    folder: str | None = None,
    load: bool = True,
    num_bands: int = 3,
) -> Backbone:
    """Build a backbone.

    Args:
        name: a key of `BACKBONES`, or PREFIX/NAME of another library, see `libraries`.
        pixels: the pixels that the weights expect, a key of `PIXELS`: "bgr" for random weights,
            "gray" for colorization, "jigsaw" for jigsaw, "lightness" for color classes, "lab" for
            split brain, "bigan" for BiGAN, "torch" for torchvision. None is the network's default:
            "bgr", or "own" for a wrapped network, its published preprocessing.
        width: factor on all channel counts, > 0. 1 is the published network.
        weights: None for random weights, or "pretrained" for the weights that a library publishes
            (applications/NAME, kerashub/NAME); "imagenet" is another word for those of Keras. The
            library downloads them on first use, unless they are in a preset folder.
        folder: preset folder of the network kerashub/NAME, see `presets`. The name may also be
            kerashub/FOLDER.
        load: whether to load these weights; else the weights of the same network are random.
        num_bands: number of bands of the images, 1 to `MAX_BANDS`. Three are red, green and blue.
            See `Pixels.of_bands`, and `more_bands` for published weights.

    Raises:
        ValueError: see `check`. Also if a download fails; the message names the file and its place.
            Also weights that are damaged or of another network.

    Example:

    >>> backbone = build("testing", pixels="gray")
    >>> [tap.name for tap in backbone.spec.taps]
    ['input', 'conv1_1', 'conv2_1', 'conv3_1']
    >>> backbone.compute_output_shape((1, 64, 64, 3))["pool3"]
    (1, 8, 8, 16)
    """
    check(name, pixels, width, weights, folder)
    if libraries.is_wrapped(name):
        return wrapped.build(name, weights, folder, load, num_bands)
    own = PIXELS[pixels or DEFAULT_PIXELS].of_bands(num_bands)
    return BACKBONES[name](pixels=own, width=width)


def check(
    name: str,
    pixels: str | None = None,
    width: float = 1.0,
    weights: str | None = None,
    folder: str | None = None,
):
    """Raise an error for arguments that `build` rejects, without building anything.

    Args:
        name: as for `build`.
        pixels: as for `build`.
        width: as for `build`.
        weights: as for `build`.
        folder: as for `build`.

    Raises:
        ValueError: if name, pixels or weights are unknown (the message lists the known ones), a
            library is not installed, or the width is not positive, or not 1 for a wrapped network.
            A preset folder that cannot be read, or holds another network.
    """
    if not width > 0:
        raise ValueError(f"width must be positive: it multiplies channel counts. Received {width}.")
    if libraries.is_wrapped(name):
        libraries.check(name, weights, folder)
        _check_wrapped(name, pixels, width)
        return
    if name not in BACKBONES:
        raise ValueError(_unknown_backbone(name))
    if pixels is not None and pixels not in PIXELS:
        known = ", ".join(sorted(PIXELS))
        hint = libraries.closest(pixels, PIXELS)
        raise ValueError(f"Unknown kind of pixels {pixels!r}; known: {known}.{hint}")
    if weights is not None or folder is not None:
        raise ValueError(
            f"{name} is built with random weights. Received weights={weights!r} and "
            f"folder={folder!r}. Use None."
        )


def has_width(name: str) -> bool:
    """Return whether `width` may differ from 1. Networks of other libraries have one width."""
    return not libraries.is_wrapped(name)


def _check_wrapped(name, pixels, width):
    if width != 1:
        raise ValueError(f"width must be 1 for {name}, which has one width. Received {width}.")
    if pixels not in (None, "own"):
        raise ValueError(
            f"pixels must be 'own' or None for {name}, which uses its published preprocessing. "
            f"Received {pixels!r}."
        )


def _unknown_backbone(name):
    known = ", ".join((*sorted(BACKBONES), *(f"{prefix}/NAME" for prefix in libraries.LIBRARIES)))
    applications = [f"applications/{item}" for item in libraries.Applications().names()]
    hint = libraries.closest(name, BACKBONES) or libraries.closest(name, applications)
    return f"Unknown backbone {name!r}; known: {known}.{hint}"
