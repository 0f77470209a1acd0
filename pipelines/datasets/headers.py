"""Headers of picture files: bands, bits, kind of numbers, compression and pages.

Pillow silently converts some files to 8 bits or drops bands. The rules for images and masks
therefore use the file's own header, whatever its container.
"""

import dataclasses
import io
import itertools
import pathlib
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from pipelines.datasets import faults, files

MAX_PIXELS = 178_956_970
"""The largest number of pixels of an image or mask: Pillow raises an error above it (512 MiB of
RGB). Larger images than `tiles.LARGEST` are stored as tiles."""

# Formats that Pillow may open. Others start programs (EPS starts Ghostscript) or are rarely used.
# Files of a data set often have the ending of another format, so more formats than endings.
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "TIFF", "WEBP", "GIF", "AVIF")
_LOSSY_FORMATS = ("JPEG", "MPO", "AVIF")
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
# PNG color type -> number of bands. 3 is a palette.
_PNG_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# TIFF 6.0 and its supplements: tags, and compressions that change pixels (JPEG of both kinds,
# JPEG 2000, lossy DNG, Aperio's JPEG 2000, WebP, JPEG XL).
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_SAMPLES, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _NODATA = 277, 338, 339, 42113
_LOSSY_COMPRESSIONS = (6, 7, 34712, 34892, 33003, 33004, 33005, 50001, 50002)
_COLOR_BANDS = {2: 3, 5: 4, 6: 3, 8: 3}  # photometric -> bands of RGB, CMYK, YCbCr, Lab; else 1
_NUMBERS = {1: "uint", 2: "int", 3: "float", 5: "complex int", 6: "complex"}
_DAMAGED_TIFF = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error)
_PREVIEW = 1 | 4  # bits of _SUBFILE: a smaller copy of the page, a transparency mask
_MAX_PAGES = 1000
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""Errors of Pillow on damaged files, without WrongKindError."""

_DEEP_MODES = {"I": ("int", 32), "F": ("float", 32)}  # Pillow's; I;16 and its variants are below

TOO_LARGE = faults.Kind(
    f"image or mask of more than {MAX_PIXELS:,} pixels",
    "Cut the image and its mask into tiles of the same names, or shrink both (masks with nearest "
    "neighbor).",
)
UNSUPPORTED = faults.Kind(
    "TIFF image or mask of a form that Pillow cannot read",
    "Save it as PNG, or as a TIFF of 8-bit gray or RGB.",
)
PAGES = faults.Kind(
    "image or mask of several pages",
    "Only single pictures are read: save the page that holds the picture, or the bands of all "
    "pages, as one file of 8-bit gray or RGB.",
)

DEEP = faults.Kind(
    "image with more than 8 bits per value, or with signed or real numbers",
    "Choose the relevant range of values and save it as 8 bits. The program cannot guess this "
    "range.",
)
BANDS = faults.Kind(
    "image with bands other than gray, color and alpha",
    "Choose one or three bands and save them as gray or RGB.",
)


@dataclasses.dataclass(frozen=True)
class Header:
    """The content of a file's header.

    Attributes:
        format: Pillow's name of the format.
        bands: the number of bands; 1 for a palette.
        bits: bits of one value; the largest of all bands.
        number: "uint", "int", "float" or another kind of number.
        num_unknown: the number of bands that are neither color, gray nor alpha.
        is_lossy: whether the compression changes pixels.
        num_pages: the number of pages without previews.
        nodata: the value without data of a GeoTIFF, or None.
        is_min_white: whether the smallest value is shown white (a TIFF of 8 bits or fewer), so that
            Pillow inverts the values.
        alpha: indices of the bands that the file declares as alpha.
    """

    format: str
    bands: int
    bits: int = 8
    number: str = "uint"
    num_unknown: int = 0
    is_lossy: bool = False
    num_pages: int = 1
    nodata: int | None = None
    is_min_white: bool = False
    alpha: tuple[int, ...] = ()

    @property
    def is_8_bit(self) -> bool:
        """Whether the values fit into uint8."""
        return self.bits <= 8 and self.number == "uint"

    def __str__(self) -> str:
        """Return the bands and the type: "6 bands of uint16"."""
        return f"{self.bands} band{'s' if self.bands > 1 else ''} of {self.number}{self.bits}"


def read(file: pathlib.Path) -> Header:
    """Read the header of a picture without decoding its pixels.

    Args:
        file: path of the file.

    Raises:
        WrongKindError: if the picture has too many pixels.
        OSError: or another error of Pillow, if the file is no picture or not a regular file.
    """
    files.check_regular(file)
    with file.open("rb") as stream:
        start = stream.read(32)
        if start.startswith(_TIFF):
            pages = _tiff_pages(stream)
            if pages:
                return _tiff_header(pages)
        is_lossy_webp = _is_lossy_webp(stream, start)
    if start.startswith(_PNG) and len(start) >= 26:
        _check_size(*struct.unpack(">II", start[16:24]))
        bands = _PNG_BANDS.get(start[25], 1)
        return Header("PNG", bands, start[24], alpha=(bands - 1,) if bands in (2, 4) else ())
    with open_image(file) as image:
        number, bits = _DEEP_MODES.get(image.mode, ("uint", 16 if ";16" in image.mode else 8))
        num_pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        is_lossy = image.format in _LOSSY_FORMATS or is_lossy_webp
        bands = len(image.getbands())
        return Header(image.format, bands, bits, number, is_lossy=is_lossy, num_pages=num_pages)


def num_tiff_pages(file: pathlib.Path) -> int:
    """Return the number of pages of a TIFF without previews; 0 if it is no sound TIFF.

    Raises:
        OSError: if the file cannot be read.
    """
    files.check_regular(file)
    with file.open("rb") as stream:
        pages = _tiff_pages(stream) if stream.read(4) in _TIFF else []
    return sum(not (page[_SUBFILE] or 0) & _PREVIEW for page in pages)


def check_image(file: pathlib.Path, page: int | None = None) -> Header:
    """Return the header of an image whose values and bands the networks can use.

    Args:
        file: path of the image.
        page: page of a file of several pages, from 0; None for a file of one page.

    Raises:
        WrongKindError: if the image has more than 8 bits per value, unknown bands, several pages
            or too many pixels.
        OSError: or another error of Pillow, if the file is no picture or not a regular file.
    """
    header = read(file)
    if not header.is_8_bit:
        raise faults.WrongKindError(DEEP, header)
    if header.num_unknown:
        raise faults.WrongKindError(BANDS, header)
    if header.num_pages > 1 and page is None:
        raise faults.WrongKindError(PAGES, f"{header.num_pages} pages of {header}")
    return header


def open_image(file: pathlib.Path, page: int | None = None) -> Image.Image:
    """Open a picture with Pillow; only regular files, known formats and up to MAX_PIXELS.

    Args:
        file: path of the file.
        page: page to show, from 0; None for the first.

    Raises:
        WrongKindError: if the picture has too many pixels.
        OSError: or another error of Pillow, if the file is no picture or not a regular file.
    """
    files.check_regular(file)
    try:
        image = _opened(file)
    except UnidentifiedImageError as error:
        with file.open("rb") as stream:
            pages = _tiff_pages(stream) if stream.read(4) in _TIFF else []
            bits = _jpeg_bits(stream)
        if pages:
            raise faults.WrongKindError(UNSUPPORTED, _tiff_header(pages)) from error
        if bits > 8:
            raise faults.WrongKindError(DEEP, f"JPEG of uint{bits}") from error
        raise
    try:
        _check_size(*image.size)
        if page:
            image.seek(page)
            _check_size(*image.size)
    except (faults.WrongKindError, EOFError):
        image.close()
        raise
    return image


def open_content(content: bytes) -> Image.Image:
    """Open a picture from the bytes of its file; see `open_image`."""
    image = _opened(io.BytesIO(content))
    _check_size(*image.size)
    return image


def _opened(source) -> Image.Image:
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # see _check_size
            return Image.open(source, formats=formats)
    except Image.DecompressionBombError as error:
        raise faults.WrongKindError(TOO_LARGE) from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise faults.WrongKindError(TOO_LARGE, f"{height}x{width}")


def _tiff_pages(stream) -> list[dict]:
    """Return the tags of each page; empty if they cannot be read."""
    try:
        directories = itertools.islice(_directories(stream), _MAX_PAGES)
        pages = [{tag: directory.get(tag) for tag in _TAGS} for directory in directories]
    except _DAMAGED_TIFF:
        return []
    return pages if all(page[_WIDTH] and page[_HEIGHT] for page in pages) else []


def tiff_tags(file: pathlib.Path, tags: Iterable[int]) -> tuple[tuple[int, int, tuple], ...]:
    """Return (tag, type, value) of the tags that the first page of a TIFF has.

    The pixels may be of a kind that Pillow cannot read. The result is empty for other files.

    Raises:
        OSError: if the file cannot be read.
    """
    files.check_regular(file)
    with file.open("rb") as stream:
        if stream.read(4) not in _TIFF:
            return ()
        try:
            first = next(_directories(stream))
            return tuple((tag, first.tagtype[tag], first[tag]) for tag in tags if tag in first)
        except (*_DAMAGED_TIFF, StopIteration):
            return ()


def _directories(stream) -> Iterator[TiffImagePlugin.ImageFileDirectory_v2]:
    """Yield the directory of each page; it is one object, which the next page overwrites."""
    stream.seek(0)
    start, seen = stream.read(8), set()
    is_big = not (start[2] in (0, 42) and start[3] in (0, 42))
    directory = TiffImagePlugin.ImageFileDirectory_v2(start + (stream.read(8) if is_big else b""))
    place = directory.next
    while place and place not in seen:
        seen.add(place)
        stream.seek(place)
        directory.load(stream)
        yield directory
        place = directory.next


_TAGS = (
    _SUBFILE,
    _WIDTH,
    _HEIGHT,
    _BITS,
    _COMPRESSION,
    _PHOTOMETRIC,
    _SAMPLES,
    _EXTRA_SAMPLES,
    _SAMPLE_FORMAT,
    _NODATA,
)


def _tiff_header(pages: list[dict]) -> Header:
    first = pages[0]
    _check_size(first[_WIDTH], first[_HEIGHT])
    bands = first[_SAMPLES] or 1
    extra = bands - _COLOR_BANDS.get(first[_PHOTOMETRIC], 1)
    kinds = first[_EXTRA_SAMPLES]
    # Old programs write alpha without the tag. 1 and 2 are the two kinds of alpha.
    declared = [kind in (1, 2) for kind in _tuple(kinds)] if kinds is not None else []
    has_alpha = extra > 0 and (kinds is None or any(declared))
    places = range(bands - extra, bands)
    return Header(
        "TIFF",
        bands,
        max(_tuple(first[_BITS] or 1)),
        _NUMBERS.get(_tuple(first[_SAMPLE_FORMAT] or 1)[0], "undefined"),
        num_unknown=max(0, extra - has_alpha),
        is_lossy=first[_COMPRESSION] in _LOSSY_COMPRESSIONS,
        num_pages=1 + sum(not (page[_SUBFILE] or 0) & _PREVIEW for page in pages[1:]),
        nodata=_whole(first[_NODATA]),
        is_min_white=first[_PHOTOMETRIC] == 0 and max(_tuple(first[_BITS] or 1)) <= 8,
        alpha=tuple(k for k, is_alpha in zip(places, declared, strict=False) if is_alpha),
    )


def _tuple(value) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _whole(text: str | None) -> int | None:
    """Return the whole number of a text such as "-9999" or "255.0", or None."""
    try:
        number = float(str(text).strip("\0 "))
        return int(number) if number == int(number) else None
    except (ValueError, OverflowError):
        return None


def _jpeg_bits(stream) -> int:
    """Return the bits of one value of a JPEG, which Pillow refuses above 8; 0 if it is no JPEG."""
    stream.seek(0)
    if stream.read(2) != b"\xff\xd8":
        return 0
    while len(head := stream.read(4)) == 4 and head[0] == 0xFF:
        if head[1] in (0xC0, 0xC1, 0xC2):  # start of frame: bits follow the length
            return (stream.read(1) or b"\0")[0]
        stream.seek(max(0, int.from_bytes(head[2:], "big") - 2), 1)
    return 0


def _is_lossy_webp(stream, start: bytes) -> bool:
    """Return whether a WebP file has a lossy picture: a chunk "VP8 "; "VP8L" is lossless."""
    if start[:4] != b"RIFF" or start[8:12] != b"WEBP":
        return False
    place = 12
    while True:
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8 or head[:4] == b"VP8L":
            return False
        if head[:4] in (b"VP8 ", b"ANMF"):
            return True
        place += 8 + (size := int.from_bytes(head[4:], "little")) + size % 2
