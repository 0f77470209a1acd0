"""A backbone of a few hundred weights for tests, with the code path of VGG-16."""

from mm_keras.backbones import vgg16
from mm_keras.backbones.spec import Backbone, Pixels, scaled


def testing(pixels: Pixels, width: float = 1.0) -> Backbone:
    """Build three blocks of one convolution, strides 1, 2 and 4, with embedding pool3, stride 8.

    See `vgg16.vgg16` for the arguments.
    """
    return vgg16.convolutional_backbone(
        "testing",
        pixels,
        blocks=tuple((scaled(channels, width),) for channels in (4, 8, 16)),
        width=width,
        hypercolumn_units=scaled(16, width),
        context_units=tuple(scaled(units, width) for units in (16, 16, 8, 8)),
    )
