"""Keras' ImageNet weights for networks that exist both here and in Keras.

`mm_keras.backbones.build` builds networks of keras.applications (`applications/NAME`) together with
their weights.
"""

from mm_keras.backbones import Backbone, libraries
from mm_keras.weights import layouts

ELSEWHERE = {
    "alexnet": "Caffe's bvlc_alexnet.caffemodel or bvlc_reference_caffenet.caffemodel (the BVLC "
    "model zoo)",
    "alexnet_one_column": "torchvision's alexnet-owt-7be5be79.pth "
    "(download.pytorch.org/models) or another file of these weights",
}
"""{backbone: the source of its ImageNet weights}, for weights that Keras does not publish."""


def check(backbone: str, width: float = 1.0):
    """Raise an error for a backbone without ImageNet weights in Keras.

    Args:
        backbone: its name in the registry.
        width: factor on its channel counts; the published weights have 1.

    Raises:
        ValueError: if Keras has no weights for it. The message names the file to download.
    """
    if backbone in ELSEWHERE:
        raise ValueError(
            f"Keras publishes no ImageNet weights for {backbone}. Download "
            f"{ELSEWHERE[backbone]} and give it as init_weights."
        )
    if backbone != "vgg16":
        raise ValueError(
            f"There are no ImageNet weights for {backbone!r}: use vgg16, applications/NAME, or "
            "give a file as init_weights."
        )
    if width != 1:
        raise ValueError(f"Keras' ImageNet weights have width 1. Received width={width}.")


def load(backbone: Backbone) -> str:
    """Copy the convolutions of Keras' VGG-16 (Simonyan & Zisserman 2015) into ours.

    Keras' network has no batch norm, so ours stays the identity of a fresh one. The first
    convolution is rewritten from the pixels of Keras' network to ours. This is exact except at the
    border (`mm_keras.weights.loading`, "Pixels").

    Args:
        backbone: "vgg16", freshly built, of width 1.

    Returns:
        A short description of the weights.

    Raises:
        ValueError: see `check`. Also if a download fails; the message names file and place.
    """
    spec = backbone.spec
    check(spec.name, spec.width)
    published, pixels = libraries.network("applications/VGG16", "imagenet")
    change = layouts.PixelChange.between(pixels, spec.pixels)
    names = [tap.name for tap in spec.taps if tap.name.startswith("conv")]
    for name in names:
        kernel, bias = published.get_layer(
            name.replace("conv", "block").replace("_", "_conv")
        ).get_weights()
        if name == names[0]:
            kernel, bias = change.apply(kernel, bias)
        backbone.get_layer(name).set_weights([kernel, bias])
    return f"Keras' VGG-16, {len(names)} convolutions; batch norms are the identity"
