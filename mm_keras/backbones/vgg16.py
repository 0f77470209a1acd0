"""VGG-16 with batch normalization, as in the released VGG/*/train_graph.prototxt."""

import keras

from mm_keras import layers
from mm_keras.backbones.spec import Backbone, BackboneSpec, Pixels, Tap, scaled

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(pixels: Pixels, width: float = 1.0) -> Backbone:
    """Build VGG-16: 13 convolutions in five blocks, with batch norm, ReLU and max pooling.

    Batch norm and ReLU follow each convolution; 2 x 2 max pooling follows each block.

    Taps: the network's input and all 13 convolutions after their ReLU, strides 1 to 16. Embedding:
    pool5, stride 32.

    Args:
        pixels: the pixels that the weights expect. They determine the input's channels.
        width: factor on the channel counts, on the channels of the segmenter's fc6, fc7 and added
            blocks (4096, 4096, 1024, 1024), and on its 1024 hypercolumn units.
    """
    return convolutional_backbone(
        "vgg16",
        pixels,
        blocks=tuple(tuple(scaled(channels, width) for channels in block) for block in BLOCKS),
        width=width,
        hypercolumn_units=scaled(1024, width),
        context_units=tuple(scaled(units, width) for units in (4096, 4096, 1024, 1024)),
    )


def convolutional_backbone(
    name: str, pixels: Pixels, blocks: tuple[tuple[int, ...], ...], **spec_fields
) -> Backbone:
    """Build a backbone like VGG: block k has convolutions convk_1, convk_2, ... and ends in poolk.

    Args:
        name: name of the backbone.
        pixels: the pixels that the weights expect.
        blocks: for each block the channels of its convolutions.
        **spec_fields: further fields of the `BackboneSpec`.
    """
    images = keras.Input((None, None, pixels.num_bands), name="pixels")
    features = layers.InputAdapter(pixels.color, pixels.scale, pixels.mean, name="input_adapter")(
        images
    )
    outputs = {"input": features}
    taps = [Tap("input", 1, features.shape[-1])]
    for k, block in enumerate(blocks, start=1):
        for i, channels in enumerate(block, start=1):
            features = _convolution(features, channels, f"conv{k}_{i}")
            outputs[f"conv{k}_{i}"] = features
            taps.append(Tap(f"conv{k}_{i}", 2 ** (k - 1), channels))
        features = layers.CeilMaxPooling(name=f"pool{k}")(features)
    embedding = Tap(f"pool{len(blocks)}", 2 ** len(blocks), blocks[-1][-1])
    outputs[embedding.name] = features
    spec = BackboneSpec(name, pixels, tuple(taps), embedding, **spec_fields)
    return Backbone(images, outputs, spec)


def _convolution(features, channels, name):
    # Names follow the released prototxt files. Weight tables and feature taps use them.
    features = keras.layers.Conv2D(
        channels, 3, padding="same", kernel_initializer=layers.xavier(), name=name
    )(features)
    # Caffe's "BN" layer: eps 1e-5, running = 0.9 running + 0.1 batch. The running variance starts
    # at 1, not at Caffe's 0, so that a network works before training. After 100 steps, 0.9**100 of
    # the start remains.
    features = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"batch_{name}")(features)
    return keras.layers.ReLU(name=f"relu_{name}")(features)
