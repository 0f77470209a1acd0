"""Pixels of label maps, drawn class-balanced, and their labels."""

import keras
from keras import ops

from mm_keras import losses


def inside(size, border: float):
    """Return whether each pixel keeps its distance from all borders, bool [height, width].

    Args:
        size: (height, width).
        border: share of the height and of the width, from 0 to below 1/2.

    Example:

    >>> import numpy as np
    >>> np.array(inside((1, 4), 0.25)).tolist()
    [[False, True, True, False]]
    """

    def is_inside(length):
        place, margin = ops.arange(length), ops.cast(border * length, "int32")
        return ops.logical_and(place >= margin, place < length - margin)

    rows, columns = map(is_inside, size)
    return ops.logical_and(rows[:, None], columns[None, :])


def draw_balanced(labels, num_points: int, num_classes: int, seed: keras.random.SeedGenerator):
    """Draw labelled pixels of each image, all present classes with equal probability.

    No pixel is drawn twice. Where fewer pixels are labelled, the others are void. A rare class
    gives at most the pixels that it has.

    Args:
        labels: class ids or `VOID`, int32 [B, H, W].
        num_points: pixels of an image, P; fewer if an image has fewer.
        num_classes: number of classes, void not counted.
        seed: start of the random numbers.

    Returns:
        int32 [B, P, 2] of (y, x).

    Example: the only pixel of class 1 is among two of four pixels more often than not.

    >>> import numpy as np
    >>> labels = np.array([[[0, 0], [1, 0]]], "int32")
    >>> draw_balanced(labels, 2, 2, keras.random.SeedGenerator(0)).shape.as_list()
    [1, 2, 2]
    """
    batch, height, width = ops.shape(labels)
    flat = ops.reshape(labels, (batch, height * width))
    is_void = flat == losses.VOID
    segment = ops.where(is_void, num_classes, flat)
    segment = segment + ops.arange(batch, dtype="int32")[:, None] * (num_classes + 1)
    segment = ops.reshape(segment, (-1,))
    ones = ops.ones_like(segment, dtype="float32")
    num_segments = batch * (num_classes + 1)
    counts = ops.take(ops.segment_sum(ones, segment, num_segments=num_segments), segment)
    # The largest of log(weight) + Gumbel noise are a weighted draw without replacement.
    uniform = keras.random.uniform(ops.shape(flat), minval=1e-7, seed=seed)
    keys = -ops.log(-ops.log(uniform)) - ops.reshape(ops.log(counts), ops.shape(flat))
    keys = ops.where(is_void, -1e9, keys)
    _, chosen = ops.top_k(keys, min(num_points, height * width))
    return ops.stack([chosen // width, chosen % width], axis=-1)


def labels_at(labels, places):
    """Return the labels [B, P] of maps [B, H, W] at pixels int32 [B, P, 2] of (y, x)."""
    batch, height, width = ops.shape(labels)
    first = ops.arange(batch, dtype="int32")[:, None] * (height * width)
    return ops.take(ops.reshape(labels, (-1,)), first + places[..., 0] * width + places[..., 1])
