"""Layers that the networks share: input pixels, Caffe's layers, hypercolumns and interpolation."""

from mm_keras.layers.caffe import (
    AccumulatedBatchNormalization,
    CeilMaxPooling,
    GroupedConv2D,
    LocalResponseNormalization,
    xavier,
)
from mm_keras.layers.hypercolumn import (
    Hypercolumn,
    cell_weights,
    gather_points,
    interpolate,
    interpolation_matrix,
    resize_aligned,
    upsample,
)
from mm_keras.layers.normalization import BatchNormalization, set_to_statistics
from mm_keras.layers.pixels import InputAdapter
from mm_keras.layers.replicas import inner_layers, synchronize

__all__ = [
    "AccumulatedBatchNormalization",
    "BatchNormalization",
    "CeilMaxPooling",
    "GroupedConv2D",
    "Hypercolumn",
    "InputAdapter",
    "LocalResponseNormalization",
    "cell_weights",
    "gather_points",
    "inner_layers",
    "interpolate",
    "interpolation_matrix",
    "resize_aligned",
    "set_to_statistics",
    "synchronize",
    "upsample",
    "xavier",
]
