"""Confidence intervals of a difference: Student's t over seeds, a paired bootstrap over images."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

_CHUNK = 500  # resamples at a time, to bound memory for thousands of images


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its confidence interval; None where an interval is not defined."""

    mean: float
    low: float | None
    high: float | None


def t_cdf(t: float, degrees: int) -> float:
    """Return P(T <= t) of Student's t distribution.

    Source: the finite sums of Abramowitz and Stegun, 26.7.3 (odd) and 26.7.4 (even).

    Args:
        t: any number.
        degrees: degrees of freedom, a whole number from 1 on.

    >>> t_cdf(0.0, 3)
    0.5
    """
    angle = math.atan(t / math.sqrt(degrees))
    square = math.cos(angle) ** 2
    is_odd = degrees % 2 == 1
    term = math.cos(angle) if is_odd else 1.0
    total = 0.0
    for k in range((degrees - 1) // 2 if is_odd else degrees // 2):
        total += term
        factor = (2 * k + 2) / (2 * k + 3) if is_odd else (2 * k + 1) / (2 * k + 2)
        term *= square * factor
    within = math.sin(angle) * total
    if is_odd:
        within = 2 / math.pi * (angle + within)
    return (1 + within) / 2


def t_quantile(probability: float, degrees: int) -> float:
    """Return the t with P(T <= t) = probability, by bisection.

    Args:
        probability: inside (0, 1).
        degrees: degrees of freedom, a whole number from 1 on.

    Raises:
        ValueError: an argument is out of range.

    >>> round(t_quantile(0.975, 2), 3)
    4.303
    """
    if not 0 < probability < 1 or degrees < 1:
        raise ValueError(
            "Expected a probability inside (0, 1) and at least one degree of freedom. "
            f"Received {probability} and {degrees}."
        )
    low, high = -1.0, 1.0
    while t_cdf(low, degrees) > probability:
        low *= 2
    while t_cdf(high, degrees) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def over_seeds(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return the mean of independent values and its t interval.

    Args:
        values: for example the paired differences of two arms, one per seed.
        level: confidence level, inside (0, 1).

    Returns:
        The interval; a single value has no bounds.

    Raises:
        ValueError: `values` is empty.

    >>> over_seeds([2.5])
    Interval(mean=2.5, low=None, high=None)
    """
    if not len(values):
        raise ValueError("Expected at least one value.")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, None, None)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = t_quantile((1 + level) / 2, len(values) - 1) * error
    return Interval(mean, mean - half, mean + half)


def over_images(
    first: np.ndarray,
    second: np.ndarray,
    level: float = 0.95,
    num_resamples: int = 10000,
    seed: int = 0,
) -> Interval:
    """Return the difference of mIoU, second minus first, with a bootstrap interval over images.

    The bootstrap is paired and uses percentiles. Each resample draws images with replacement, the
    same images for both arms and for all seeds. It adds up their confusion matrices and computes
    the mIoU of each arm and seed. The statistic is the mean difference over seeds. The interval
    measures the influence of the choice of images, not of the seeds.

    Args:
        first: integer [num_seeds, num_images, K, K], one confusion matrix per image; rows are the
            truth, columns the prediction.
        second: matrices of the other arm, of the same shape.
        level: confidence level, inside (0, 1).
        num_resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Returns:
        The difference on all images, -1..1, and its bounds.

    Raises:
        ValueError: the shapes differ, or are not as above.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim != 4 or not all(first.shape[:2]):
        raise ValueError(
            "Expected two arrays [num_seeds, num_images, K, K] of one shape. "
            f"Received {first.shape} and {second.shape}."
        )
    num_images = first.shape[1]
    pairs = [(_counts(a), _counts(b)) for a, b in zip(first, second, strict=True)]
    whole = _difference(pairs, np.ones((1, num_images)))
    rng, resampled = np.random.default_rng(seed), []
    for start in range(0, num_resamples, _CHUNK):
        size = min(_CHUNK, num_resamples - start)
        weights = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size)
        resampled.append(_difference(pairs, weights.astype(float)))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(resampled), [tail, 1 - tail])
    return Interval(float(whole[0]), float(low), float(high))


def _counts(matrices):
    """Return hits and unions, float [num_images, K] each, of matrices [num_images, K, K]."""
    hits = np.diagonal(matrices, axis1=1, axis2=2).astype(float)
    return hits, matrices.sum(axis=1) + matrices.sum(axis=2) - hits


def _difference(pairs, weights):
    """Return the mean difference over seeds, [R], for weights of the images, [R, num_images]."""
    differences = [_miou(second, weights) - _miou(first, weights) for first, second in pairs]
    return np.mean(differences, axis=0)


def _miou(counts, weights):
    """Return the mIoU of each resample; classes in neither truth nor prediction are ignored."""
    hits, unions = (weights @ part for part in counts)
    is_there = unions > 0
    ious = np.where(is_there, hits / np.maximum(unions, 1), 0)
    return ious.sum(axis=1) / np.maximum(is_there.sum(axis=1), 1)
