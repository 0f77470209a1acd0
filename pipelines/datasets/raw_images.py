"""Stored values of images: any number of bits and bands, and their mapping to 8 bits."""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from pipelines.datasets import faults, headers
from pipelines.datasets.spec import PixelWindow

OTHER_BANDS = faults.Kind(
    "image with another number of bands than the first images",
    "All images of a data set need the same bands: remove it, or save it in the same form.",
)
NEEDS_TIFFFILE = faults.Kind(
    "TIFF image that needs further packages to be read",
    'Install them: pip install "mm-keras[tiff]".',
)


_BLOCK_ROWS = 256


@dataclasses.dataclass(frozen=True)
class Raw:
    """Stored values, [height, width, bands], and where all bands hold no data."""

    pixels: np.ndarray
    is_nodata: np.ndarray


def read(file: pathlib.Path, page: int | None = None) -> Raw:
    """Read the stored values of an image of any number of bits and bands.

    Args:
        file: path of the image.
        page: page of a TIFF stack, from 0; None for a file of one page.

    Raises:
        WrongKindError: if the image has too many pixels, several pages, or complex numbers, or if
            a package for this kind of TIFF is missing.
        OSError: or another error of `headers.DAMAGED`, if it is damaged.
    """
    header = headers.read(file)
    if header.number not in ("uint", "int", "float"):
        raise faults.WrongKindError(headers.DEEP, header)
    if header.num_pages > 1 and page is None:
        raise faults.WrongKindError(headers.PAGES, f"{header.num_pages} pages of {header}")
    pixels = _tiff(file, page) if header.format == "TIFF" else _other(file)
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    is_nodata = np.zeros(pixels.shape[:2], bool)
    for rows in _blocks(pixels):
        if header.nodata is not None:
            is_nodata[rows] = (pixels[rows] == header.nodata).all(-1)
        if pixels.dtype.kind == "f":
            is_nodata[rows] |= ~np.isfinite(pixels[rows]).any(-1)
    return Raw(pixels, is_nodata)


def _blocks(pixels):
    """Return slices of rows: arrays in between are much larger than an image of 8 bits."""
    return (slice(start, start + _BLOCK_ROWS) for start in range(0, len(pixels), _BLOCK_ROWS))


def _tiff(file: pathlib.Path, page: int | None) -> np.ndarray:
    try:
        import tifffile
    except ImportError as error:
        raise faults.WrongKindError(NEEDS_TIFFFILE) from error
    try:
        with tifffile.TiffFile(file) as opened:
            stored = opened.pages[page or 0]
            pixels = stored.asarray()
            is_planar = stored.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    except tifffile.TiffFileError as error:
        raise OSError(str(error)) from error
    except (ValueError, ImportError) as error:
        if "imagecodecs" in str(error):
            raise faults.WrongKindError(NEEDS_TIFFFILE) from error
        raise
    return np.moveaxis(pixels, 0, -1) if is_planar and pixels.ndim == 3 else pixels


def _other(file: pathlib.Path) -> np.ndarray:
    """Read a picture that is no TIFF; Pillow would cut colors of 16 bits down to 8."""
    with headers.open_image(file) as image:
        if image.format == "PNG" and headers.read(file).bits == 16:
            return tf.io.decode_png(file.read_bytes(), dtype=tf.uint16).numpy()
        return np.asarray(image if image.mode not in ("P", "1") else image.convert("RGB"))


def apply(window: PixelWindow, pixels: np.ndarray) -> np.ndarray:
    """Map stored values to uint8 [height, width, bands], as `mm_keras.inference.export` does.

    Args:
        window: the window.
        pixels: [height, width, num_bands].

    Example:
        >>> window = PixelWindow(1, (0, 0, 0), (0.0,) * 3, (1000.0,) * 3)
        >>> apply(window, np.array([[[500]]]))[0, 0].tolist()
        [128, 128, 128]
    """
    low, high = (np.array(end, np.float32) for end in (window.low, window.high))
    result = np.empty((*pixels.shape[:-1], len(window.bands)), np.uint8)
    for rows in _blocks(pixels):
        chosen = pixels[rows][..., list(window.bands)].astype(np.float32)
        scaled = (np.nan_to_num(chosen, nan=0.0) - low) * (np.float32(255) / (high - low))
        result[rows] = np.floor(np.clip(scaled, 0, 255) + np.float32(0.5))
    return result


def windowed(file: pathlib.Path, page: int | None, window: PixelWindow) -> tuple:
    """Read an image and map it to 8 bits.

    Returns:
        (uint8 [height, width, bands], bool [height, width]: where no band holds data).

    Raises:
        WrongKindError: if the image has another number of bands than the window.
        OSError: see `read`.
    """
    raw = read(file, page)
    if raw.pixels.shape[2] != window.num_bands:
        detail = f"{raw.pixels.shape[2]} bands, not {window.num_bands}"
        raise faults.WrongKindError(OTHER_BANDS, detail)
    return apply(window, raw.pixels), raw.is_nodata
