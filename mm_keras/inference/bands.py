"""The most probable classes of an image in bands of rows, so that no probabilities of all pixels
exist at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from mm_keras import layers
from mm_keras.inference import windows

BAND_BYTES = 8 << 20
"""Probabilities of a band, in bytes: an image of VOC is one or two bands. Some ten arrays of this
size exist at once."""


class WholeMap(NamedTuple):
    """The cells of a network's output, computed at once; see `windows.Strips`.

    Attributes:
        cells: float32 [B, h, w, K].
    """

    cells: tf.Tensor

    @property
    def computed(self):
        """Return the tensors that exist before the first band."""
        return [self.cells]

    @property
    def num_rows(self):
        """Return the number of rows of cells, int32."""
        return tf.shape(self.cells)[1]

    def start(self):
        """Return the state before the first row: nothing is left to compute."""
        return ()

    def rows(self, state, first, end):
        """Return the state, rows of cells that hold `first` to `end`, and the first one."""
        del first, end
        return state, self.cells, 0


class CellMap(NamedTuple):
    """Probabilities of one view in the cells of a network's output.

    Attributes:
        source: the cells, `WholeMap` or `windows.Strips`; cell k lies on pixel k * stride of the
            network's input.
        stride: pixels per cell.
        size: int32 [2], height and width of the network's input.
        keeps_size: whether the input has the image's own size, known before the image.
        is_mirrored: whether the input is the image mirrored left to right.
    """

    source: WholeMap | windows.Strips
    stride: int
    size: tf.Tensor
    keeps_size: bool
    is_mirrored: bool

    def rows(self, state, rows, size):
        """Return the probabilities of some rows of the image.

        They equal the rows of `layers.upsample`, followed by `tf.image.resize`.

        Args:
            state: the state of `source`.
            rows: int32 [R], rows of the image in order, below the rows of earlier calls.
            size: int32 [2], height and width of the image.

        Returns:
            The state afterwards, and float32 [B, R, width, K].
        """
        if self.keeps_size:
            state, (found,) = self._of_input(state, rows)
            return state, found
        # The rule of tf.image.resize: half-pixel centers, clamped at the borders.
        scale = tf.cast(self.size[0], tf.float32) / tf.cast(size[0], tf.float32)
        place = (tf.cast(rows, tf.float32) + 0.5) * scale - 0.5
        below = tf.floor(place)
        lower = tf.maximum(tf.cast(below, tf.int32), 0)
        upper = tf.minimum(tf.cast(tf.math.ceil(place), tf.int32), self.size[0] - 1)
        shape = tf.stack([tf.shape(rows)[0], size[1]])
        state, parts = self._of_input(state, lower, upper)
        low, high = (tf.image.resize(part, shape) for part in parts)
        return state, low + (high - low) * (place - below)[:, None, None]

    def _of_input(self, state, *places):
        """Return the state, and the probabilities of each list of rows of the input."""
        weights = [layers.cell_weights(rows, self.stride, self.source.num_rows) for rows in places]
        first, end = weights[0][0][0], weights[-1][1][-1] + 1
        state, cells, start = self.source.rows(state, first, end)
        return state, [self._interpolated(cells, start, *found) for found in weights]

    def _interpolated(self, cells, start, lower, upper, weight):
        """Return the probabilities between rows of cells, at each column of the input."""
        low, high = (tf.gather(cells, place - start, axis=1) for place in (lower, upper))
        found = low + (high - low) * weight[:, None, None]
        found = layers.interpolate(found, tf.range(self.size[1]), self.stride, axis=2)
        return tf.reverse(found, axis=[2]) if self.is_mirrored else found


def most_probable(maps: Sequence[CellMap], shape, num_classes: int):
    """Return the most probable class of each pixel, and its probability.

    Args:
        maps: one map for each view; their probabilities are averaged.
        shape: int32 [3], the number of images, their height and their width.
        num_classes: number of classes.

    Returns:
        int32 [B, H, W] and float32 [B, H, W].
    """
    batch, height, width = tf.unstack(shape)
    row_bytes = 4.0 * num_classes * tf.cast(batch * width, tf.float32)
    num_rows = tf.maximum(1, tf.cast(BAND_BYTES / row_bytes, tf.int32))

    def band(start, states, ids, shares):
        rows = tf.range(start, tf.minimum(start + num_rows, height))
        states, mean = _mean(maps, states, rows, shape[1:])
        found = tf.argmax(mean, axis=-1, output_type=tf.int32)
        ids = _with_rows(ids, rows, found)
        return start + num_rows, states, ids, _with_rows(shares, rows, tf.reduce_max(mean, -1))

    states = [view.source.start() for view in maps]
    maps_of_rows = [
        tf.zeros(tf.stack([height, batch, width]), kind) for kind in (tf.int32, tf.float32)
    ]
    _, _, ids, shares = tf.while_loop(
        lambda start, *_: start < height,
        band,
        (0, states, *maps_of_rows),
        shape_invariants=(tf.TensorShape([]), *map(_any_sizes, (states, *maps_of_rows))),
        parallel_iterations=1,
    )
    return _images_first(ids), _images_first(shares)


def _with_rows(maps, rows, values):
    """Set rows of maps [H, B, W] to values [B, R, W], in place.

    A list of bands and their concatenation would be two copies of the maps, and
    `tf.tensor_scatter_nd_update` copies them for each band.
    """
    return tf.raw_ops.InplaceUpdate(x=maps, i=rows, v=_swapped(values))


def _mean(maps, states, rows, size):
    """Return the states of the maps after some rows, and the mean of their probabilities."""
    total, later = tf.constant(0.0), []
    for view, state in zip(maps, states, strict=True):
        # One view after the other, so that memory does not grow with their number.
        with tf.control_dependencies([total]):
            state, found = view.rows(state, rows, size)
            total += found
        later.append(state)
    return later, total / len(maps)


def _any_sizes(states):
    """Return the shapes of states in a loop: their sizes change."""
    return tf.nest.map_structure(
        lambda tensor: tf.TensorShape([None] * (tensor.shape.rank - 1) + tensor.shape[-1:]),
        states,
    )


def _images_first(rows):
    """Return [B, H, W] of [H, B, W]; a single image is not copied."""
    num_rows, batch, width = tf.unstack(tf.shape(rows))
    return tf.cond(
        batch == 1,
        lambda: tf.reshape(rows, [1, num_rows, width]),
        lambda: _swapped(rows),
    )


def _swapped(values):
    """Swap the first two axes of [X, Y, W].

    TensorFlow with oneDNN prints an error line where a graph transposes integers on a CPU without
    AVX-512.
    """
    return tf.cast(tf.transpose(tf.cast(values, tf.float32), [1, 0, 2]), values.dtype)
