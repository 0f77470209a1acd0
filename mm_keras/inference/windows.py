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


class State(NamedTuple):
    """The progress of `Strips`.

    Attributes:
        index: int32, the next row of windows.
        tail: float32 [w, B, n, C], rows of cells that the next windows add to.
        first: int32, the number of the first row in `finished`.
        finished: float32 [B, n, w, C], finished rows of cells.
    """

    index: tf.Tensor
    tail: tf.Tensor
    first: tf.Tensor
    finished: tf.Tensor


class Strips:
    """The weighted mean of a function's results in overlapping windows, from top to bottom.

    The weight of a window falls linearly over the overlap, and is 1 at the borders of the image.
    One window is computed after the other.

    Args:
        function: maps pixels [B, h, w, 3] to float32 [B, ceil(h / stride), ceil(w / stride),
            channels].
        pixels: [B, H, W, 3].
        windows: the windows.
        stride: pixels per cell of the results; it divides `windows.multiple`.
        channels: number of channels of the results.

    Attributes:
        computed: the tensors that exist before the first call: none.
        num_rows: int32, the number of rows of cells, ceil(H / stride).
    """

    computed = ()

    def __init__(self, function: Callable, pixels, windows: Windows, stride: int, channels: int):
        self._function, self._pixels, self._channels = function, pixels, channels
        size = tf.shape(pixels)[1:3]
        self._down, self._along = (_Axis(size[k], windows, stride) for k in (0, 1))
        self.num_rows = self._down.num_cells
        self._some_rows = tf.TensorShape([None, None, None, channels])

    def start(self) -> State:
        """Return the state before the first row."""
        shape = [tf.shape(self._pixels)[0], 0, self._along.num_cells, self._channels]
        return State(tf.constant(0), self._no_tail(), tf.constant(0), tf.zeros(tf.stack(shape)))

    def rows(self, state: State, first, end):
        """Compute windows until rows of cells exist, and forget the rows above them.

        Args:
            state: the result of `start` or of an earlier call.
            first: int32, the first row that is needed, now and later.
            end: int32, the row after the last one that is needed.

        Returns:
            The state afterwards, float32 [B, n, w, C], rows that hold `first` to `end`, and the
            number of the first of them.
        """
        num_old = tf.minimum(first - state.first, tf.shape(state.finished)[1])
        start, finished = state.first + num_old, state.finished[:, num_old:]

        def add(i, tail, finished):
            band, tail = self._next(i, tail)
            return i + 1, tail, tf.concat([finished, band], axis=1)

        index, tail, finished = tf.while_loop(
            lambda i, tail, finished: start + tf.shape(finished)[1] < end,
            add,
            (state.index, state.tail, finished),
            shape_invariants=(tf.TensorShape([]), self._some_rows, self._some_rows),
            parallel_iterations=1,
        )
        return State(index, tail, start, finished), finished, start

    def all_rows(self):
        """Return all rows, float32 [B, ceil(H / stride), ceil(W / stride), C]."""

        def add(i, tail, bands):
            band, tail = self._next(i, tail)
            return i + 1, tail, bands.write(i, tf.transpose(band, [1, 0, 2, 3]))

        bands = tf.TensorArray(
            tf.float32, self._down.count, infer_shape=False, element_shape=self._some_rows
        )
        *_, bands = tf.while_loop(
            lambda i, *_: i < self._down.count,
            add,
            (0, self._no_tail(), bands),
            shape_invariants=(tf.TensorShape([]), self._some_rows, tf.TensorShape(None)),
            parallel_iterations=1,
        )
        return tf.transpose(bands.concat(), [1, 0, 2, 3])

    def _no_tail(self):
        shape = [self._along.num_cells, tf.shape(self._pixels)[0], 0, self._channels]
        return tf.zeros(tf.stack(shape))

    def _next(self, i, tail):
        """Return the finished rows of cells of a row of windows, and the rows below them."""
        down, along = self._down, self._along
        start, end = down.span(i)
        pixels, weights = self._pixels[:, start:end], down.shares(i)
        missing = tf.shape(weights)[0] - tf.shape(tail)[2]
        total = tf.pad(tail, [[0, 0], [0, 0], [0, missing], [0, 0]])

        def add(j, total):
            left, right = along.span(j)
            cells = self._function(pixels[:, :, left:right])
            cells *= weights[:, None, None] * along.shares(j)[:, None]
            columns = left // along.stride + tf.range(tf.shape(cells)[2])
            # In place: a sum with padded cells would be three strips of the image at once.
            return j + 1, tf.raw_ops.InplaceAdd(
                x=total, i=columns, v=tf.transpose(cells, [2, 0, 1, 3])
            )

        _, total = tf.while_loop(
            lambda j, _: j < along.count,
            add,
            (0, total),
            shape_invariants=(tf.TensorShape([]), self._some_rows),
            parallel_iterations=1,
        )
        num_finished = down.cells_until_next(i)
        finished = tf.transpose(total[:, :, :num_finished], [1, 2, 0, 3])
        return finished, total[:, :, num_finished:]


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

    def shares(self, k):
        """Return the share of window k in the mean of each of its cells, float32 [cells]."""
        start, end = self.span(k)
        pixels = start + self.stride * tf.range(-(-(end - start) // self.stride))
        return self._weight(k, pixels) / self._total(k, pixels)

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
