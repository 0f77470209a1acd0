"""Images of more than 8 bits, of real numbers, or of other bands than gray and color.

A `PixelWindow` chooses bands and maps a range of values of each to 0..255. It belongs to the data
set: all images use the same one, and the exported model applies it to raw values.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from pipelines.datasets import faults, headers, raw_images, records
from pipelines.datasets.spec import DatasetError, PixelWindow, Reading

_NUM_SAMPLED = 16  # images that the percentiles are computed from, evenly spread
_MAX_VALUES = 250_000  # pixels that are used of each of these images, about
MAX_BANDS = 64
"""Largest number of bands of an image; networks take as many (`mm_keras.backbones.MAX_BANDS`)."""


def with_window(plan: records.Plan, reading: Reading) -> records.Plan:
    """Return a plan whose images are mapped to 8 bits, if all need it or the user asks for it.

    A single image of more than 8 bits among others is a fault, which reading reports.

    Args:
        plan: the plan of a data set of image files.
        reading: `window`, `percentiles`, `bands` and `channels` of the user.

    Raises:
        DatasetError: if a window cannot be computed, or if the bands do not exist.
    """
    files = [_image_of(item) for items in plan.splits.values() for item in items]
    files = [(file, page) for file, page in files if isinstance(file, pathlib.Path)]
    sampled = files[:: max(1, len(files) // _NUM_SAMPLED)][:_NUM_SAMPLED]
    is_asked = reading.window is not None or reading.bands is not None
    is_asked = is_asked or reading.channels not in (None, 3)
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
    note = f" {others} of {window.num_bands} bands are not used." if others else ""
    if len(window.bands) != 3:
        note += f" The network takes {len(window.bands)} bands."
        if reading.channels is None and reading.bands is None and window.num_bands > 3:
            note += " With channels=3 it takes the first three as red, green and blue."
    return f"Images are mapped to 8 bits ({ranges}; {origin}).{note}"


def _window(sampled: Sequence, reading: Reading) -> PixelWindow:
    """Return the user's window, or the percentiles of a sample of the images."""
    images = [found for file, page in sampled if (found := _values(file, page)) is not None]
    if not images:
        raise DatasetError(
            f"No image could be read to choose the window of values, for example {sampled[0][0]}. "
            f"{raw_images.NEEDS_TIFFFILE.fix}"
        )
    num_bands = images[0].shape[1]
    images = [image for image in images if image.shape[1] == num_bands]
    bands = _bands(num_bands, _alpha(sampled), reading)
    if reading.window:
        low, high = ((float(end),) * len(bands) for end in reading.window)
    else:
        ends = [_percentiles(images, band, reading.percentiles) for band in bands]
        low, high = zip(*ends, strict=True)
    return PixelWindow(num_bands, bands, tuple(low), tuple(high))


def _values(file: pathlib.Path, page: int | None) -> np.ndarray | None:
    """Return a sample of the pixels with data, [N, bands]; None if the image cannot be read."""
    try:
        raw = raw_images.read(file, page)
    except (faults.WrongKindError, *headers.DAMAGED):
        return None
    step = max(1, raw.is_nodata.size // _MAX_VALUES)
    values = raw.pixels.reshape(-1, raw.pixels.shape[2])[::step]
    return values[~raw.is_nodata.ravel()[::step]]


def _alpha(sampled) -> tuple[int, ...]:
    """Return the bands that the first image with a readable header declares as alpha."""
    for file, _ in sampled:
        if _is_deep(file) is not None:
            return headers.read(file).alpha
    return ()


def _bands(num_bands: int, alpha: tuple[int, ...], reading: Reading) -> tuple[int, ...]:
    """Return the indices of the bands that the network takes, in order."""
    asked, channels = reading.bands, reading.channels
    if asked is not None and not all(1 <= band <= num_bands for band in asked):
        raise DatasetError(f"bands={asked} must name bands 1 to {num_bands} of the images.")
    chosen = tuple(band - 1 for band in asked or ())
    if asked is None:
        chosen = tuple(band for band in range(num_bands) if band not in alpha)
    if len(chosen) == 1 and channels in (None, 3):  # a gray image
        return chosen * 3
    if asked is None and channels is not None:
        chosen = (*chosen, *alpha)[:channels]
    if channels is not None and len(chosen) != channels:
        raise DatasetError(
            f"channels={channels} is not the number of bands ({len(chosen)}"
            f"{'' if asked is None else f', from bands={asked}'}). Change channels"
            f"{', or leave it out' if asked is None else ' or bands'}."
        )
    if len(chosen) > MAX_BANDS:
        raise DatasetError(
            f"The images have {len(chosen)} bands; at most {MAX_BANDS} can be used. Choose some "
            "with bands, or the first ones with channels."
        )
    return chosen


def _percentiles(images, band: int, percentiles) -> tuple[float, float]:
    every = np.concatenate([image[:, band].astype(np.float64) for image in images])
    every = every[np.isfinite(every)]
    if not every.size:
        raise DatasetError(f"Band {band + 1} of the images has no value. Choose other bands.")
    low, high = np.percentile(every, percentiles)
    return float(low), float(high if high > low else low + 1)
