"""Images of other than three bands as PNG files: the bands stand one below the other, as gray.

PNG has one to four channels, and TensorFlow's decoder reads no other lossless format of more.
"""

import io

import numpy as np
import tensorflow as tf
from PIL import Image


def encode(pixels: np.ndarray) -> bytes:
    """Encode uint8 [height, width, bands] as PNG bytes: three bands as RGB, others as planes."""
    if pixels.shape[2] != 3:
        pixels = np.moveaxis(pixels, 2, 0).reshape(-1, pixels.shape[1])
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return buffer.getvalue()


def decode(content: tf.Tensor, num_bands: int) -> tf.Tensor:
    """Decode the bytes of an image.

    Args:
        content: string scalar; JPEG, PNG or BMP for three bands, else the result of `encode`.
        num_bands: number of bands.

    Returns:
        uint8 [height, width, num_bands].

    Raises:
        tf.errors.InvalidArgumentError: if the bytes cannot be decoded.

    Example:
        >>> decode(encode(np.zeros([5, 7, 4], np.uint8)), 4).shape
        TensorShape([5, 7, 4])
    """
    if num_bands == 3:
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        return tf.ensure_shape(image, [None, None, 3])
    return beside(tf.io.decode_png(content, channels=1), num_bands)


def beside(planes: tf.Tensor, num_bands: int) -> tf.Tensor:
    """Return uint8 [height, width, num_bands] of planes uint8 [num_bands * height, width, 1]."""
    width = tf.shape(planes)[1]
    # No transpose: oneDNN prints an error line for integers.
    parts = tf.unstack(tf.reshape(planes, [num_bands, -1, width]))
    return tf.stack(parts, axis=-1)
