"""Confidence intervals of scores over the choice of images: a percentile bootstrap."""

from typing import NamedTuple

import numpy as np

NUM_RESAMPLES = 2000
"""Resamples of an interval (ours)."""

_CHUNK = 500  # resamples at a time, to bound memory for thousands of images


class ImageIntervals(NamedTuple):
    """Bounds of the scores over images.

    Attributes:
        miou: float64 [2], low and high; NaN if no class has pixels.
        per_class_iou: float64 [K, 2]; NaN for a class without pixels.
    """

    miou: np.ndarray
    per_class_iou: np.ndarray


def image_intervals(
    confusions, level: float = 0.95, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> ImageIntervals:
    """Return bootstrap intervals of mIoU and IoU over the choice of images.

    Each resample draws images with replacement and adds up their confusion matrices. A class that a
    resample does not contain is left out of its mIoU, and the resample out of the interval of the
    class. The intervals cover neither seeds nor dependence between images, such as frames of one
    film.

    Args:
        confusions: integer [num_images, K, K], one matrix per image; rows are the truth.
        level: confidence level, inside (0, 1).
        num_resamples: number of resamples.
        seed: seed of the resampling.

    Raises:
        ValueError: if `confusions` has another shape, or an argument is out of range.

    Example:

    >>> one = np.array([[[8, 2], [0, 10]]])
    >>> image_intervals(one).per_class_iou[0].tolist()  # one image: every resample is equal
    [0.8, 0.8]
    """
    confusions = np.asarray(confusions)
    if confusions.ndim != 3 or confusions.shape[1] != confusions.shape[2] or not confusions.size:
        raise ValueError(f"Expected matrices [num_images, K, K]. Received {confusions.shape}.")
    if not 0 < level < 1 or num_resamples < 1:
        raise ValueError(
            "Expected a level inside (0, 1) and at least one resample. "
            f"Received {level} and {num_resamples}."
        )
    ious = np.concatenate(list(_resampled(confusions, num_resamples, seed)))
    mious = np.array([_mean(row) for row in ious])
    tail = (1 - level) / 2
    bounds = [_quantiles(column, tail) for column in (mious, *ious.T)]
    return ImageIntervals(bounds[0], np.stack(bounds[1:]))


def _resampled(confusions, num_resamples, seed):
    """Yield the IoU of each class, [R, K], in chunks; NaN where a resample has no pixel of it."""
    hits = np.diagonal(confusions, axis1=1, axis2=2).astype(float)
    unions = confusions.sum(axis=1) + confusions.sum(axis=2) - hits
    rng, num_images = np.random.default_rng(seed), len(confusions)
    for start in range(0, num_resamples, _CHUNK):
        size = min(_CHUNK, num_resamples - start)
        weights = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size)
        union = weights @ unions
        yield np.where(union > 0, (weights @ hits) / np.maximum(union, 1), np.nan)


def _mean(values):
    values = values[~np.isnan(values)]
    return values.mean() if values.size else np.nan


def _quantiles(values, tail):
    values = values[~np.isnan(values)]
    return np.quantile(values, [tail, 1 - tail]) if values.size else np.full(2, np.nan)
