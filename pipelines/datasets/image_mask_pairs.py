"""Data sets of image files and mask files: find the pairs, read and check each of them."""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Container, Iterable, Mapping

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from pipelines.datasets import (
    faults,
    files,
    headers,
    inspection,
    masks,
    planes,
    raw_images,
    records,
    tiles,
)
from pipelines.datasets.spec import VOID, DatasetError, DatasetSpec, PixelWindow, printable

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
UNLABELLED_SPLIT = "test"
"""The only split that may have no masks, as the test splits of VOC and Cityscapes."""

# Pillow's names of formats whose bytes are kept. MPO is the JPEG variant of some cameras.
_KEPT_FORMATS = ("JPEG", "MPO", "PNG")
_ORIENTATION = 0x0112  # EXIF tag
# EXIF orientation -> the step that turns the stored pixels upright, and the step back.
_TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_LEFT_RIGHT),
    3: (Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_180),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_TOP_BOTTOM),
    5: (Image.Transpose.TRANSPOSE, Image.Transpose.TRANSPOSE),
    6: (Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_90),
    7: (Image.Transpose.TRANSVERSE, Image.Transpose.TRANSVERSE),
    8: (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270),
}
_DAMAGED = (*headers.DAMAGED, tf.errors.InvalidArgumentError)

ENDING = faults.Kind(
    "file of an unknown kind",
    f"Images may end in {' '.join(IMAGE_ENDINGS)}, masks in {' '.join(masks.ENDINGS)} (a JPEG "
    "would blur class ids). Convert these files, or move them elsewhere.",
)
TWICE = faults.Kind(
    "two files of one name", "Files are paired by name without ending: rename or remove one."
)
NO_MASK = faults.Kind(
    "image without a mask",
    "A mask has its image's name and another ending (a.jpg, a.png): add the mask, rename it, or "
    "remove the image.",
)
NO_IMAGE = faults.Kind("mask without an image", "Add the image, or remove the mask.")
LISTED = faults.Kind(
    "name on a list without an image file",
    "Add the image, or remove the name from the list (one name per line, without folder and "
    "ending).",
)
LISTED_PAIR = faults.Kind(
    "line 'image mask' of a list that names a missing file",
    "Paths are relative to the data set's folder: correct them, or add the files.",
)
EMPTY = faults.Kind(
    "split without any pair of image and mask",
    "Each split needs images and their masks: add them, or choose other splits with the arguments "
    "train_split and eval_split.",
)
SIZES = faults.Kind(
    "image and mask of different size (height x width)",
    "A mask needs its image's size; resize masks with nearest neighbor, never bilinear.",
)
NAME = faults.Kind(
    "file whose name is not valid UTF-8",
    "TensorFlow cannot open such files: rename them, for example with convmv.",
)
OUTSIDE = faults.Kind(
    "line 'image mask' of a list that names a file outside of the data set's folder",
    "Copy or link the files into the data set's folder, and correct the paths.",
)


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image file and its mask file; None where the split has no labels."""

    id: str
    image: pathlib.Path
    mask: pathlib.Path | None


@dataclasses.dataclass(frozen=True)
class DecodedImage:
    """An image, decoded in full.

    Attributes:
        kept: the file itself if TensorFlow can decode it, otherwise the image as PNG bytes, which
            are empty for a large image.
        pixels: uint8 [height, width, bands], as stored in the file; three bands are RGB.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        has_alpha: whether an alpha band is not opaque everywhere.
        is_nodata: bool [height, width], pixels without data in all bands, which are void; or None.
    """

    kept: pathlib.Path | bytes
    pixels: np.ndarray
    orientation: int = 1
    has_alpha: bool = False
    is_nodata: np.ndarray | None = None

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width after the image was turned by its EXIF orientation."""
        size = self.pixels.shape[:2]
        return size[::-1] if self.orientation >= 5 else size

    def turned(self) -> "DecodedImage":
        """Return the image upright, as PNG bytes; a large one has none."""
        step = _TURNS[self.orientation][0]
        pixels = _transposed(self.pixels, step)
        upright = dataclasses.replace(self, kept=_encoded(pixels), pixels=pixels, orientation=1)
        if self.is_nodata is None:
            return upright
        return dataclasses.replace(upright, is_nodata=_transposed(self.is_nodata, step))


