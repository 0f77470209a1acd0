"""Positions of the patches of a transformer, for any grid of patches."""

import math

import keras
from keras import ops

CUBIC, SMOOTH_CUBIC = -0.75, -0.5
"""Parameter of the cubic kernel in torch's `interpolate`, without and with antialias."""


def resized_table(table, grid, antialias: bool = False):
    """Resize a table of position embeddings to another grid, by bicubic interpolation.

    Source: `torch.nn.functional.interpolate`, as DINOv2 and ViT of Hugging Face call it. Keras'
    bicubic has another kernel and another border. A grid of the table's size gives the table.

    Args:
        table: float32 [h, w, D].
        grid: (height, width) of the result, integers or integer tensors.
        antialias: average over all cells below a cell of the result where it is smaller.

    Returns:
        float32 [height, width, D].

    Example:

    >>> table = ops.reshape(ops.arange(4, dtype="float32"), (2, 2, 1))
    >>> bool(ops.all(resized_table(table, (2, 2)) == table))
    True
    >>> tuple(resized_table(table, (3, 5)).shape)
    (3, 5, 1)
    """
    height, width, channels = table.shape
    weights = smooth_cubic_weights if antialias else cubic_weights
    rows, columns = weights(height, grid[0]), weights(width, grid[1])
    tall = ops.matmul(rows, ops.reshape(table, (height, width * channels)))
    return ops.matmul(columns, ops.reshape(tall, (-1, width, channels)))


def cubic_weights(num_cells: int, num_results):
    """Return the weight of each cell in each result of one axis, float32 [results, cells].

    A result reads four cells. Beyond the border the last cell is repeated.
    """
    place = _places(num_cells, num_results) - 0.5
    first = ops.floor(place)
    cells = ops.arange(num_cells, dtype="float32")
    total = ops.zeros_like(place[:, None] * cells)
    for step in (-1, 0, 1, 2):
        weight = _cubic(place - first - step, CUBIC)
        cell = ops.clip(first + step, 0, num_cells - 1)
        total = total + weight[:, None] * ops.cast(cell[:, None] == cells, "float32")
    return total


def smooth_cubic_weights(num_cells: int, num_results):
    """Return the weights of `cubic_weights` with antialias: the kernel widens with the cells.

    Beyond the border there are no cells; the others have a sum of 1.
    """
    stretch = ops.maximum(_ratio(num_cells, num_results), 1.0)
    centers = ops.arange(num_cells, dtype="float32") + 0.5
    distance = (centers - _places(num_cells, num_results)[:, None]) / stretch
    weights = _cubic(distance, SMOOTH_CUBIC)
    return weights / ops.sum(weights, axis=1, keepdims=True)


def _ratio(num_cells, num_results):
    return num_cells / ops.cast(num_results, "float32")


def _places(num_cells, num_results):
    """Return the centers of the results in cells, float32 [results]."""
    return (ops.arange(num_results, dtype="float32") + 0.5) * _ratio(num_cells, num_results)


def _cubic(distance, a):
    """Return Keys' cubic kernel (IEEE ASSP 1981) of a distance in cells."""
    x = ops.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return ops.where(x <= 1, near, ops.where(x < 2, far, 0.0))


def rotations(grid, num_channels: int, base: float):
    """Return cosine and sine of the rotary positions of DINOv3.

    Source: facebookresearch/dinov3, layers/rope_position_encoding.py: coordinates in -1..1 over the
    image, num_channels / 4 frequencies for each axis.

    Args:
        grid: (height, width), integers or integer tensors.
        num_channels: channels of an attention head, a multiple of 4.
        base: ratio of the longest to the shortest period.

    Returns:
        float32 [height * width, num_channels] twice.
    """
    height, width = grid
    rows, columns = (
        2 * (ops.arange(side, dtype="float32") + 0.5) / ops.cast(side, "float32") - 1
        for side in grid
    )
    rows = ops.reshape(ops.repeat(rows[:, None], width, axis=1), (-1,))
    columns = ops.reshape(ops.repeat(columns[None], height, axis=0), (-1,))
    frequencies = base ** -(ops.arange(num_channels // 4, dtype="float32") * 4 / num_channels)
    angles = 2 * math.pi * ops.stack([rows, columns], axis=-1)[..., None] * frequencies
    angles = ops.reshape(angles, (-1, num_channels // 2))
    angles = ops.concatenate([angles, angles], axis=-1)
    return ops.cos(angles), ops.sin(angles)


def table_of(variable: keras.Variable, grid: tuple[int, int], num_others: int):
    """Return the part of a stored position table that belongs to patches, and the other rows.

    Args:
        variable: [1, num_others + h * w, D] or [num_others + h * w, D].
        grid: (h, w).
        num_others: rows before the patches, for the class token.

    Returns:
        numpy arrays [h, w, D] and [1, num_others, D].

    Raises:
        ValueError: if the table does not have as many rows.
    """
    values = ops.convert_to_numpy(variable)
    values = values.reshape(-1, values.shape[-1])
    if len(values) != num_others + grid[0] * grid[1]:
        raise ValueError(
            f"A table of positions for {grid[0]} x {grid[1]} patches must have "
            f"{num_others + grid[0] * grid[1]} rows. Received {len(values)}."
        )
    return values[num_others:].reshape(*grid, -1), values[None, :num_others]
