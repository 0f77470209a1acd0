"""Losses on tensors. They do not depend on any model."""

from mm_keras.losses.all_triplets import (
    ClassSums,
    all_triplets,
    class_sums,
    expected_distances,
)
from mm_keras.losses.class_balance import class_weights
from mm_keras.losses.contrastive import multi_similarity, supcon
from mm_keras.losses.embedding import EMBEDDINGS, embed, unit
from mm_keras.losses.fine_tuning import PIXEL_LOSSES
from mm_keras.losses.hubs import normalized_softmax, proxy_anchor
from mm_keras.losses.nodes import VOID
from mm_keras.losses.pixel_contrast import pixel_contrast
from mm_keras.losses.pixels import focal, pixel_cross_entropy
from mm_keras.losses.regions import lovasz_softmax, soft_dice
from mm_keras.losses.sorted_triplets import all_triplets_hinge, triplet_semihard
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
    "PIXEL_LOSSES",
    "SCALES",
    "VOID",
    "ClassSums",
    "all_triplets",
    "all_triplets_hinge",
    "class_sums",
    "class_weights",
    "edge_distances",
    "embed",
    "expected_distances",
    "focal",
    "lovasz_softmax",
    "multi_similarity",
    "normalized_softmax",
    "perceptual_distance",
    "pixel_contrast",
    "pixel_cross_entropy",
    "proxy_anchor",
    "soft_dice",
    "squared_distance",
    "supcon",
    "triplet_loss",
    "triplet_margin",
    "triplet_semihard",
    "unit",
]
