"""The head of Zhang et al.'s two pretext tasks: classes at some pixels of an image.

Source: Zhang, Isola and Efros, "Colorful image colorization", ECCV 2016, train_alexnet.
"""

from collections.abc import Sequence

import keras
from keras import ops

from mm_keras import layers


def class_head(
    channels: int, units: Sequence[int], fc6_size: int | None, num_classes: int, name: str = "head"
) -> keras.Model:
    """Build fc6 and fc7 on a pooled map, or one convolution of 1 x 1, and the classes.

    Args:
        channels: channels of the map.
        units: channels of the layers before the classes.
        fc6_size: side of the first kernel, which has dilation 2; None for a side of 1 and no pool.
        num_classes: channels of the result.
        name: name of the model.

    Returns:
        Model from float [B, h, w, channels] to [B, h, w, num_classes].
    """
    features = inputs = keras.Input((None, None, channels), name="features")
    if fc6_size is not None:
        features = keras.layers.MaxPooling2D(3, 1, padding="same", name="pool5")(features)
    for k, number in enumerate(units, start=6):
        size = fc6_size if k == 6 and fc6_size else 1
        features = _block(features, number, size, f"fc{k}")
    classes = keras.layers.Conv2D(
        num_classes,
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name="classes",
    )
    return keras.Model(inputs, classes(features), name=name)


def at_targets(logits, images, map_stride: int, stride: int):
    """Return logits at every s-th pixel from the top left, interpolated between cells.

    Args:
        logits: float [B, h, w, C]. Cell k lies on pixel k * map_stride.
        images: [B, H, W, ...], the images of the map.
        map_stride: pixels between two cells of the map.
        stride: the distance s of two targets in pixels.

    Returns:
        float32 [B, ceil(H / s), ceil(W / s), C].
    """
    logits = ops.cast(logits, "float32")
    for axis in (1, 2):
        positions = ops.arange(0, ops.shape(images)[axis], stride)
        logits = layers.interpolate(logits, positions, map_stride, axis)
    return logits


def _block(features, channels, size, name):
    features = keras.layers.Conv2D(
        channels,
        size,
        padding="same",
        dilation_rate=2 if size > 1 else 1,
        kernel_initializer=keras.initializers.HeNormal(),
        name=name,
    )(features)
    # Without scale and shift, as Caffe's layer in train_alexnet.
    features = layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, center=False, scale=False, name=f"batch_{name}"
    )(features)
    return keras.layers.ReLU(name=f"relu_{name}")(features)
