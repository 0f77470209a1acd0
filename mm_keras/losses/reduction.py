"""Reductions that the losses share."""

from keras import ops


def mean_where(values, mask):
    """Return the mean of `values` where `mask` is True, 0 if it is nowhere True."""
    count = ops.sum(ops.cast(mask, "float32"))
    return ops.sum(ops.where(mask, values, 0.0)) / ops.maximum(count, 1.0)
