"""Scores of segmentations, and statistics of embeddings."""

from mm_keras.metrics.bootstrap import ImageIntervals, image_intervals
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
from mm_keras.metrics.probes import balanced_accuracy, linear_probe, nearest_neighbor

__all__ = [
    "BoundaryIoU",
    "ConfusionMatrix",
    "ImageIntervals",
    "ThinRegions",
    "balanced_accuracy",
    "collapsed_share",
    "effective_rank",
    "image_intervals",
    "linear_probe",
    "mean_accuracy",
    "mean_iou",
    "nearest_neighbor",
    "per_class_iou",
    "pixel_accuracy",
    "summary",
]
