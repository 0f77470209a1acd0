"""Filters of a layer from windows of its inputs: k-means centers, principal directions, or noise.

Source: Krähenbühl, Doersch, Donahue and Darrell, "Data-dependent initializations of convolutional
neural networks", ICLR 2016, and their released magic_init.py. The release clusters the responses of
random filters. Here the samples are the windows of the inputs themselves.
"""

import math
from typing import NamedTuple

import keras
import numpy as np

DIRECTIONS = ("kmeans", "pca", "random")
"""The kinds of filters, see `filters`."""

NUM_SAMPLES = 10_000
"""Largest number of windows from which the filters of a layer are made. Source: ours."""

NUM_PASSES = 10
"""Largest number of passes of k-means. Source: ours."""

_SMALLEST = 1e-6  # of the largest eigenvalue; the release takes 1e-6 itself, which is below noise
_RIDGE = 1e-3  # added to an eigenvalue before its root (magic_init.py)


def kernel(
    layer: keras.layers.Layer, inputs: np.ndarray, directions: str, rng: np.random.Generator
) -> np.ndarray:
    """Return a kernel of filters from the inputs of a layer.

    The filters of a group come from the inputs of this group.

    Args:
        layer: a built Conv2D, DepthwiseConv2D or Dense.
        inputs: float [N, H, W, C], or [N, ..., C] for Dense.
        directions: one of `DIRECTIONS`.
        rng: source of random numbers.

    Returns:
        float64, in the shape of the layer's kernel.
    """
    shape, groups = layer.kernel.shape, getattr(layer, "groups", 1)
    found = windows(layer, inputs, rng)
    axis = -1
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        groups, axis = shape[2], 2
    num_filters = shape[-1] if axis == 2 else shape[-1] // groups
    kernels = []
    for part in np.split(found, groups, axis=-1):
        rows = filters(part.reshape(len(part), -1), num_filters, directions, rng)
        kernels.append(np.moveaxis(rows.reshape(num_filters, *part.shape[1:]), 0, -1))
    return np.concatenate(kernels, axis=axis).reshape(shape)


