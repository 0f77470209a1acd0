"""Keras' ImageNet weights in the networks of ours that Keras has as well.

Networks of keras.applications (`applications/NAME`) are built with their weights at once, see
`mm_keras.backbones.build`.
"""

from mm_keras.backbones import Backbone, libraries
from mm_keras.weights import layouts

ELSEWHERE = {
    "alexnet": "Caffe's bvlc_alexnet.caffemodel or bvlc_reference_caffenet.caffemodel (the BVLC "
    "model zoo)",
    "alexnet_one_column": "torchvision's alexnet-owt-7be5be79.pth "
    "(download.pytorch.org/models) or another file of these weights",
}
"""Backbone -> where its ImageNet weights are to be had, since Keras does not publish them."""


def check(backbone: str, width: float = 1.0):
    """Refuses a backbone for which Keras publishes no weights.

    Args:
        backbone: its name in the registry.
        width: factor on its channel counts; the published weights have 1.

    Raises:
        ValueError: there are none; says which file to download and which flag takes it.
    """
    if backbone in ELSEWHERE:
        raise ValueError(
            f"Keras publishes no ImageNet weights for {backbone}. Download "
            f"{ELSEWHERE[backbone]} and give it with --init_weights=FILE."
        )
    if backbone != "vgg16":
        raise ValueError(
            f"There are no ImageNet weights for {backbone!r}: use vgg16, applications/NAME, or "
            "give a file with --init_weights=FILE."
        )
    if width != 1:
        raise ValueError(
            f"Keras' ImageNet weights are those of width 1. Received network.width={width}."
        )


def load(backbone: Backbone) -> str:
    """Copies the convolutions of Keras' VGG-16 (Simonyan & Zisserman 2015) into ours.

    Keras' network has no batch norm: ours stays the identity that a fresh one is. The first
    convolution is rewritten from the pixels of Keras' network to those of ours, which is exact
    but for the border (`mm_keras.weights`, "Pixels").

    Args:
        backbone: "vgg16", freshly built, of width 1.

    Returns:
        What was done, in a few words.

    Raises:
        ValueError: as `check`; a download that failed, naming file and place.
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
