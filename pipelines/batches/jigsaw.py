"""Inputs of the jigsaw proxy (Noroozi & Favaro, ECCV 2016): shuffled tiles of unlabelled images.

A square crop of an image is a grid of 3 x 3 cells; from each cell a smaller tile is cut at a random
place, so that edges that run on from tile to tile cannot give the answer away. Which of a set of
permutations shuffled the tiles is what the network has to tell.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pipelines.batches import order, views
from pipelines.batches.permutations import check_permutations

GRID = 3
NUM_TILES = GRID**2

GEOMETRIES = {
    "paper": {"shorter_side": 256, "cell": 75, "tile": 64, "placement": "random"},
    "release": {"shorter_side": 256, "cell": 85, "tile": 64, "placement": "center"},
}
"""Arguments of `batches`. paper: a random crop of 225 pixels, tiles 0..11 pixels from the corner of
their cell. release: the central crop of 255 pixels, tiles 0..21 pixels from it (the authors'
generate_jps_dataset.cpp and data_transformer.cpp).
"""

PLACEMENTS = ("random", "center")


def batches(
    files: Sequence[str],
    *,
    num_images: int,
    permutations: np.ndarray,
    shorter_side: int | None = 256,
    cell: int = 75,
    tile: int = 64,
    placement: str = "random",
    channel_jitter: int = 0,
    gray_share: float = 0.3,
    share: order.Share = order.WHOLE,
    seed: int | tf.Tensor = 0,
    start_step: int | tf.Tensor = 0,
    num_steps: int | tf.Tensor | None = None,
    num_parallel: int = tf.data.AUTOTUNE,
) -> tf.data.Dataset:
    """Builds the data of the jigsaw proxy: each step, the shuffled tiles of some images.

    An image is scaled down to the shorter side if it is larger, a crop of 3 x cell pixels is taken
    from it, and from each cell of the crop a tile at a uniform place. Images that are too small for
    the crop are enlarged to just fit. Slot i receives the tile of grid cell perm[i], cells counted
    row by row, for a uniform permutation of the set.

    Args:
        files: paths of JPEG, PNG or BMP images, `unlabelled.find` has them.
        num_images: puzzles of a step, one of each image.
        permutations: integer [P, 9] of 0..8, see `permutations.permutation_set`.
        shorter_side: images whose shorter side is larger are scaled down to it, at least 3 x cell;
            None for the images as they are.
        cell: side of a grid cell in pixels.
        tile: side of a tile in pixels. Tiles of neighboring cells are up to 2 (cell - tile) pixels
            apart, cell - tile on average.
        placement: of the crop in the image, "random" or "center".
        channel_jitter: each color channel of a tile is shifted by another 0..channel_jitter pixels
            down and right, against chromatic aberration (2 in the authors' later code); the tile
            itself then by 0..cell - tile - channel_jitter, so that it stays in its cell.
        gray_share: share of puzzles whose tiles are gray, the mean of their channels; 0.3 in the
            paper.
        share: the part of each step's images to yield, for one of several replicas.
        seed: int or int32 [2].
        start_step: the first step to yield; a scalar tensor inside of another dataset.
        num_steps: the step to stop before, so num_steps - start_step elements come; None for no
            end.
        num_parallel: images worked on at once; it changes the speed, not the data.

    Returns:
        Dataset of {"tiles" uint8 [num_images, 9, tile, tile, 3], "permutation" int32 [num_images],
        an index into `permutations`}.

    Raises:
        ValueError: an argument is out of range, or there is no file.
    """
    _check(shorter_side, cell, tile, placement, channel_jitter, gray_share)
    orders = tf.constant(check_permutations(permutations))
    paths = tf.constant(list(files), tf.string)

    def example(image_id, seed):
        seeds = tf.random.split(seed, 4)
        image = views.read_image(paths[image_id])
        square = crop(image, GRID * cell, shorter_side, placement, seeds[0])
        permutation = views.uniform(0, orders.shape[0] - 1, seeds[1])
        offsets = draw_offsets(cell - tile, channel_jitter, seeds[2])
        tiles = cut_tiles(square, orders[permutation], offsets, tile)
        is_gray = tf.random.stateless_uniform([], seeds[3]) < gray_share
        tiles = tf.cond(is_gray, lambda: gray(tiles), lambda: tiles)
        return {"tiles": tiles, "permutation": permutation}

    elements = order.batches(
        len(files),
        example,
        num_images=num_images,
        share=share,
        seed=seed,
        start_step=start_step,
        num_steps=num_steps,
        num_parallel=num_parallel,
    )
    return elements.prefetch(tf.data.AUTOTUNE)


def crop(
    image: tf.Tensor,
    side: int,
    shorter_side: int | None = None,
    placement: str = "random",
    seed: int | tf.Tensor = 0,
) -> tf.Tensor:
    """Scales an image and takes a square of it.

    Args:
        image: uint8 [height, width, 3].
        side: of the square in pixels.
        shorter_side: images whose shorter side is larger are scaled down to it; None leaves all as
            they are. Images whose shorter side is below `side` are scaled up to just that.
        placement: "random", uniform, or "center".
        seed: int or int32 [2].

    Returns:
        uint8 [side, side, 3]. Scaling is bilinear with antialiasing.
    """
    size = tf.shape(image)[:2]
    view = views.draw_unlabelled_view(size, side, shorter_side, False, seed, enlarge=True)
    if placement == "center":
        view = view._replace(origin=(view.size - side) // 2)
    part, _ = views.view_image(image, view)
    return tf.ensure_shape(part, [side, side, 3])


def draw_offsets(jitter: int, channel_jitter: int, seed: int | tf.Tensor) -> tf.Tensor:
    """Draws where in their cells the tiles begin.

    Args:
        jitter: largest offset in pixels, at least channel_jitter.
        channel_jitter: the part of it that each channel draws for itself.
        seed: int or int32 [2].

    Returns:
        int32 [9, 3, 2], (y, x) for each slot and channel, in 0..jitter.
    """
    seeds = tf.random.split(views.as_seed(seed))
    lowest = tf.zeros([NUM_TILES, 1, 2], tf.int32)
    shared = views.uniform(lowest, lowest + (jitter - channel_jitter), seeds[0])
    lowest = tf.zeros([NUM_TILES, 3, 2], tf.int32)
    return shared + views.uniform(lowest, lowest + channel_jitter, seeds[1])


def cut_tiles(square: tf.Tensor, order: tf.Tensor, offsets: tf.Tensor, tile: int) -> tf.Tensor:
    """Cuts the nine tiles of a puzzle.

    Args:
        square: uint8 [side, side, 3], side divisible by 3.
        order: int32 [9]; slot i receives grid cell order[i].
        offsets: int32 [9, 3, 2], (y, x) of each slot's channels from the corner of their cell, in
            0..side / 3 - tile.
        tile: side of the tiles in pixels.

    Returns:
        uint8 [9, tile, tile, 3].
    """
    cell = square.shape[0] // GRID
    corners = cell * tf.stack([order // GRID, order % GRID], axis=-1)[:, None] + offsets
    planes = tf.transpose(square, [2, 0, 1])
    # Slices in Python loops: tf.gather of pixels takes several times as long.
    tiles = [
        tf.slice(planes[channel], corner, [tile, tile])
        for channels in tf.unstack(corners)
        for channel, corner in enumerate(tf.unstack(channels))
    ]
    stacked = tf.reshape(tf.stack(tiles), [NUM_TILES, 3, tile, tile])
    return tf.transpose(stacked, [0, 2, 3, 1])


def gray(tiles: tf.Tensor) -> tf.Tensor:
    """The mean of the three channels, uint8 [..., 3], in all three of them."""
    mean = tf.reduce_mean(tf.cast(tiles, tf.float32), axis=-1, keepdims=True)
    return tf.repeat(views.round_to_uint8(mean), 3, axis=-1)


def _check(shorter_side, cell, tile, placement, channel_jitter, gray_share):
    order.check_at_least_one(cell=cell, tile=tile)
    if not 0 <= channel_jitter <= cell - tile:
        raise ValueError(
            f"A tile with its jitter must fit into its cell, got tile={tile}, "
            f"channel_jitter={channel_jitter} and cell={cell}: expected 0 <= channel_jitter <= "
            "cell - tile."
        )
    if shorter_side is not None and shorter_side < GRID * cell:
        raise ValueError(
            f"shorter_side must be at least {GRID} cells, {GRID * cell} pixels, got "
            f"{shorter_side}: raise it or lower cell and tile."
        )
    if placement not in PLACEMENTS:
        raise ValueError(f"Unknown placement {placement!r}: expected one of {PLACEMENTS}.")
    if not 0 <= gray_share <= 1:
        raise ValueError(f"gray_share must lie in 0..1, got {gray_share}.")
