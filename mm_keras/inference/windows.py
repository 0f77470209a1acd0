"""Large images in overlapping windows, so that the network's memory is bounded by the window.

Windows begin on multiples of the network's coarsest stride. Their cells therefore lie on the cells
of the whole image, and the results are equal except near the borders of windows.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

OVERLAP = 128
"""Pixels that neighboring windows share (ours)."""


class Windows(NamedTuple):
    """Windows of a network.

    Attributes:
        size: side in pixels of the network's input.
        overlap: pixels that two neighbors share, at least; `step` is rounded down.
        multiple: pixels that the starts of windows are multiples of.
    """

    size: int
    overlap: int
    multiple: int

    @property
    def step(self) -> int:
        """Pixels from one window to the next."""
        return (self.size - self.overlap) // self.multiple * self.multiple


def of(model, size: int | None, overlap: int) -> Windows | None:
    """Return the windows of a segmenter; None without a size.

    Raises:
        ValueError: if the window is smaller than the network allows, or leaves no step.
    """
    if size is None:
        return None
    spec, result = model.backbone.spec, Windows(size, overlap, coarsest_stride(model))
    if size < spec.min_size:
        raise ValueError(
            f"window must be at least {spec.min_size} pixels for {spec.name}. Received {size}."
        )
    if overlap < 0 or result.step < 1:
        raise ValueError(
            f"window={size} and overlap={overlap} leave no step: with {spec.name}, windows begin "
            f"every {result.multiple} pixels or a multiple of it. The window must be at least "
            f"{result.multiple} pixels larger than the overlap, and the overlap at least 0."
        )
    return result


def coarsest_stride(model) -> int:
    """Return the largest stride of a segmenter's feature maps, in pixels."""
    spec = model.backbone.spec
    strides = [tap.stride for tap in (*spec.taps, spec.embedding)]
    if hasattr(model, "hypercolumn"):
        strides += [stride for _, stride, _ in model.hypercolumn.taps]
    return max(strides)


def blended(function: Callable, pixels, windows: Windows, stride: int, channels: int):
    """Return the weighted mean of a function's results in overlapping windows.

    The weight of a window falls linearly over the overlap, and is 1 at the borders of the image.
    One window is computed after the other.

    Args:
        function: maps pixels [B, h, w, 3] to float32 [B, ceil(h / stride), ceil(w / stride),
            channels].
        pixels: [B, H, W, 3].
        windows: the windows.
        stride: pixels per cell of the results; it divides `windows.multiple`.
        channels: number of channels of the results.

    Returns:
        float32 [B, ceil(H / stride), ceil(W / stride), channels].
    """
    size = tf.shape(pixels)[1:3]
    rows, columns = (_Axis(size[k], windows, stride) for k in (0, 1))

    def row(i, tail, bands):
        start, end = rows.span(i)
        strip = _strip(function, pixels[:, start:end], columns, channels)
        strip *= rows.weights(i)[:, None, None]
        strip = _add_at_start(strip, tail)
        finished = rows.cells_until_next(i)
        band = strip[:, :finished] / rows.total(i, finished)[:, None, None]
        bands = bands.write(i, tf.transpose(band, [1, 0, 2, 3]))
        return i + 1, strip[:, finished:], bands

    tail = tf.zeros(tf.stack([tf.shape(pixels)[0], 0, columns.num_cells, channels]))
    bands = tf.TensorArray(
        tf.float32, size=rows.count, infer_shape=False, element_shape=[None, None, None, channels]
    )
    shapes = (tf.TensorShape([]), tf.TensorShape([None, None, None, channels]), None)
    *_, bands = tf.while_loop(
        lambda i, *_: i < rows.count,
        row,
        (0, tail, bands),
        shape_invariants=(shapes[0], shapes[1], tf.TensorShape(None)),
        parallel_iterations=1,
    )
    return tf.transpose(bands.concat(), [1, 0, 2, 3])


def _strip(function, pixels, columns, channels):
    """Return the mean of one row of windows, weighted along the row."""
    num_rows = -(-tf.shape(pixels)[1] // columns.stride)
    shape = tf.stack([tf.shape(pixels)[0], num_rows, columns.num_cells, channels])

    def add(j, total):
        left, right = columns.span(j)
        cells = function(pixels[:, :, left:right])
        cells *= (columns.weights(j) / columns.totals(j))[:, None]
        before = left // columns.stride
        after = columns.num_cells - before - tf.shape(cells)[2]
        return j + 1, total + tf.pad(cells, [[0, 0], [0, 0], [before, after], [0, 0]])

    _, total = tf.while_loop(
        lambda j, _: j < columns.count, add, (0, tf.zeros(shape)), parallel_iterations=1
    )
    return total


def _add_at_start(strip, tail):
    """Add the rows of the windows above that reach into a strip."""
    missing = tf.shape(strip)[1] - tf.shape(tail)[1]
    return strip + tf.pad(tail, [[0, 0], [0, missing], [0, 0], [0, 0]])


class _Axis:
    """The windows along one axis of an image.

    Args:
        length: int32 scalar, pixels of the image.
        windows: the windows.
        stride: pixels per cell.
    """

    def __init__(self, length, windows: Windows, stride: int):
        self.length, self.windows, self.stride = length, windows, stride
        beyond = tf.maximum(0, length - windows.size)
        self.last = beyond // windows.multiple * windows.multiple
        self.count = -(-self.last // windows.step) + 1
        self.num_cells = -(-length // stride)

    def start(self, k):
        """Return the first pixel of window k; the last window is moved back into the image."""
        return tf.minimum(k * self.windows.step, self.last)

    def span(self, k):
        """Return the first pixel of window k, and the pixel after its last one."""
        is_last = k == self.count - 1
        start = self.start(k)
        return start, tf.where(is_last, self.length, start + self.windows.size)

    def weights(self, k):
        """Return the weight of each cell of window k, float32 [cells]."""
        start, end = self.span(k)
        pixels = start + self.stride * tf.range(-(-(end - start) // self.stride))
        return self._weight(k, pixels)

    def totals(self, k):
        """Return the sum of the weights of all windows at the cells of window k."""
        start, end = self.span(k)
        return self._total(k, start + self.stride * tf.range(-(-(end - start) // self.stride)))

    def total(self, k, num_cells):
        """Return the sum of the weights of all windows at the first cells of window k."""
        return self._total(k, self.start(k) + self.stride * tf.range(num_cells))

    def cells_until_next(self, k):
        """Return the number of cells of window k before the next window begins."""
        start, end = self.span(k)
        stop = tf.where(k == self.count - 1, end, self.start(k + 1))
        return -(-(stop - start) // self.stride)

    def _weight(self, k, pixels):
        start, end = self.span(k)
        ramp = float(max(1, self.windows.size - self.windows.step))
        left = tf.cast(pixels - start + 1, tf.float32) / ramp
        right = tf.cast(end - pixels, tf.float32) / ramp
        left = tf.where(k == 0, 1.0, tf.clip_by_value(left, 0.0, 1.0))
        right = tf.where(k == self.count - 1, 1.0, tf.clip_by_value(right, 0.0, 1.0))
        return left * right

    def _total(self, k, pixels):
        """Return the sum over the windows that can reach the pixels."""
        reach = -(-self.windows.size // self.windows.step) + 1
        total = tf.zeros(tf.shape(pixels))
        for other in range(-reach, reach + 1):
            index = k + other
            start, end = self.span(index)
            is_there = (index >= 0) & (index < self.count)
            is_inside = is_there & (pixels >= start) & (pixels < end)
            total += tf.where(is_inside, self._weight(index, pixels), 0.0)
        return total
