"""Large images are stored as tiles, so that no step of training needs all their pixels."""

import math
from collections.abc import Iterator

import numpy as np

from pipelines.datasets import inspection

LARGEST = 89_478_485
"""The largest number of pixels of an image that is stored whole (256 MiB of RGB)."""
SIDE = 2048
"""The longest side of a tile in pixels; crops and patches are much smaller."""


def is_large(pixels: np.ndarray) -> bool:
    """Return whether an image [height, width, bands] is stored as tiles."""
    return pixels.size > 3 * LARGEST


def cut(sample: inspection.Sample, pixels: np.ndarray, encode) -> Iterator[inspection.Sample]:
    """Yield the tiles of a large image, row by row; a small image stays as it is.

    Tiles do not overlap, cover the whole image, and differ by at most one pixel in their sides.

    Args:
        sample: the image and its label map.
        pixels: uint8 [height, width, bands], the pixels of the image.
        encode: function uint8 [height, width, bands] -> the bytes of a PNG.
    """
    if not is_large(pixels):
        yield sample
        return
    for name, tile in named(sample.id, pixels.shape[:2]):
        label = np.ascontiguousarray(sample.label[tile])
        yield inspection.Sample(name, encode(pixels[tile]), label)


def named(name: str, size: tuple[int, int]) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """Yield the name and the slices of rows and columns of each tile of an image.

    Args:
        name: of the image.
        size: its height and width.

    Example:
        >>> [tile for tile, _ in named("a", (100, 3000))]
        ['a_y0_x0', 'a_y0_x1500']
    """
    rows, columns = (edges(length) for length in size)
    for y0, y1 in zip(rows, rows[1:], strict=False):
        for x0, x1 in zip(columns, columns[1:], strict=False):
            yield f"{name}_y{y0}_x{x0}", (slice(y0, y1), slice(x0, x1))


def edges(length: int) -> list[int]:
    """Return the edges of tiles along a side.

    Example:
        >>> edges(5000)
        [0, 1666, 3333, 5000]
    """
    number = math.ceil(length / SIDE)
    return [k * length // number for k in range(number + 1)]
