"""Losses on tensors. They do not depend on any model."""

from mm_keras.losses.all_triplets import (
    ClassSums,
    all_triplets,
    class_sums,
    expected_distances,
)
from mm_keras.losses.contrastive import supcon
from mm_keras.losses.embedding import EMBEDDINGS, embed, unit
from mm_keras.losses.nodes import VOID
from mm_keras.losses.pixels import pixel_cross_entropy
from mm_keras.losses.triplet import (
    SCALES,
    edge_distances,
    perceptual_distance,
    squared_distance,
    triplet_loss,
    triplet_margin,
)

__all__ = [
    "EMBEDDINGS",
    "SCALES",
    "VOID",
    "ClassSums",
    "all_triplets",
    "class_sums",
    "edge_distances",
    "embed",
    "expected_distances",
    "perceptual_distance",
    "pixel_cross_entropy",
    "squared_distance",
    "supcon",
    "triplet_loss",
    "triplet_margin",
    "unit",
]
