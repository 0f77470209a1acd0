"""Inputs of the jigsaw proxy (Noroozi & Favaro, ECCV 2016): shuffled tiles of unlabelled images.

A square crop of an image is a grid of 3 x 3 cells. From each cell a smaller tile is cut at a random
place, so that edges which continue from tile to tile cannot reveal the order. The network predicts
which of a set of permutations shuffled the tiles.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pipelines.amounts import check_at_least_one
from pipelines.batches import order, views
from pipelines.batches.permutations import check_permutations

GRID = 3
NUM_TILES = GRID**2
PLACEMENTS = ("random", "center")


@dataclasses.dataclass(frozen=True)
class Puzzle:
    """The settings by which tiles are cut out of an image.

    Attributes:
        shorter_side: int, at least 3 x cell. Images whose shorter side is larger are scaled down to
            it. None keeps all images as they are.
        cell: int, side of a grid cell in pixels.
        tile: int, side of a tile in pixels. Tiles of neighboring cells are up to 2 (cell - tile)
            pixels apart, cell - tile on average.
        placement: "random" or "center", the place of the crop in the image.
        channel_jitter: int. Each color channel of a tile is shifted by another 0..channel_jitter
            pixels down and right, against chromatic aberration (2 in the authors' later code). The
            tile itself is then shifted by 0..cell - tile - channel_jitter, so it stays in its cell.
        gray_share: float in 0..1, share of puzzles whose tiles are gray, the mean of their
            channels; 0.3 in the paper.

    Raises:
        ValueError: if a value is out of range.

    Example:
        >>> Puzzle(cell=85, placement="center").tile
        64
        >>> Puzzle(placement="corner")
        Traceback (most recent call last):
        ValueError: Unknown placement 'corner': expected one of ('random', 'center').
    """

    shorter_side: int | None = 256
    cell: int = 75
    tile: int = 64
    placement: str = "random"
    channel_jitter: int = 0
    gray_share: float = 0.3

    def __post_init__(self):
        check_at_least_one(cell=self.cell, tile=self.tile)
        if not 0 <= self.channel_jitter <= self.cell - self.tile:
            raise ValueError(
                f"A tile with its jitter must fit into its cell, got tile={self.tile}, "
                f"channel_jitter={self.channel_jitter} and cell={self.cell}: expected "
                "0 <= channel_jitter <= cell - tile."
            )
        smallest = GRID * self.cell
        if self.shorter_side is not None and self.shorter_side < smallest:
            raise ValueError(
                f"shorter_side must be at least {GRID} cells, {smallest} pixels, got "
                f"{self.shorter_side}: raise it or lower cell and tile."
            )
        if self.placement not in PLACEMENTS:
            raise ValueError(f"Unknown placement {self.placement!r}: expected one of {PLACEMENTS}.")
        if not 0 <= self.gray_share <= 1:
            raise ValueError(f"gray_share must lie in 0..1, got {self.gray_share}.")


GEOMETRIES = {"paper": Puzzle(), "release": Puzzle(cell=85, placement="center")}
"""Published geometries. paper: a random crop of 225 pixels, tiles 0..11 pixels from the corner of
their cell. release: the central crop of 255 pixels, tiles 0..21 pixels from the corner (the
authors' generate_jps_dataset.cpp and data_transformer.cpp).
"""


def batches(
    files: Sequence[str],
    permutations: np.ndarray,
    puzzle: Puzzle,
    order: order.Order,
    num_bands: int = 3,
) -> tf.data.Dataset:
    """Build the data of the jigsaw proxy: the shuffled tiles of some images.

    An image is scaled down to the shorter side if it is larger. A crop of 3 x cell pixels is taken
    from it, and from each cell of the crop a tile at a uniform place. Images that are too small for
    the crop are enlarged until it just fits. Slot i receives the tile of grid cell perm[i], cells
    counted row by row, for a uniform permutation of the set.

    Args:
        files: paths of JPEG, PNG or BMP images; `unlabelled.find` returns them.
        permutations: integer [P, 9] of 0..8, see `permutations.permutation_set`.
        puzzle: how tiles are cut.
        order: which images a step shows, one puzzle of each image.
        num_bands: number of bands of the images.

    Returns:
        Dataset of {"tiles" uint8 [N, 9, tile, tile, num_bands], "permutation" int32 [N], an index
        into `permutations`}, where N is order.num_own.

    Raises:
        ValueError: if `permutations` is not a set of permutations, or if there is no file.

    Example:
        >>> from pipelines.batches.permutations import permutation_set
        >>> batches(  # doctest: +SKIP
        ...     files, permutation_set(100), GEOMETRIES["paper"], order.Order(num_images=32)
        ... )
    """
    return _batches(files, permutations, puzzle, order, num_bands).prefetch(tf.data.AUTOTUNE)


def _batches(files, permutations, puzzle, step_order, num_bands):
    orders = tf.constant(check_permutations(permutations))
    paths = tf.constant(list(files), tf.string)
    cell, tile = puzzle.cell, puzzle.tile

    def example(image_id, seed):
        seeds = tf.random.split(seed, 4)
        image = views.read_image(paths[image_id], num_bands)
        square = crop(image, GRID * cell, puzzle.shorter_side, puzzle.placement, seeds[0])
        permutation = views.uniform(0, orders.shape[0] - 1, seeds[1])
        offsets = draw_offsets(cell - tile, puzzle.channel_jitter, seeds[2], num_bands)
        tiles = cut_tiles(square, orders[permutation], offsets, tile)
        is_gray = tf.random.stateless_uniform([], seeds[3]) < puzzle.gray_share
        tiles = tf.cond(is_gray, lambda: gray(tiles), lambda: tiles)
        return {"tiles": tiles, "permutation": permutation}

    return order.batches(len(files), example, step_order)


def crop(
    image: tf.Tensor,
    side: int,
    shorter_side: int | None = None,
    placement: str = "random",
    seed: int | tf.Tensor = 0,
) -> tf.Tensor:
    """Scale an image and cut a square out of it.

    Args:
        image: uint8 [height, width, bands].
        side: int, side of the square in pixels.
        shorter_side: int, images whose shorter side is larger are scaled down to it. None keeps all
            images as they are. Images whose shorter side is below `side` are scaled up to `side`.
        placement: "random" (uniform) or "center".
        seed: int or int32 [2].

    Returns:
        uint8 [side, side, bands]. Scaling is bilinear with antialiasing.

    Example:
        >>> crop(tf.zeros([5, 7, 3], tf.uint8), side=9).shape
        TensorShape([9, 9, 3])
    """
    size = tf.shape(image)[:2]
    view = views.View(side, shorter_side, mirror=False, enlarge=True)
    drawn = views.draw_unlabelled_view(size, view, seed)
    if placement == "center":
        drawn = drawn._replace(origin=(drawn.size - side) // 2)
    part, _ = views.view_image(image, drawn)
    return tf.ensure_shape(part, [side, side, image.shape[-1]])


def draw_offsets(
    jitter: int, channel_jitter: int, seed: int | tf.Tensor, num_bands: int = 3
) -> tf.Tensor:
    """Draw the offsets of the tiles from the corners of their cells.

    Args:
        jitter: int, largest offset in pixels, at least channel_jitter.
        channel_jitter: int, largest share of the offset that each channel draws separately.
        seed: int or int32 [2].
        num_bands: number of channels.

    Returns:
        int32 [9, num_bands, 2], (y, x) for each slot and channel, in 0..jitter.

    Example:
        >>> draw_offsets(jitter=11, channel_jitter=0, seed=1).shape
        TensorShape([9, 3, 2])
    """
    seeds = tf.random.split(views.as_seed(seed))
    lowest = tf.zeros([NUM_TILES, 1, 2], tf.int32)
    shared = views.uniform(lowest, lowest + (jitter - channel_jitter), seeds[0])
    lowest = tf.zeros([NUM_TILES, num_bands, 2], tf.int32)
    return shared + views.uniform(lowest, lowest + channel_jitter, seeds[1])


def cut_tiles(square: tf.Tensor, order: tf.Tensor, offsets: tf.Tensor, tile: int) -> tf.Tensor:
    """Cut tiles of a puzzle.

    Args:
        square: uint8 [side, side, bands], side divisible by 3.
        order: int32 [n]; slot i receives grid cell order[i]. A whole puzzle has 9.
        offsets: int32 [n, bands, 2], (y, x) of each slot's channels from the corner of their cell,
            in 0..side / 3 - tile.
        tile: side of the tiles in pixels.

    Returns:
        uint8 [n, tile, tile, bands].

    Example:
        >>> square = tf.zeros([9, 9, 3], tf.uint8)
        >>> cut_tiles(square, tf.range(9), tf.zeros([9, 3, 2], tf.int32), tile=2).shape
        TensorShape([9, 2, 2, 3])
    """
    cell = square.shape[0] // GRID
    corners = cell * tf.stack([order // GRID, order % GRID], axis=-1)[:, None] + offsets
    # Slices in Python loops: tf.gather of pixels takes several times as long. No transpose: oneDNN
    # prints an error line for integers.
    planes = tf.unstack(square, axis=-1)
    tiles = [
        tf.stack(
            [
                tf.slice(plane, corner, [tile, tile])
                for plane, corner in zip(planes, tf.unstack(channels), strict=True)
            ],
            axis=-1,
        )
        for channels in tf.unstack(corners)
    ]
    return tf.stack(tiles)


def gray(tiles: tf.Tensor) -> tf.Tensor:
    """Replace the channels, uint8 [..., bands], by their mean.

    Example:
        >>> gray(tf.constant([[3, 6, 9]], tf.uint8)).numpy()
        array([[6, 6, 6]], dtype=uint8)
    """
    mean = tf.reduce_mean(tf.cast(tiles, tf.float32), axis=-1, keepdims=True)
    return tf.repeat(views.round_to_uint8(mean), tiles.shape[-1], axis=-1)
