"""Dense maps of a hypercolumn network, computed in bands of rows."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

from keras import ops

from mm_keras.layers import Hypercolumn

# Points of a dense map that are computed at a time: 8 MiB of 1024 float32 units. That fits a cache
# and keeps matrix products efficient, while ten bands in flight (TensorFlow's default for loops)
# stay below 100 MiB.
POINTS_PER_BAND = 2048


_at_once = contextvars.ContextVar("at_once", default=False)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Compute dense maps without a loop inside the block, for runtimes without loops over lists.

    The hidden layer then exists for a whole image.
    """
    token = _at_once.set(True)
    try:
        yield
    finally:
        _at_once.reset(token)


def is_at_once() -> bool:
    """Return whether the caller is inside `at_once`."""
    return _at_once.get()


def dense_map(hypercolumn: Hypercolumn, maps: dict, size, stride: int, head: Callable):
    """Apply a network to the hypercolumn at every stride-th pixel.

    The result is computed in bands of rows, so the hidden layer never exists for a whole image.

    Args:
        hypercolumn: at least one of its taps is as dense as the result.
        maps: {tap name: [B, h, w, C]}.
        size: (height, width) of the images.
        stride: image pixels per cell of the result.
        head: function from the hypercolumn's linear responses [B, R, w, units] at R rows of cells
            to [B, R, w, channels].

    Returns:
        [B, ceil(height / stride), ceil(width / stride), channels] in the dtype of `head`'s result.
        Cell (i, j) lies on pixel (i * stride, j * stride).
    """
    # ONNX rounds the quotient of a negative number up, so no number is negative here.
    height, width = ((length + stride - 1) // stride for length in size)
    band = POINTS_PER_BAND // width + 1  # rows
    num_bands = (height + band - 1) // band
    prepared = hypercolumn.prepare(maps, (height, width), stride)
    if is_at_once():
        return head(hypercolumn.rows(prepared, ops.arange(height, dtype="int32"), stride))

    def band_result(k):
        rows = k * band + ops.arange(band, dtype="int32")
        return head(hypercolumn.rows(prepared, rows, stride))

    bands = ops.map(band_result, ops.arange(num_bands, dtype="int32"))
    stacked = ops.transpose(bands, (1, 0, 2, 3, 4))
    batch, *_, channels = ops.shape(stacked)
    return ops.reshape(stacked, (batch, -1, width, channels))[:, :height]
