"""Holes in images, and the inputs of the context encoder, which fills them.

Source: Pathak, Krähenbühl, Donahue, Darrell and Efros, "Context encoders", CVPR 2016, and their
released train_random.lua (pathak22/context-encoder).
"""

from collections.abc import Sequence

import tensorflow as tf

from pipelines.batches import images, order, views

SHAPES = ("region", "block", "central")
"""The shapes of holes, see `draw_hole`."""

_CELL = (10_000 - 1) / (600 - 1)
"""Pixels between two values of the noise: 600 x 600 values become 10,000 x 10,000 pixels."""

_THRESHOLD = 0.25  # pixels of smaller noise are the hole
_LEAST, _MOST = 0.2, 0.3  # accepted shares of a region
_LARGEST_UNION = 0.25  # of blocks (paper)
_NUM_CANDIDATES = 32  # a region is accepted with probability 0.21 at 128 pixels
_NUM_BLOCKS = 40  # eight reach the largest union on average


def batches(
    files: Sequence[str],
    view: views.View,
    order: order.Order,
    shape: str,
    color: tuple[int, int, int],
) -> tf.data.Dataset:
    """Build image crops with one hole each.

    Args:
        files: paths of JPEG, PNG or BMP images; `unlabelled.find` returns them.
        view: how an image is scaled and placed.
        order: which images a step shows.
        shape: one of `SHAPES`.
        color: RGB in 0..255 of the hole.

    Returns:
        Dataset of {"image": uint8 [N, crop, crop, 3] with the hole filled, "target": uint8 [N,
        crop, crop, 4], the pixels without a hole, and 1 inside the hole}.

    Raises:
        ValueError: the shape is unknown, the crop is below 8 pixels, or there is no file.

    Example:
        >>> batches(files, views.View(crop=112), order, "region", (123, 117, 104))  # doctest: +SKIP
    """
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {SHAPES}, got {shape!r}.")
    if view.crop < 8:
        raise ValueError(f"Holes need crops of at least 8 pixels, got {view.crop}.")

    def with_target(crop, seed):
        return {"hole": draw_hole(view.crop, shape, seed)}

    def as_pair(batch):
        hole = batch["hole"][..., None]
        filled = tf.where(hole, tf.constant(color, tf.uint8), batch["image"])
        target = tf.concat([batch["image"], tf.cast(hole, tf.uint8)], axis=-1)
        return {"image": filled, "target": target}

    return images.batches(files, view, order, with_target).map(as_pair)


def draw_hole(size: int, shape: str, seed: int | tf.Tensor = 0) -> tf.Tensor:
    """Draw a hole in a square.

    "region": smooth noise below a threshold, 20 to 30 % of the square. The release cuts one large
    map of noise; here each hole has its own. "block": squares of an eighth to a quarter of the
    side, until the next one would take the union above a quarter of the area (paper; the numbers
    are ours). "central": the middle square of half the side.

    Args:
        size: side of the square in pixels, at least 8.
        shape: one of `SHAPES`.
        seed: int or int32 [2].

    Returns:
        bool [size, size], True in the hole.

    Example:
        >>> int(tf.math.count_nonzero(draw_hole(8, "central")))
        16
    """
    seed = views.as_seed(seed)
    if shape == "central":
        inside = (tf.range(size) >= size // 4) & (tf.range(size) < size // 4 + size // 2)
        return inside[:, None] & inside
    return _region(size, seed) if shape == "region" else _blocks(size, seed)


def _region(size, seed):
    """Return the first candidate of an accepted share, or the one that is closest to it."""
    candidates = region_candidates(size, _NUM_CANDIDATES, seed)
    shares = tf.reduce_mean(tf.cast(candidates, tf.float32), axis=[1, 2])
    is_accepted = (shares > _LEAST) & (shares < _MOST)
    closest = tf.argmin(tf.abs(shares - (_LEAST + _MOST) / 2))
    first = tf.argmax(tf.cast(is_accepted, tf.int32))
    return candidates[tf.where(tf.reduce_any(is_accepted), first, closest)]


def region_candidates(size: int, number: int, seed: int | tf.Tensor) -> tf.Tensor:
    """Return regions of any share: uniform noise, enlarged by bicubic interpolation.

    Args:
        size: side in pixels.
        number: number of regions.
        seed: int or int32 [2].

    Returns:
        bool [number, size, size].
    """
    seeds = tf.random.split(views.as_seed(seed), 2)
    num_cells = int(size / _CELL) + 5
    noise = tf.random.stateless_uniform([number, num_cells, num_cells], seeds[0])
    starts = 1 + tf.random.stateless_uniform([2, number, 1], seeds[1])
    places = starts + tf.range(size, dtype=tf.float32) / _CELL
    apart = tf.abs(places[..., None] - tf.range(num_cells, dtype=tf.float32))
    rows, columns = tf.unstack(_catmull_rom(apart))
    values = tf.matmul(tf.matmul(rows, noise), columns, transpose_b=True)
    return values < _THRESHOLD


def _catmull_rom(distance):
    """Return the weights of the bicubic kernel with a = -1/2, as in Torch's image.scale."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return tf.where(distance < 1, near, tf.where(distance < 2, far, 0.0))


def _blocks(size, seed):
    seeds = tf.random.split(seed, 2)
    lowest = tf.fill([_NUM_BLOCKS], size // 8)
    sides = views.uniform(lowest, tf.fill([_NUM_BLOCKS], size // 4), seeds[0])
    corners = views.uniform(
        tf.zeros([2, _NUM_BLOCKS], tf.int32), tf.stack([size - sides] * 2), seeds[1]
    )
    pixels = tf.range(size)
    is_inside = (pixels >= corners[..., None]) & (pixels < (corners + sides)[..., None])
    blocks = is_inside[0][:, :, None] & is_inside[1][:, None]
    unions = tf.cumsum(tf.cast(blocks, tf.int32)) > 0
    shares = tf.reduce_mean(tf.cast(unions, tf.float32), axis=[1, 2])
    number = tf.math.count_nonzero(shares <= _LARGEST_UNION)  # shares never fall
    return unions[number - 1]
