"""What is left of the classes in shrunk label maps, where thin structures lose their shape."""

import numpy as np

from pipelines.datasets import masks
from pipelines.datasets.spec import VOID


def overlap(label: np.ndarray, shorter_side: int) -> np.ndarray:
    """Compare a label map with itself, shrunk and enlarged again.

    Both steps take the nearest pixel, as the batches of `pipelines.batches` do. Void pixels of the
    label map do not count. The first row divided by the second one is the IoU of each class.

    Args:
        label: uint8 [height, width].
        shorter_side: side in pixels to which larger maps are shrunk; smaller ones stay.

    Returns:
        int64 [2, 256]: pixels of each class in both maps, and pixels in at least one of them.

    Example:
        >>> line = np.zeros([8, 8], np.uint8)
        >>> line[2] = 1
        >>> overlap(line, 4)[:, :2].tolist()  # all of the line is lost
        [[56, 0], [64, 8]]
    """
    shown = shrink_and_enlarge(label, shorter_side)
    common = _labelled(np.where(shown == label, label, np.uint8(VOID)))
    seen = _labelled(np.where(label == VOID, label, shown))
    return np.stack([common, _labelled(label) + seen - common])


def shrink_and_enlarge(label: np.ndarray, shorter_side: int) -> np.ndarray:
    """Return the label map after it was shrunk to a shorter side, at its own size.

    Args:
        label: uint8 [height, width].
        shorter_side: in pixels; maps with a smaller one stay as they are.
    """
    shorter = min(label.shape)
    if shorter <= shorter_side:
        return label
    rows, columns = (
        _nearest(length, (2 * length * shorter_side + shorter) // (2 * shorter))
        for length in label.shape
    )
    return label[rows][:, columns]


def _nearest(length, size):
    """Return the pixel of the original that each pixel shows after `length` -> `size` -> `length`.

    Pixel i shows floor((i + 1/2) * length before / length after).
    """
    shrunk = (2 * np.arange(size) + 1) * length // (2 * size)
    return shrunk[(2 * np.arange(length) + 1) * size // (2 * length)]


def _labelled(pixels):
    counts = masks.value_counts(pixels)
    counts[VOID] = 0
    return counts