def read(
    pair: Pair, rule: masks.MaskRule, window: PixelWindow | None = None
) -> inspection.CheckedImage:
    """Read and check an image and its mask; the result lists the faults.

    Args:
        pair: the files.
        rule: the meaning of the values of the mask.
        window: the mapping of stored values to 8 bits, or None for images of 8 bits.
    """
    mask = pair.mask
    return assemble(
        pair.id,
        (pair.image, "" if mask is None else mask),
        lambda: read_image(pair.image, window=window),
        None if mask is None else lambda _: masks.read(mask, rule),
    )


def assemble(
    name: str,
    source: tuple[object, object],
    image_reader: Callable[[], DecodedImage],
    label_reader: Callable[[tuple[int, int] | None], masks.Mask] | None,
) -> inspection.CheckedImage:
    """Read and check an image and its labels with given functions.

    Args:
        name: the image's name.
        source: files of the image and of its labels, for messages.
        image_reader: function () -> the image.
        label_reader: function ((height, width) of the upright image, or None) -> the labels. None
            where the split has no labels.
    """
    image, image_problem = attempt(image_reader, source[0])
    if label_reader is None:
        mask, mask_problem = _all_void(image), None
    else:
        size = None if image is None else image.upright_size
        mask, mask_problem = attempt(lambda: label_reader(size), source[1])
    problems = [problem for problem in (image_problem, mask_problem) if problem is not None]
    found = [problem for problem in problems if isinstance(problem, tuple)]
    sample, is_turned, warnings = None, False, ()
    if image is not None:
        image, is_turned, warnings = _fitted(image, mask if label_reader else None)
    if image is not None and mask is not None:
        if mask.ids.shape != image.pixels.shape[:2]:
            found.append(_size_fault(source, image, mask))
        elif not mask.wrong and not mask.unknown:
            sample = inspection.Sample(name, image.kept, _without_nodata(mask.ids, image))
    return inspection.CheckedImage(
        id=name,
        sample=sample,
        pixels=None if image is None else image.pixels,
        mask=None if label_reader is None else mask,
        image_file=str(source[0]),
        mask_file=str(source[1]),
        found=tuple(found),
        unreadable=tuple(problem for problem in problems if isinstance(problem, str)),
        is_turned=is_turned,
        is_large=sample is not None and tiles.is_large(image.pixels),
        warnings=warnings,
    )


def _without_nodata(ids: np.ndarray, image: DecodedImage) -> np.ndarray:
    """Return the class ids, void where the image holds no data."""
    if image.is_nodata is None or not image.is_nodata.any():
        return ids
    return np.where(image.is_nodata, VOID, ids).astype(np.uint8)


def _fitted(image: DecodedImage, mask: masks.Mask | None) -> tuple:
    """Return the image, upright unless its mask fits only the stored pixels; and the warnings.

    Annotation tools and viewers turn images by their EXIF orientation before anything is drawn.

    Returns:
        (image, whether it was turned, kinds of warning).
    """
    warnings = (inspection.ALPHA,) if image.has_alpha else ()
    if image.orientation == 1:
        return image, False, warnings
    stored = image.pixels.shape[:2]
    if mask is not None and mask.ids.shape == stored != image.upright_size:
        return image, False, (*warnings, inspection.NOT_TURNED)
    if mask is not None and stored == image.upright_size:
        warnings = (*warnings, inspection.UNDECIDED)
    return image.turned(), True, warnings


def attempt(function: Callable, file: object):
    """Return (function(), None), or None with (kind, file) or the reason for damage."""
    try:
        return function(), None
    except faults.WrongKindError as wrong:
        return None, (wrong.kind, wrong.described(file))
    except _DAMAGED as error:
        return None, printable(f"{file} ({_reason(error)})")


