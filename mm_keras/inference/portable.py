"""Operations of prediction in a form that other runtimes have: matrix products and comparisons.

ONNX has no ScaleAndTranslate, which `tf.image.resize` uses with antialias.
"""

import tensorflow as tf


def resized(pixels, size, antialias: bool = False):
    """Resize [B, h, w, C] to float32 [B, *size, C], as `tf.image.resize` with half-pixel centers.

    Args:
        pixels: uint8 or float32.
        size: int32 [2], height and width of the result.
        antialias: average over all pixels below an output pixel where the result is smaller.
    """
    pixels = tf.cast(pixels, tf.float32)
    shape = tf.shape(pixels)
    rows, columns = (_weights(shape[k + 1], size[k], antialias) for k in (0, 1))
    channels = pixels.shape[-1]
    tall = tf.matmul(rows, tf.reshape(pixels, [shape[0], shape[1], -1]))
    tall = tf.reshape(tall, tf.stack([shape[0] * size[0], shape[2], channels]))
    return tf.reshape(tf.matmul(columns, tall), tf.stack([shape[0], size[0], size[1], channels]))


def _weights(num_inputs, num_outputs, antialias):
    """Return the share of each input pixel in each output pixel, float32 [outputs, inputs].

    The kernel is a triangle, as wide as two input pixels, or as two output pixels where the result
    is smaller and antialias is on (TensorFlow, scale_and_translate_op.cc).
    """
    scale = tf.cast(num_inputs, tf.float32) / tf.cast(num_outputs, tf.float32)
    radius = tf.maximum(scale, 1.0) if antialias else tf.constant(1.0)
    centers = (tf.cast(tf.range(num_outputs), tf.float32) + 0.5) * scale
    # Outside of the image the border is repeated, as in ResizeBilinear.
    centers = tf.clip_by_value(centers, 0.5, tf.cast(num_inputs, tf.float32) - 0.5)
    places = tf.cast(tf.range(num_inputs), tf.float32) + 0.5
    weights = tf.nn.relu(1.0 - tf.abs(places - centers[:, None]) / radius)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)
