"""Reductions that the losses share."""

from keras import ops


def mean_where(values, mask):
    """Mean of `values` where `mask` holds, 0 if it holds nowhere."""
    count = ops.sum(ops.cast(mask, "float32"))
    return ops.sum(ops.where(mask, values, 0.0)) / ops.maximum(count, 1.0)