def _all_void(image: DecodedImage | None) -> masks.Mask | None:
    if image is None:
        return None
    return masks.Mask(np.full(image.upright_size, VOID, np.uint8))


def _size_fault(source, image: DecodedImage, mask: masks.Mask) -> tuple[faults.Kind, str]:
    sizes = (image.pixels.shape[:2], mask.ids.shape)
    text = " and ".join(f"{height}x{width}" for height, width in sizes)
    return SIZES, f"{source[0]} and {source[1]} ({text})"


def read_image(
    file: pathlib.Path, page: int | None = None, window: PixelWindow | None = None
) -> DecodedImage:
    """Decode an image completely with Pillow and with TensorFlow, which is stricter.

    Args:
        file: path of the image.
        page: page of a file of several pages, from 0; None for a file of one page.
        window: the mapping of stored values to 8 bits, or None for images of 8 bits.

    Raises:
        WrongKindError: if the image has more than 8 bits per value, unknown bands, several pages
            or too many pixels.
        OSError: or another error of _DAMAGED, if it is damaged.
    """
    if window is not None:
        pixels, is_nodata = raw_images.windowed(file, page, window)
        kept, orientation = _encoded(pixels), _orientation(file)
        return DecodedImage(kept, pixels, orientation, is_nodata=is_nodata)
    header = headers.check_image(file, page)
    with headers.open_image(file, page) as image:
        is_kept = image.format in _KEPT_FORMATS
        return _decoded(image, file if is_kept else None, header.format)


def _orientation(file: pathlib.Path) -> int:
    """Return the EXIF orientation of an image of any number of bits; 1 where there is none."""
    tags = headers.tiff_tags(file, (_ORIENTATION,))
    if tags:
        ((_, _, value),) = tags
        value = value[0] if isinstance(value, tuple) else value
    elif headers.read(file).format == "TIFF":  # Pillow may not open it
        return 1
    else:
        with headers.open_image(file) as image:
            value = image.getexif().get(_ORIENTATION, 1)
    return value if value in _TURNS else 1


def _encoded(pixels: np.ndarray) -> bytes:
    """Return an image as PNG bytes; empty for a large one, which is stored as tiles."""
    return b"" if tiles.is_large(pixels) else planes.encode(pixels)


def read_embedded(content: bytes) -> DecodedImage:
    """Decode an image from the bytes of a file that lies inside of an annotation.

    Raises:
        WrongKindError: if it has too many pixels.
        OSError: or another error of _DAMAGED, if it is damaged.
    """
    with headers.open_content(content) as image:
        return _decoded(image, None, image.format)


def _decoded(image: Image.Image, kept: pathlib.Path | None, format_: str) -> DecodedImage:
    """Decode an open image; `kept` is its file if TensorFlow can decode it, otherwise None."""
    # Pillow turns TIFF images itself when it loads them, and then forgets the orientation.
    orientation = image.getexif().get(_ORIENTATION, 1)
    image.load()
    orientation = orientation if orientation in _TURNS else 1
    size, has_alpha = (image.height, image.width), _has_alpha(image)
    if kept is None:
        pixels = np.asarray(image.convert("RGB"))
        if format_ == "TIFF" and orientation > 1:
            pixels = _transposed(pixels, _TURNS[orientation][1])
            size = pixels.shape[:2]
        content = records.encode_png(pixels)
    else:
        content = kept.read_bytes()
    decoded = tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
    if decoded.shape[:2] != size:
        raise ValueError(f"decoders disagree on its size: {size} and {decoded.shape[:2]}")
    return DecodedImage(kept or content, decoded, orientation, has_alpha)


def _has_alpha(image: Image.Image) -> bool:
    """Return whether an alpha band or a transparent palette entry hides a pixel."""
    if not image.has_transparency_data:
        return False
    return image.convert("RGBA").getchannel("A").getextrema()[0] < 255


