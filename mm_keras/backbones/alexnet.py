"""AlexNet with batch normalization, and the one-column AlexNet of torchvision.

Source: released Alexnet/*/train_graph.prototxt.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras

from mm_keras import layers
from mm_keras.backbones.spec import PIXELS, Backbone, BackboneSpec, Pixels, Tap, scaled


class Layout(NamedTuple):
    """The differences between the variants of AlexNet.

    Attributes:
        channels: channels of conv1 to conv5.
        groups: groups of conv1 to conv5.
        biases: initial biases of conv1 to conv5.
        first_padding: zeros around the input of conv1.
        narrow: function(features, k) that pools the output of block k, 1, 2 or 5.
        negative_slope: slope of the activation below 0.
    """

    channels: tuple[int, ...]
    groups: tuple[int, ...]
    biases: tuple[float, ...]
    first_padding: int
    narrow: Callable
    negative_slope: float = 0.0


def alexnet(pixels: Pixels, width: float = 1.0) -> Backbone:
    """Build AlexNet: five convolutions with batch norm and ReLU, and 3 x 3 max pooling.

    Pooling follows blocks 1, 2 and 5. conv2, conv4 and conv5 have two groups. `PIXELS["jigsaw"]`
    selects the variant of Alexnet/jigsaw_pascal. It pads its pooling, normalizes responses after
    it and starts three biases at 1. `PIXELS["lab"]` and `PIXELS["lightness"]` select the variant of
    Zhang et al. 2016, without response normalization. `PIXELS["bigan"]` selects the variant of
    Donahue et al. 2017, which also has LeakyReLU of slope 0.2. All other pixels select the variant
    of Alexnet/colorize_pascal and Alexnet/random_pascal.

    Taps: the network's input and the five convolutions after their ReLU, strides 1, 4, 8 and 16.
    Embedding: pool5, stride 32.

    Args:
        pixels: the pixels that the weights expect. They determine the input's channels and the
            variant.
        width: factor on the channel counts (rounded to even numbers for the groups), on the
            channels of the segmenter's fc6 and fc7 (4096), and on 1024 hypercolumn units.
    """
    return _backbone("alexnet", _layout(pixels), pixels, width)


def alexnet_one_column(pixels: Pixels, width: float = 1.0) -> Backbone:
    """Build torchvision's AlexNet, of one column.

    Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014. It
    has other channels, no groups, no response normalization, and pooling that rounds down.

    The original has no batch norm. Here the batch norm of the other variants follows each
    convolution. Without statistics it does not change values, so with torchvision's weights and
    `PIXELS["torch"]` inference gives torchvision's features. Tuning normalizes by the batch, as M&M
    does everywhere. Images must have at least 63 pixels a side, as in torchvision.

    See `alexnet` for taps, embedding and arguments.
    """
    return _backbone("alexnet_one_column", ONE_COLUMN, pixels, width)


def _layout(pixels):
    variants = {PIXELS["jigsaw"]: JIGSAW, PIXELS["bigan"]: BIGAN}
    if pixels in variants:
        return variants[pixels]
    return ZHANG if pixels.color in ("lab", "lightness") else COLORIZE


def _backbone(name, layout, pixels, width):
    images = keras.Input((None, None, pixels.num_bands), name="pixels")
    features = layers.InputAdapter(pixels.color, pixels.scale, pixels.mean, name="input_adapter")(
        images
    )
    outputs = {"input": features}
    taps = [Tap("input", 1, features.shape[-1])]
    for k, stride in enumerate((4, 8, 16, 16, 16), start=1):
        features = outputs[f"conv{k}"] = _block(features, k, layout, width)
        taps.append(Tap(f"conv{k}", stride, features.shape[-1]))
        if k in (1, 2, 5):
            features = layout.narrow(features, k)
    outputs["pool5"] = features
    spec = BackboneSpec(
        name,
        pixels,
        tuple(taps),
        embedding=Tap("pool5", 32, features.shape[-1]),
        width=width,
        hypercolumn_units=scaled(1024, width),
        context_units=(scaled(4096, width),) * 2,
        segmenter="fcn",
    )
    return Backbone(images, outputs, spec)


def _block(features, k, layout, width):
    """Add convolution, batch norm and ReLU. Names follow the released prototxt files."""
    if k == 1:
        # Caffe pads all sides equally. Keras' "same" pads as little as possible, mostly at the end.
        features = keras.layers.ZeroPadding2D(layout.first_padding, name="pad_conv1")(features)
    features = layers.GroupedConv2D(
        2 * scaled(layout.channels[k - 1] // 2, width),
        kernel_size=(11, 5, 3, 3, 3)[k - 1],
        strides=4 if k == 1 else 1,
        padding="valid" if k == 1 else "same",
        groups=layout.groups[k - 1],
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(layout.biases[k - 1]),
        name=f"conv{k}",
    )(features)
    features = layers.AccumulatedBatchNormalization(name=f"batch_conv{k}")(features)
    slope = layout.negative_slope
    return keras.layers.ReLU(negative_slope=slope, name=f"relu_conv{k}")(features)


def _normalize_then_pool(features, k):
    if k < 5:
        features = layers.LocalResponseNormalization(name=f"norm{k}")(features)
    return layers.CeilMaxPooling(3, 2, name=f"pool{k}")(features)


def _pool_then_normalize(features, k):
    features = layers.CeilMaxPooling(3, 2, padding=1, name=f"pool{k}")(features)
    if k < 5:
        features = layers.LocalResponseNormalization(name=f"norm{k}")(features)
    return features


def _pool_alone(features, k):
    return layers.CeilMaxPooling(3, 2, name=f"pool{k}")(features)


def _pool(features, k):
    return keras.layers.MaxPooling2D(3, 2, name=f"pool{k}")(features)


# Biases of conv2, conv4 and conv5 start at 1 in Caffe's reference network, and at 0.1 in the
# released colorize and random variants.
COLORIZE = Layout(
    (96, 256, 384, 384, 256), (1, 2, 1, 2, 2), (0.0, 0.1, 0.0, 0.1, 0.1), 5, _normalize_then_pool
)
JIGSAW = COLORIZE._replace(biases=(0.0, 1.0, 0.0, 1.0, 1.0), narrow=_pool_then_normalize)
ZHANG = COLORIZE._replace(narrow=_pool_alone)  # richzhang/splitbrainauto, models/*.prototxt
BIGAN = ZHANG._replace(negative_slope=0.2)  # jeffdonahue/bigan, net.py
ONE_COLUMN = Layout((64, 192, 384, 256, 256), (1,) * 5, COLORIZE.biases, 2, _pool)
