"""How sure a difference is: Student's t over seeds, and a paired bootstrap over images."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

_CHUNK = 500  # resamples at a time, so that memory stays small for thousands of images


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its confidence interval; bounds are None where there are none."""

    mean: float
    low: float | None
    high: float | None


def t_cdf(t: float, degrees: int) -> float:
    """P(T <= t) of Student's t with a whole number of degrees of freedom.

    The finite sums of Abramowitz and Stegun, 26.7.3 (odd) and 26.7.4 (even).
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
    """The t with P(T <= t) = probability, by bisection.

    Raises:
        ValueError: the probability is not inside (0, 1), or there is no degree of freedom.
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
    """Mean of independent values and its t interval; a single value has no bounds.

    Give it the paired differences of two arms, one a seed.

    Raises:
        ValueError: there are no values.
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
    """Difference of mIoU, second minus first, with a paired percentile bootstrap over images.

    Each resample draws images with replacement, the same ones for both arms and for all seeds, adds
    up their confusion matrices, and takes the mIoU of each arm and seed; the statistic is the mean
    over seeds of the difference. It tells how much the result hangs on the choice of images, not on
    the seeds.

    Args:
        first, second: integer [num_seeds, num_images, K, K], one confusion matrix an image, rows
            truth, columns prediction.
        level: confidence.
        num_resamples: bootstrap samples.
        seed: of the resampling.

    Returns:
        The difference on all images, 0..1, and its bounds.

    Raises:
        ValueError: the shapes differ or are not as above.
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
    """[num_images, K, K] -> hits and unions, [num_images, K] each: all that an IoU needs."""
    hits = np.diagonal(matrices, axis1=1, axis2=2).astype(float)
    return hits, matrices.sum(axis=1) + matrices.sum(axis=2) - hits


def _difference(pairs, weights):
    """Mean over seeds of mIoU second - first; weights [num_resamples, num_images]."""
    differences = [_miou(second, weights) - _miou(first, weights) for first, second in pairs]
    return np.mean(differences, axis=0)


def _miou(counts, weights):
    """mIoU of each resample; classes that occur in neither truth nor prediction do not count."""
    hits, unions = (weights @ part for part in counts)
    is_there = unions > 0
    ious = np.where(is_there, hits / np.maximum(unions, 1), 0)
    return ious.sum(axis=1) / np.maximum(is_there.sum(axis=1), 1)