def windows(layer: keras.layers.Layer, inputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the windows of the inputs at random positions of a layer.

    The inputs are padded as the layer does it. A dense layer has windows of one cell.

    Args:
        layer, inputs, rng: see `kernel`.

    Returns:
        float [N, kh, kw, C], at most `NUM_SAMPLES` windows.
    """
    if isinstance(layer, keras.layers.Dense):
        cells = inputs.reshape(-1, 1, 1, inputs.shape[-1])
        return _floats(cells[_chosen(len(cells), rng)])
    sides = inputs.shape[1:3], layer.kernel_size, layer.strides, layer.dilation_rate
    rows, columns = (_axis(*side, layer.padding) for side in zip(*sides, strict=True))
    padded = np.pad(inputs, [(0, 0), rows.padding, columns.padding, (0, 0)])
    views = np.lib.stride_tricks.sliding_window_view(
        padded, (rows.reach, columns.reach), axis=(1, 2)
    )
    counts = (len(inputs), rows.count, columns.count)
    image, y, x = np.unravel_index(_chosen(math.prod(counts), rng), counts)
    found = views[image, y * rows.stride, x * columns.stride]
    found = found[..., :: layer.dilation_rate[0], :: layer.dilation_rate[1]]
    return _floats(np.moveaxis(found, 1, -1))


class _Axis(NamedTuple):
    """Windows along one axis: zeros before and after it, their number, stride and length."""

    padding: tuple[int, int]
    count: int
    stride: int
    reach: int


def _axis(length, size, stride, rate, padding) -> _Axis:
    reach = (size - 1) * rate + 1
    if padding == "valid":
        return _Axis((0, 0), (length - reach) // stride + 1, stride, reach)
    count = -(-length // stride)
    total = max((count - 1) * stride + reach - length, 0)
    return _Axis((total // 2, total - total // 2), count, stride, reach)


def _chosen(number, rng):
    return np.sort(rng.choice(number, min(number, NUM_SAMPLES), replace=False))


def _floats(values):
    return values if values.dtype == "float64" else values.astype("float32")


def filters(
    samples: np.ndarray, num_filters: int, directions: str, rng: np.random.Generator
) -> np.ndarray:
    """Return filters for a layer whose inputs are like the samples.

    "kmeans": `kmeans` from random samples. "pca": `principal`, and after the last direction
    Gaussian filters. "random": Gaussian filters. They also replace k-means if there are fewer
    samples than filters, as in the release.

    Args:
        samples: float [num_samples, D], flattened windows of the layer's input.
        num_filters: number of filters.
        directions: one of `DIRECTIONS`.
        rng: source of random numbers.

    Returns:
        float64 [num_filters, D]. Their scale is arbitrary.

    Raises:
        ValueError: `directions` is unknown.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> filters(rng.normal(size=(50, 3)), 2, "kmeans", rng).shape
    (2, 3)
    """
    if directions not in DIRECTIONS:
        raise ValueError(f"directions must be one of {DIRECTIONS}. Received {directions!r}.")
    num_samples, size = samples.shape
    gaussian = rng.normal(size=(num_filters, size))
    if directions == "random" or (directions == "kmeans" and num_samples < num_filters):
        return gaussian
    if directions == "kmeans":
        return kmeans(samples, rng.choice(num_samples, num_filters, replace=False))
    found = principal(samples, num_filters)
    return np.concatenate([found, gaussian[len(found) :]])


def principal(samples: np.ndarray, num_filters: int) -> np.ndarray:
    """Return the principal directions of samples, divided by the root of their eigenvalues.

    The eigenvalues belong to the scatter matrix, which is not divided by the number of samples.
    Directions of less than a millionth of the largest eigenvalue are noise and left out.

    Args:
        samples: float [num_samples, D].
        num_filters: largest number of directions.

    Returns:
        float64 [n, D], n <= num_filters, the largest eigenvalue first.
    """
    centered = _centered(samples)
    values, vectors = np.linalg.eigh(_scatter(centered))
    values, vectors = values[::-1][:num_filters], vectors[:, ::-1][:, :num_filters]
    is_used = values > max(_SMALLEST * values[0], 0.0)
    return (vectors[:, is_used] / np.sqrt(values[is_used] + _RIDGE)).T


def kmeans(samples: np.ndarray, starts: np.ndarray, num_passes: int = NUM_PASSES) -> np.ndarray:
    """Return the centers of k-means on whitened samples of unit length, as filters.

    Each filter is scaled to responses of standard deviation 1.

    Args:
        samples: float [num_samples, D].
        starts: int [num_filters], the samples that are the first centers.
        num_passes: largest number of passes.

    Returns:
        float64 [num_filters, D].
    """
    whitening = principal(samples, len(starts))
    centered = _centered(samples)
    rows = centered @ whitening.T.astype(centered.dtype)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(rows.dtype).tiny)
    found = clusters(rows, rows[starts], num_passes) @ whitening
    deviation = (centered @ found.T.astype(centered.dtype)).std(axis=0)
    return found / np.maximum(deviation, np.finfo(rows.dtype).tiny)[:, None]


def clusters(rows: np.ndarray, centers: np.ndarray, num_passes: int) -> np.ndarray:
    """Return the centers of k-means after Lloyd's passes, which end once no row changes its center.

    A center without rows keeps its place, and so does a center whose rows cancel out.

    Args:
        rows: float [num_rows, D].
        centers: float [num_centers, D], the first centers.
        num_passes: largest number of passes.

    Returns:
        float [num_centers, D].
    """
    labels = None
    for _ in range(num_passes):
        scores = rows @ centers.T - 0.5 * np.sum(centers**2, axis=1)
        before, labels = labels, np.argmax(scores, axis=1)
        if before is not None and np.array_equal(before, labels):
            break
        order = np.argsort(labels, kind="stable")
        found, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
        means = np.add.reduceat(rows[order], starts, axis=0) / counts[:, None]
        is_point = np.linalg.norm(means, axis=1) > 1e-6
        centers = centers.copy()
        centers[found[is_point]] = means[is_point]
    return centers


def _centered(samples):
    return samples - samples.mean(axis=0, dtype="float64").astype(samples.dtype)


def _scatter(centered):
    """Return the scatter matrix, float64 [D, D], summed over blocks of samples."""
    blocks = np.array_split(centered, -(-len(centered) // 4096))
    return sum(block.T @ block for block in (block.astype("float64") for block in blocks))
