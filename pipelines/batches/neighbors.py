"""Pairs of neighboring patches of an image, for the context prediction proxy.

Source: Doersch, Gupta and Efros, "Unsupervised visual representation learning by context
prediction", ICCV 2015, and their released train.py (cdoersch/deepcontext).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pipelines.amounts import check_at_least_one
from pipelines.batches import jigsaw, order, views

COLORS = ("drop", "project", "keep")
"""The ways to hide chromatic aberration, which would reveal the place, see `hide_aberration`."""

NUM_OFFSETS = 8

MIDDLE = 4
"""Number of the middle cell of the 3 x 3 grid, cells counted row by row."""

_RESAMPLED_SHARE, _SMALLEST_SIDE = 0.33, 10  # train.py
_NOISE = 0.01  # of the deviation of the channel that is kept (paper)
_AXIS = np.array([-1.0, 2.0, -1.0])  # green to magenta (paper)
PROJECTION = (np.eye(3) - np.outer(_AXIS, _AXIS) / 6).astype("float32")
"""The matrix that removes the axis from green to magenta, float32 [3, 3]."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """The settings by which two patches are cut out of an image.

    Attributes:
        shorter_side: int. Images whose shorter side is larger are scaled down to it; None keeps
            them.
        patch: int, side of a patch in pixels; 96 in the release.
        gap: int, pixels between two patches on average; 48 in the release.
        jitter: int, largest shift of a patch along each axis; 7 in the release.
        color: one of `COLORS`.

    Raises:
        ValueError: if a value is out of range.

    Example:
        >>> Pair().cell
        144
    """

    shorter_side: int | None = None
    patch: int = 96
    gap: int = 48
    jitter: int = 7
    color: str = "drop"

    def __post_init__(self):
        check_at_least_one(patch=self.patch)
        if not 0 <= 2 * self.jitter <= self.gap:
            raise ValueError(
                f"The jitter must be at most half of the gap, got jitter={self.jitter} and "
                f"gap={self.gap}: expected 0 <= 2 * jitter <= gap."
            )
        if self.shorter_side is not None and self.shorter_side < jigsaw.GRID * self.cell:
            raise ValueError(
                f"shorter_side must be at least {jigsaw.GRID * self.cell}, three patches with "
                f"their gaps, got {self.shorter_side}: raise it, or lower patch and gap."
            )
        if self.color not in COLORS:
            raise ValueError(f"color must be one of {COLORS}, got {self.color!r}.")

    @property
    def cell(self) -> int:
        """Side of a cell of the grid in pixels."""
        return self.patch + self.gap


def batches(
    files: Sequence[str], pair: Pair, order: order.Order, num_bands: int = 3
) -> tf.data.Dataset:
    """Build pairs of a patch and one of its eight neighbors.

    A square of 3 x 3 cells is cut out of an image as for jigsaw puzzles. Images that are too small
    are enlarged. The first patch is from the middle cell, and the second from another one.

    Args:
        files: paths of JPEG, PNG or BMP images; `unlabelled.find` returns them.
        pair: how patches are cut.
        order: which images a step shows, one pair of each image.
        num_bands: number of bands of the images.

    Returns:
        Dataset of {"tiles": uint8 [N, 2, patch, patch, num_bands], "permutation": int32 [N], the
        neighbor 0..7, counted row by row without the middle}, where N is order.num_own. The keys
        are the ones of jigsaw puzzles, whose model takes both.

    Raises:
        ValueError: if there is no file.

    Example:
        >>> batches(files, Pair(patch=32, gap=12, jitter=4), order)  # doctest: +SKIP
    """
    return _batches(files, pair, order, num_bands).prefetch(tf.data.AUTOTUNE)


def cells(neighbors: np.ndarray) -> np.ndarray:
    """Return the grid cell of each neighbor.

    >>> cells(np.arange(8)).tolist()
    [0, 1, 2, 3, 5, 6, 7, 8]
    """
    return neighbors + (neighbors >= MIDDLE)


def _batches(files, pair, step_order, num_bands):
    paths = tf.constant(list(files), tf.string)
    margin = pair.gap // 2 - pair.jitter

    def example(image_id, seed):
        seeds = tf.random.split(seed, 4)
        image = views.read_image(paths[image_id], num_bands)
        square = jigsaw.crop(image, jigsaw.GRID * pair.cell, pair.shorter_side, seed=seeds[0])
        neighbor = views.uniform(0, NUM_OFFSETS - 1, seeds[1])
        shown = tf.stack([MIDDLE, neighbor + tf.cast(neighbor >= MIDDLE, tf.int32)])
        lowest = tf.fill([2, 1, 2], margin)
        offsets = views.uniform(lowest, lowest + 2 * pair.jitter, seeds[2])
        offsets = tf.broadcast_to(offsets, [2, num_bands, 2])  # one shift for all channels
        tiles = tf.unstack(jigsaw.cut_tiles(square, shown, offsets, pair.patch))
        changed = [
            _changed(tile, pair.color, patch_seed)
            for tile, patch_seed in zip(tiles, tf.unstack(tf.random.split(seeds[3])), strict=True)
        ]
        return {"tiles": tf.stack(changed), "permutation": neighbor}

    return order.batches(len(files), example, step_order)


def _changed(patch, color, seed):
    seeds = tf.random.split(seed)
    return hide_aberration(_resampled(patch, seeds[0]), color, seeds[1])


def _resampled(patch, seed):
    """Shrink a share of the patches to a random side and enlarge them again (train.py)."""
    seeds = tf.random.split(seed)
    side = patch.shape[0]
    if side <= _SMALLEST_SIDE:
        return patch

    def resampled():
        small = views.uniform(_SMALLEST_SIDE, side - 1, seeds[0])
        pixels = tf.image.resize(patch, [small, small], antialias=True)
        return views.round_to_uint8(tf.image.resize(pixels, [side, side]))

    is_chosen = tf.random.stateless_uniform([], seeds[1]) < _RESAMPLED_SHARE
    return tf.ensure_shape(tf.cond(is_chosen, resampled, lambda: patch), patch.shape)


def hide_aberration(patch: tf.Tensor, color: str, seed: int | tf.Tensor = 0) -> tf.Tensor:
    """Change the colors of a patch, so that color fringes do not reveal its place in the image.

    "drop": one random channel is kept, and the others get its mean with Gaussian noise of a
    hundredth of its deviation, rounded. "project": the axis from green to magenta is removed.
    "keep": nothing changes.

    Args:
        patch: uint8 [side, side, 3].
        color: one of `COLORS`.
        seed: int or int32 [2].

    Returns:
        uint8 [side, side, 3].
    """
    if color == "keep":
        return patch
    pixels = tf.cast(patch, tf.float32)
    if color == "project":
        return views.round_to_uint8(tf.clip_by_value(tf.matmul(pixels, PROJECTION), 0.0, 255.0))
    seeds = tf.random.split(views.as_seed(seed))
    bands = patch.shape[-1]
    is_kept = tf.range(bands) == views.uniform(0, bands - 1, seeds[0])
    kept = tf.reduce_sum(tf.where(is_kept, pixels, 0.0), axis=-1, keepdims=True)
    noise = _NOISE * tf.math.reduce_std(kept) * tf.random.stateless_normal(patch.shape, seeds[1])
    other = tf.clip_by_value(tf.reduce_mean(kept) + noise, 0.0, 255.0)
    return views.round_to_uint8(tf.where(is_kept, pixels, other))