def _transposed(pixels: np.ndarray, step: Image.Transpose) -> np.ndarray:
    """Return [height, width, ...] of any type and number of bands as Pillow transposes images."""
    turns = {
        Image.Transpose.FLIP_LEFT_RIGHT: lambda x: x[:, ::-1],
        Image.Transpose.FLIP_TOP_BOTTOM: lambda x: x[::-1],
        Image.Transpose.ROTATE_90: np.rot90,
        Image.Transpose.ROTATE_180: lambda x: x[::-1, ::-1],
        Image.Transpose.ROTATE_270: lambda x: np.rot90(x, 3),
        Image.Transpose.TRANSPOSE: lambda x: x.swapaxes(0, 1),
        Image.Transpose.TRANSVERSE: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    }
    return np.ascontiguousarray(turns[step](pixels))


def no_data_dir(name: str, advice: str) -> DatasetError:
    """Return the error for a data set without data_dir; `advice` is on the expected layout."""
    return DatasetError(f"Data set '{name}' needs data_dir, its own folder or its parent. {advice}")


def data_folder(data_dir: str | os.PathLike | None, name: str, advice: str) -> pathlib.Path:
    """Return the user's folder as an absolute path.

    Args:
        data_dir: the user's argument.
        name: the data set, for the message.
        advice: sentence on the expected layout, for the message.

    Raises:
        DatasetError: if data_dir is None or not a folder.
    """
    if data_dir is None:
        raise no_data_dir(name, advice)
    folder = pathlib.Path(data_dir).expanduser().resolve()
    if not folder.is_dir():
        raise DatasetError(f"data_dir={str(data_dir)!r} is not a folder. {advice}")
    if not files.is_utf8(str(folder)):
        raise DatasetError(
            f"The path {folder} is not valid UTF-8, and TensorFlow cannot open files in it. Rename "
            "its folders."
        )
    return folder


def files_by_stem(
    folder: pathlib.Path, endings: Iterable[str], found: faults.Faults
) -> dict[str, pathlib.Path]:
    """Return the folder's files by name without ending; skip system files and all folders."""
    by_stem: dict[str, pathlib.Path] = {}
    first: dict[str, pathlib.Path] = {}  # by the name in one Unicode form
    for file in files.entries(folder):
        if file.is_dir():
            continue
        if not files.is_utf8(file.name):
            found.add(NAME, file)
        elif file.suffix.lower() not in endings:
            found.add(ENDING, file)
        elif files.normal(file.stem) in first:
            found.add(TWICE, f"{first[files.normal(file.stem)]} and {file.name}")
        else:
            by_stem[file.stem] = first[files.normal(file.stem)] = file
    return by_stem


def pair_all(
    image_files: Mapping, mask_files: Mapping, found: faults.Faults, split: str | None = None
) -> tuple[Pair, ...]:
    """Pair all images with all masks, in the order of their names; see `pair_listed`."""
    images = {files.normal(stem) for stem in image_files}
    for stem in sorted(stem for stem in mask_files if files.normal(stem) not in images):
        found.add(NO_IMAGE, mask_files[stem])
    return pair_listed(sorted(image_files), image_files, mask_files, found, split)


def pair_listed(
    ids: Iterable[str],
    image_files: Mapping,
    mask_files: Mapping,
    found: faults.Faults,
    split: str | None = None,
) -> tuple[Pair, ...]:
    """Pair the images of a list with their masks, in the list's order.

    Names are compared in one Unicode form: macOS may write the name of an image in another form
    than a list does. The id of a pair is the name of the image file.

    Args:
        ids: names of the images.
        image_files: name -> file of each image.
        mask_files: name -> file of each mask.
        found: collects the faults.
        split: name of the split. In UNLABELLED_SPLIT it is no fault if no image has a mask.
    """
    ids = tuple(ids)
    image_ids = {files.normal(stem): stem for stem in image_files}
    masks_of = {files.normal(stem): file for stem, file in mask_files.items()}
    has_labels = split != UNLABELLED_SPLIT or any(files.normal(stem) in masks_of for stem in ids)
    pairs = []
    for stem in ids:
        image_id = image_ids.get(files.normal(stem))
        if image_id is None:
            found.add(LISTED, f"{stem} (split '{split}')" if split else stem)
        elif has_labels and files.normal(stem) not in masks_of:
            found.add(NO_MASK, image_files[image_id])
        else:
            mask = masks_of.get(files.normal(stem))
            pairs.append(Pair(image_id, image_files[image_id], mask))
    return tuple(pairs)


