"""Masks as palette PNG files: the data set's own values, shown in the colors of the classes."""

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from pipelines import datasets


def picture(
    class_ids: np.ndarray, mask_values: Sequence[int], colors: Sequence[tuple[int, int, int]]
) -> Image.Image:
    """Return a palette picture of a map of class ids.

    Args:
        class_ids: integer [H, W].
        mask_values: the value of each class in the picture, 0..255.
        colors: the RGB color of each class, 0..255.
    """
    table = np.asarray(mask_values, np.uint8)
    values = np.empty(class_ids.shape, np.uint8)
    for row, ids in zip(values, class_ids, strict=True):  # numpy indexes with 8 bytes per pixel
        row[:] = table[ids]
    result = Image.fromarray(values)
    result.putpalette(palette(mask_values, colors))
    return result


def palette(mask_values: Sequence[int], colors: Sequence[tuple[int, int, int]]) -> bytes:
    """Return the palette of VOC, 768 bytes, with the colors of the classes in it."""
    table = np.array(datasets.voc_colors(256), np.uint8)
    table[np.asarray(mask_values, np.uint8)] = colors
    return table.tobytes()


def save(image: Image.Image, file: pathlib.Path) -> None:
    """Write a picture, and make its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
