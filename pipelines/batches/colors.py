"""Changes of pixels: brightness, contrast, saturation and hue as one affine map, blur and noise.

Pixels are float32 [height, width, bands] in 0..255, RGB if there are three bands. All functions run
in graph mode in tf.data.
"""

import math
from typing import NamedTuple

import tensorflow as tf

from pipelines import chroma


class Change(NamedTuple):
    """One change of colors. Brightness, contrast and saturation 1 and hue 0 change nothing.

    Attributes:
        brightness: float32 scalar, factor of the pixels.
        contrast: float32 scalar, factor of the distance from the mean gray level.
        saturation: float32 scalar, factor of the distance from the pixel's own gray level.
        hue: float32 scalar, part of a full turn of the color circle.
    """

    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor


def change(pixels: tf.Tensor, colors: Change) -> tf.Tensor:
    """Change brightness, contrast, saturation and hue, in this order, and clip to 0..255 once.

    Each change is affine, so all four are one product with a matrix. The factors are defined as in
    torchvision's ColorJitter. Hue turns the chroma plane of YIQ, which keeps the gray level.
    HSV would be a hexagon in this plane and is many times slower.

    Images of another number of bands have no gray level and no hue: their brightness changes, and
    their contrast, around the mean of each band.

    Args:
        pixels: float32 [height, width, bands], 0..255.
        colors: the change.

    Returns:
        float32 of the same shape.
    """
    if pixels.shape[-1] != 3:
        return _change_bands(pixels, colors)
    mean = tf.tensordot(tf.reduce_mean(pixels, axis=[0, 1]), tf.constant(chroma.LUMA), 1)
    gray, turn = tf.constant(chroma.GRAY), 2 * math.pi * colors.hue
    color = tf.cos(turn) * (tf.eye(3) - gray) + tf.sin(turn) * tf.constant(chroma.QUARTER_TURN)
    matrix = colors.brightness * colors.contrast * (gray + colors.saturation * color)
    offset = colors.brightness * (1 - colors.contrast) * mean
    changed = tf.matmul(tf.reshape(pixels, [-1, 3]), matrix, transpose_b=True) + offset
    return tf.reshape(tf.clip_by_value(changed, 0.0, 255.0), tf.shape(pixels))


def _change_bands(pixels, colors):
    """Change brightness and contrast of each band."""
    mean = tf.reduce_mean(pixels, axis=[0, 1])
    changed = colors.brightness * (mean + colors.contrast * (pixels - mean))
    return tf.clip_by_value(changed, 0.0, 255.0)


def blur(pixels: tf.Tensor, deviation: tf.Tensor, largest: float) -> tf.Tensor:
    """Blur with a Gaussian; the border is reflected.

    Args:
        pixels: float32 [height, width, bands].
        deviation: float32 scalar, standard deviation in pixels, at most `largest`. 0 changes
            nothing and costs nothing.
        largest: float, it fixes the size of the kernel: 3 deviations to each side, at most the
            size of the image.

    Returns:
        float32 of the same shape.
    """
    radius, bands = min(math.ceil(3 * largest), *pixels.shape[:2]), pixels.shape[-1]

    def blurred():
        offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
        weights = tf.exp(-0.5 * tf.square(offsets / deviation))
        weights = tf.tile((weights / tf.reduce_sum(weights))[:, None], [1, bands])
        result = pixels[None]
        for axis in (1, 2):
            padding = [[radius, radius] if i == axis else [0, 0] for i in range(4)]
            kernel = tf.reshape(weights, [-1, 1, bands, 1] if axis == 1 else [1, -1, bands, 1])
            result = tf.nn.depthwise_conv2d(
                tf.pad(result, padding, "SYMMETRIC"), kernel, [1, 1, 1, 1], "VALID"
            )
        return result[0]

    return tf.cond(deviation > 0, blurred, lambda: pixels)


def add_noise(pixels: tf.Tensor, deviation: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Add independent Gaussian noise to each value and clip to 0..255.

    Args:
        pixels: float32 [height, width, bands].
        deviation: float32 scalar, standard deviation in gray levels. 0 changes nothing and costs
            nothing.
        seed: int32 [2].
    """

    def noisy():
        noise = tf.random.stateless_normal(tf.shape(pixels), seed)
        return tf.clip_by_value(pixels + deviation * noise, 0.0, 255.0)

    return tf.cond(deviation > 0, noisy, lambda: pixels)
