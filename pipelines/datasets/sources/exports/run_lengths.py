"""Run-length codes of annotation tools: COCO, CVAT, Label Studio and Kaggle.

Each decoder checks its numbers before it allocates memory. The files come from others.
"""

import numpy as np

from pipelines.datasets import headers


def coco(counts: object, size: tuple[int, int]) -> np.ndarray:
    """Decode the `counts` of a COCO annotation.

    Runs go down the columns and begin with zeros (cocoapi, common/maskApi.c).

    Args:
        counts: list of ints, or the compressed text.
        size: (height, width).

    Returns:
        bool [height, width].

    Raises:
        ValueError: if the runs do not fill the mask.

    Example:
        >>> coco([1, 2, 1], (2, 2)).astype(int).tolist()
        [[0, 1], [1, 0]]
    """
    runs = _coco_text(counts) if isinstance(counts, str | bytes) else _whole(counts)
    return _filled(runs, size[0] * size[1]).reshape(size[::-1]).T


def kaggle(text: str, size: tuple[int, int]) -> np.ndarray:
    """Decode pairs of start and length, counted from 1 and down the columns.

    Args:
        text: numbers, with blanks between them.
        size: (height, width).

    Returns:
        bool [height, width].

    Raises:
        ValueError: if the text holds no such pairs, or if they do not fit the size.

    Example:
        >>> kaggle("2 1 3 2", (2, 2)).astype(int).tolist()
        [[0, 1], [1, 1]]
    """
    num_pixels = size[0] * size[1]
    try:
        numbers = np.array(text.split(), np.int64)
    except (ValueError, OverflowError):
        raise ValueError("its run lengths are no whole numbers") from None
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    if not numbers.size or numbers.size % 2 or numbers.min() < 1:
        raise ValueError("its run lengths are no pairs of start and length, each from 1")
    if (lengths > num_pixels).any() or (starts > num_pixels - lengths).any():
        raise ValueError(f"its run lengths reach beyond an image of {size[0]}x{size[1]}")
    if (starts[1:] < starts[:-1] + lengths[:-1]).any():
        raise ValueError("its runs do not follow each other; relative starts are not read")
    changes = np.zeros(num_pixels + 1, np.int8)
    changes[starts] += 1
    changes[starts + lengths] -= 1
    return np.cumsum(changes[:-1]).astype(bool).reshape(size[::-1]).T


def _coco_text(text: str | bytes) -> np.ndarray:
    """Return the runs of the compressed text.

    A character holds 6 bits from 48 on: five bits of data, low ones first, and bit 5 if more
    follow. Bit 4 of the last character is the sign. From the fourth number on, a number is the
    difference to the number two before it.
    """
    content = text.encode("latin-1", "replace") if isinstance(text, str) else text
    digits = np.frombuffer(content, np.uint8).astype(np.int64) - 48
    if not digits.size or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise ValueError("the run lengths are no COCO code")
    ends = np.flatnonzero(~digits & 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 10:
        raise ValueError("a run length has more than 50 bits")
    places = np.arange(len(digits)) - np.repeat(starts, lengths)
    values = np.add.reduceat((digits & 31) << (5 * places), starts)
    values -= np.where(digits[ends] & 16, 1 << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _whole(counts: object) -> np.ndarray:
    try:
        numbers = np.asarray(counts, np.float64)
        if numbers.ndim != 1 or not np.isfinite(numbers).all() or (abs(numbers) > 2**53).any():
            raise ValueError("the run lengths are no list of whole numbers")
    except (TypeError, OverflowError) as error:
        raise ValueError("the run lengths are no list of whole numbers") from error
    return numbers.astype(np.int64)


def _filled(runs: np.ndarray, num_pixels: int) -> np.ndarray:
    """Return bool [num_pixels] of runs of False and True in turn."""
    if not 0 < num_pixels <= headers.MAX_PIXELS:
        raise ValueError(f"a mask of {num_pixels} pixels; the limit is {headers.MAX_PIXELS}")
    if (runs < 0).any() or runs.sum() != num_pixels:
        raise ValueError(f"the run lengths give {runs.sum()} pixels, not {num_pixels}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def cvat(text: str, size: tuple[int, int]) -> np.ndarray:
    """Decode the `rle` of a mask of CVAT's XML.

    Runs go along the rows of the mask's box and begin with zeros (CVAT, bindings.py).

    Args:
        text: numbers with commas between them.
        size: (height, width) of the box.

    Returns:
        bool [height, width].

    Raises:
        ValueError: if the runs do not fill the box.

    Example:
        >>> cvat("0, 1, 1", (1, 2)).tolist()
        [[True, False]]
    """
    runs = _whole([int(word) for word in text.split(",")])
    return _filled(runs, size[0] * size[1]).reshape(size)


_HEADER_BITS = 32 + 5 + 4 * 4


def label_studio(code: object, size: tuple[int, int]) -> np.ndarray:
    """Decode the `rle` of a brush region of Label Studio.

    The bytes are a stream of bits: the number of values, the bits of a word, four sizes of lengths,
    and then runs of one word or of several words (label-studio-sdk, converter/brush.py). The values
    are RGBA pixels, row by row. The region is where alpha is above 0.

    Args:
        code: list of bytes.
        size: (height, width).

    Returns:
        bool [height, width].

    Raises:
        ValueError: if the code does not give four values for each pixel.
    """
    numbers = _whole(code)
    if len(numbers) * 8 < _HEADER_BITS or (numbers < 0).any() or (numbers > 255).any():
        raise ValueError("the brush code is no list of bytes")
    bits = "".join(f"{byte:08b}" for byte in numbers.tolist())
    num_values = int(bits[:32], 2)
    if num_values != 4 * size[0] * size[1]:
        raise ValueError(f"the brush code gives {num_values} values, not 4 x {size[0]} x {size[1]}")
    values = _label_studio_values(bits, num_values)
    return values.reshape(*size, 4)[..., 3] > 0


def _label_studio_values(bits: str, num_values: int) -> np.ndarray:
    def number(start, count):
        if start + count > len(bits):
            raise ValueError("the brush code is cut short")
        return int(bits[start : start + count], 2)

    word = number(32, 5) + 1
    sizes = [number(37 + 4 * k, 4) + 1 for k in range(4)]
    values, place, done = np.zeros(num_values, np.int64), _HEADER_BITS, 0
    while done < num_values:
        is_run, bits_of_length = number(place, 1), sizes[number(place + 1, 2)]
        length = number(place + 3, bits_of_length) + 1
        place += 3 + bits_of_length
        stop = min(done + length, num_values)
        if is_run:
            values[done:stop] = number(place, word)
            place += word
        else:
            for k in range(done, stop):
                values[k] = number(place, word)
                place += word
        done = stop
    return values
