"""Images of more than 8 bits, of real numbers, or of other bands than gray and color.

A `PixelWindow` chooses one or three bands and maps a range of values to 0..255. It belongs to the
data set: all images use the same one, and the exported model applies it to raw values.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from pipelines.datasets import faults, headers, raw_images, records
from pipelines.datasets.spec import DatasetError, PixelWindow, Reading

_NUM_SAMPLED = 16  # images that the percentiles are computed from, evenly spread
_MAX_VALUES = 250_000  # values of a band that are used of each of these images


def with_window(plan: records.Plan, reading: Reading) -> records.Plan:
    """Return a plan whose images are mapped to 8 bits, if all need it or the user asks for it.

    A single image of more than 8 bits among others is a fault, which reading reports.

    Args:
        plan: the plan of a data set of image files.
        reading: `window`, `percentiles` and `bands` of the user.

    Raises:
        DatasetError: if a window cannot be computed, or if the bands do not exist.
    """
    files = [_image_of(item) for items in plan.splits.values() for item in items]
    files = [(file, page) for file, page in files if isinstance(file, pathlib.Path)]
    sampled = files[:: max(1, len(files) // _NUM_SAMPLED)][:_NUM_SAMPLED]
    is_asked = reading.window is not None or reading.bands is not None
    kinds = [kind for file, _ in sampled if (kind := _is_deep(file)) is not None]
    if not kinds or not (is_asked or all(kinds)):
        return plan
    window = _window(sampled, reading)
    return dataclasses.replace(
        plan,
        spec=dataclasses.replace(plan.spec, window=window),
        read=_Windowed(plan.read, window),
        reader=plan.reader and _Windowed(plan.reader, window),
        fingerprint=f"{plan.fingerprint}\n{window!r}",
        messages=(*plan.messages, _message(window, reading)),
    )


@dataclasses.dataclass(frozen=True)
class _Windowed:
    """A function that reads an item, with a window."""

    function: object
    window: PixelWindow

    def __call__(self, item, **kwargs):
        return self.function(item, window=self.window, **kwargs)


def _image_of(item) -> tuple[object, int | None]:
    return getattr(item, "image", None), getattr(item, "page", None)


def _is_deep(file: pathlib.Path) -> bool | None:
    """Return whether an image needs a window; None if its header cannot be read."""
    try:
        header = headers.read(file)
    except (faults.WrongKindError, *headers.DAMAGED):
        return None
    return not header.is_8_bit or header.num_unknown > 0


def _message(window: PixelWindow, reading: Reading) -> str:
    ranges = ", ".join(
        f"band {band + 1}: {low:g} to {high:g}"
        for band, low, high in dict.fromkeys(
            zip(window.bands, window.low, window.high, strict=True)
        )
    )
    low, high = reading.percentiles
    origin = "as given" if reading.window else f"percentiles {low:g} and {high:g} of a sample"
    others = window.num_bands - len(set(window.bands))
    unused = f" {others} of {window.num_bands} bands are not used." if others else ""
    return f"Images are mapped to 8 bits ({ranges}; {origin}).{unused}"


def _window(sampled: Sequence, reading: Reading) -> PixelWindow:
    """Return the user's window, or the percentiles of a sample of the images."""
    images = [raw for file, page in sampled if (raw := _try_read(file, page)) is not None]
    if not images:
        raise DatasetError(
            f"No image could be read to choose the window of values, for example {sampled[0][0]}. "
            f"{raw_images.NEEDS_TIFFFILE.fix}"
        )
    num_bands = images[0].pixels.shape[2]
    images = [image for image in images if image.pixels.shape[2] == num_bands]
    bands = _bands(num_bands, reading.bands)
    if reading.window:
        low, high = ((float(end),) * len(bands) for end in reading.window)
    else:
        ends = [_percentiles(images, band, reading.percentiles) for band in bands]
        low, high = zip(*ends, strict=True)
    return PixelWindow(num_bands, bands, tuple(low), tuple(high))


def _try_read(file: pathlib.Path, page: int | None):
    try:
        return raw_images.read(file, page)
    except (faults.WrongKindError, *headers.DAMAGED):
        return None


def _bands(num_bands: int, asked: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the indices of the bands that become red, green and blue."""
    if asked is None:
        return (0, 1, 2) if num_bands >= 3 else (0, 0, 0)
    if len(asked) not in (1, 3) or not all(1 <= band <= num_bands for band in asked):
        raise DatasetError(
            f"bands={asked} must name one or three of the bands 1 to {num_bands} of the images."
        )
    return tuple(band - 1 for band in asked) * (1 if len(asked) == 3 else 3)


def _percentiles(images, band: int, percentiles) -> tuple[float, float]:
    values = []
    for image in images:
        valid = image.pixels[..., band][~image.is_nodata].astype(np.float64)
        valid = valid[np.isfinite(valid)]
        values.append(valid[:: max(1, valid.size // _MAX_VALUES)])
    every = np.concatenate(values)
    if not every.size:
        raise DatasetError(f"Band {band + 1} of the images has no value. Choose other bands.")
    low, high = np.percentile(every, percentiles)
    return float(low), float(high if high > low else low + 1)
