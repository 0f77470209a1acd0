"""Losses on tensors. They do not depend on any model."""

from mm_keras.losses.pixels import VOID, pixel_cross_entropy
from mm_keras.losses.triplet import (
    SCALES,
    edge_distances,
    embed,
    perceptual_distance,
    squared_distance,
    triplet_loss,
    triplet_margin,
)

__all__ = [
    "SCALES",
    "VOID",
    "edge_distances",
    "embed",
    "perceptual_distance",
    "pixel_cross_entropy",
    "squared_distance",
    "triplet_loss",
    "triplet_margin",
]