def read_list(
    file: pathlib.Path, images: Iterable[str] = (), messages: list[str] | None = None
) -> tuple[str, ...]:
    """Read the names of a list file, each name once.

    A line is a name, with or without its folder and the ending of an image file: the lists of the
    M&M release contain the ending. Names may hold blanks, so the whole line is tried first. Words
    after the name are ignored: the lists of VOC's other tasks have a number there.

    Args:
        file: path of the list.
        images: names of the existing images, without ending.
        messages: gets a sentence if the encoding of the file was a guess.
    """
    known = {files.normal(name) for name in images}
    lines = files.read_lines(file, messages)
    return tuple(dict.fromkeys(listed_name(line, known) for line in lines if line))


def listed_name(line: str, known: Container[str]) -> str:
    """Return the name of an image in a line of a list; see `read_list`.

    Example:
        >>> listed_name("images/my photo.jpg 1", {"my photo"})
        'my photo'
    """
    words = re.split(r"(\s+)", line)
    for end in range(len(words), 0, -2):
        start = "".join(words[:end])
        for name in (start, start.replace("\\", "/").rpartition("/")[2]):
            for stem in (_without_ending(name), name):
                if files.normal(stem) in known:
                    return stem
    return _without_ending(words[0])


def _without_ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return stem if f"{dot}{ending}".lower() in IMAGE_ENDINGS else name


def plan(
    spec: DatasetSpec,
    builder: type[records.RecordsBuilder],
    rule: masks.MaskRule,
    splits: Mapping[str, tuple[Pair, ...]],
    train_split: str,
    eval_split: str,
    found: faults.Faults,
    messages: tuple[str, ...] = (),
) -> records.Plan:
    """Return the plan of a data set of pairs; a split without pairs is a fault."""
    for split, pairs in splits.items():
        if not pairs:
            found.add(EMPTY, f"'{split}'")
    return records.Plan(
        spec=spec,
        builder=builder,
        splits=dict(splits),
        read=functools.partial(read, rule=rule),
        reader=read,
        rule=rule,
        train_split=train_split,
        eval_split=eval_split,
        fingerprint=fingerprint(splits),
        messages=messages,
        found=found,
        root=_common_folder(splits),
    )


def _common_folder(splits: Mapping[str, Iterable[Pair]]) -> str:
    folders = {str(pair.image.parent) for pairs in splits.values() for pair in pairs}
    return os.path.commonpath(folders) if folders else ""


def size_message(split: str, num_images: int, num_official: int) -> str:
    """Return a sentence for the log if a split has not its official size, or "".

    Example:
        >>> size_message("val", 1449, 1449)
        ''
    """
    if num_images == num_official:
        return ""
    return (
        f"Split '{split}' has {num_images:,} images, the official one {num_official:,}: do not "
        "compare its figures with published figures."
    )


def fingerprint(splits: Mapping[str, Iterable[Pair]]) -> str:
    """Return text made of the names, sizes and times of all files, in order."""
    lines = []
    for split, pairs in splits.items():
        for pair in pairs:
            stats = [state(file) for file in (pair.image, pair.mask) if file is not None]
            lines.append(repr((split, pair, stats)))
    return "\n".join(lines)


def state(file: pathlib.Path) -> tuple[int, int] | None:
    """Return (size, time) of a file; None for a broken link, which `read` reports."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or its header is damaged"
    if isinstance(error, tf.errors.InvalidArgumentError):
        return "damaged or cut short: TensorFlow cannot decode it"
    return files.reason(error)
