"""Scores of segmentations, and statistics of embeddings."""

from mm_keras.metrics.confusion import (
    ConfusionMatrix,
    mean_accuracy,
    mean_iou,
    per_class_iou,
    pixel_accuracy,
    summary,
)
from mm_keras.metrics.contours import BoundaryIoU, ThinRegions
from mm_keras.metrics.embeddings import collapsed_share, effective_rank

__all__ = [
    "BoundaryIoU",
    "ConfusionMatrix",
    "ThinRegions",
    "collapsed_share",
    "effective_rank",
    "mean_accuracy",
    "mean_iou",
    "per_class_iou",
    "pixel_accuracy",
    "summary",
]
