"""The most probable classes of an image in bands of rows, so that no probabilities of all pixels
exist at once.
"""

from typing import NamedTuple

import tensorflow as tf

from mm_keras import layers

BAND_BYTES = 32 << 20
"""Probabilities of a band, in bytes: all images of the paper's data sets are one or two bands."""


class CellMap(NamedTuple):
    """Probabilities of one view in the cells of a network's output.

    Attributes:
        cells: float32 [B, h, w, K]; cell k lies on pixel k * stride of the network's input.
        stride: pixels per cell.
        size: int32 [2], height and width of the network's input.
        keeps_size: whether the input has the image's own size, known before the image.
        is_mirrored: whether the input is the image mirrored left to right.
    """

    cells: tf.Tensor
    stride: int
    size: tf.Tensor
    keeps_size: bool
    is_mirrored: bool

    def rows(self, rows, size):
        """Return the probabilities of some rows of the image.

        They equal the rows of `layers.upsample`, followed by `tf.image.resize`.

        Args:
            rows: int32 [R], rows of the image.
            size: int32 [2], height and width of the image.

        Returns:
            float32 [B, R, width, K].
        """
        if self.keeps_size:
            return self._of_input(rows)
        # The rule of tf.image.resize: half-pixel centers, clamped at the borders.
        scale = tf.cast(self.size[0], tf.float32) / tf.cast(size[0], tf.float32)
        place = (tf.cast(rows, tf.float32) + 0.5) * scale - 0.5
        below = tf.floor(place)
        lower = tf.maximum(tf.cast(below, tf.int32), 0)
        upper = tf.minimum(tf.cast(tf.math.ceil(place), tf.int32), self.size[0] - 1)
        shape = tf.stack([tf.shape(rows)[0], size[1]])
        low, high = (tf.image.resize(self._of_input(part), shape) for part in (lower, upper))
        return low + (high - low) * (place - below)[:, None, None]

    def _of_input(self, rows):
        """Return the probabilities of some rows of the network's input."""
        found = layers.interpolate(self.cells, rows, self.stride, axis=1)
        found = layers.interpolate(found, tf.range(self.size[1]), self.stride, axis=2)
        return tf.reverse(found, axis=[2]) if self.is_mirrored else found


def most_probable(maps: list[CellMap], size, num_classes: int):
    """Return the most probable class of each pixel, and its probability.

    Args:
        maps: one map for each view; their probabilities are averaged.
        size: int32 [2], height and width of the image.
        num_classes: number of classes.

    Returns:
        int32 [B, H, W] and float32 [B, H, W].
    """
    batch = tf.shape(maps[0].cells)[0]
    row_bytes = 4.0 * num_classes * tf.cast(batch * size[1], tf.float32)
    num_rows = tf.maximum(1, tf.cast(BAND_BYTES / row_bytes, tf.int32))
    num_bands = -(-size[0] // num_rows)

    def band(k, ids, shares):
        rows = tf.range(k * num_rows, tf.minimum((k + 1) * num_rows, size[0]))
        total = sum(view.rows(rows, size) for view in maps) / len(maps)
        found = tf.argmax(total, axis=-1, output_type=tf.int32)
        found, share = (tf.transpose(part, [1, 0, 2]) for part in (found, tf.reduce_max(total, -1)))
        return k + 1, ids.write(k, found), shares.write(k, share)

    arrays = [
        tf.TensorArray(kind, num_bands, infer_shape=False, element_shape=[None, None, None])
        for kind in (tf.int32, tf.float32)
    ]
    *_, ids, shares = tf.while_loop(
        lambda k, *_: k < num_bands, band, (0, *arrays), parallel_iterations=1
    )
    return _images_first(ids.concat()), _images_first(shares.concat())


def _images_first(rows):
    """Return [B, H, W] of [H, B, W]; a single image is not copied."""
    num_rows, batch, width = tf.unstack(tf.shape(rows))
    return tf.cond(
        batch == 1,
        lambda: tf.reshape(rows, [1, num_rows, width]),
        lambda: tf.transpose(rows, [1, 0, 2]),
    )
