"""Data sets of image files and mask files: find the pairs, read and check each of them."""

import dataclasses
import functools
import os
import pathlib
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from pipelines.datasets import faults, inspection, masks, records
from pipelines.datasets.spec import VOID, DatasetError, DatasetSpec

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
UNLABELLED_SPLIT = "test"
"""The only split that may have no masks, as the test splits of VOC and Cityscapes."""

# Pillow's names of formats whose bytes are kept. MPO is the JPEG variant of some cameras.
_KEPT_FORMATS = ("JPEG", "MPO", "PNG")
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
_ORIENTATION = 0x0112  # EXIF tag
# Errors of Pillow on damaged files and on images above its pixel limit, and of TensorFlow.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    tf.errors.InvalidArgumentError,
)

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
TURNED = faults.Kind(
    "image that its EXIF data turn by a quarter, with a mask made for the turned image",
    "EXIF data are not applied: save the images upright (Pillow: ImageOps.exif_transpose).",
)
DEEP = faults.Kind(
    "image with more than 8 bits per value",
    "Choose the relevant range of values and save it as 8 bits. The program cannot guess this "
    "range.",
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
        kept: the file itself if TensorFlow can decode it, otherwise the image as PNG bytes.
        pixels: uint8 [height, width, 3], RGB, as stored in the file.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
    """

    kept: pathlib.Path | bytes
    pixels: np.ndarray
    orientation: int


def read(pair: Pair, rule: masks.MaskRule) -> inspection.CheckedImage:
    """Read and check an image and its mask; the result lists the faults."""
    image, image_problem = _attempt(read_image, pair.image)
    if pair.mask is None:
        mask, mask_problem = _all_void(image), None
    else:
        mask, mask_problem = _attempt(lambda file: masks.read(file, rule), pair.mask)
    problems = [problem for problem in (image_problem, mask_problem) if problem is not None]
    found = [problem for problem in problems if isinstance(problem, tuple)]
    sample = None
    if image is not None and mask is not None:
        if mask.ids.shape != image.pixels.shape[:2]:
            found.append(_size_fault(pair, image, mask))
        elif not mask.wrong and not mask.unknown:
            sample = inspection.Sample(pair.id, image.kept, mask.ids)
    return inspection.CheckedImage(
        id=pair.id,
        sample=sample,
        pixels=None if image is None else image.pixels,
        mask=None if pair.mask is None else mask,
        image_file=str(pair.image),
        mask_file="" if pair.mask is None else str(pair.mask),
        found=tuple(found),
        unreadable=tuple(problem for problem in problems if isinstance(problem, str)),
        orientation=1 if image is None else image.orientation,
    )


def _attempt(function: Callable, file: pathlib.Path):
    """Return (function(file), None), or None with (kind, file) or the reason for damage."""
    try:
        return function(file), None
    except faults.WrongKindError as wrong:
        return None, (wrong.kind, str(file))
    except _DAMAGED as error:
        return None, f"{file} ({_reason(error)})"


def _all_void(image: DecodedImage | None) -> masks.Mask | None:
    if image is None:
        return None
    return masks.Mask(np.full(image.pixels.shape[:2], VOID, np.uint8))


def _size_fault(pair: Pair, image: DecodedImage, mask: masks.Mask) -> tuple[faults.Kind, str]:
    sizes = (image.pixels.shape[:2], mask.ids.shape)
    is_turned = image.orientation >= 5 and sizes[0] == sizes[1][::-1]
    text = " and ".join(f"{height}x{width}" for height, width in sizes)
    return TURNED if is_turned else SIZES, f"{pair.image} and {pair.mask} ({text})"


def read_image(file: pathlib.Path) -> DecodedImage:
    """Decode an image completely with Pillow and with TensorFlow, which is stricter.

    Args:
        file: path of the image.

    Raises:
        WrongKindError: if the image has more than 8 bits per value.
        OSError: or another error of _DAMAGED, if it is damaged.
    """
    content = file.read_bytes()
    kept: pathlib.Path | bytes = file
    with Image.open(file) as image:
        if image.mode in _DEEP_MODES or _is_deep_png(content):
            raise faults.WrongKindError(DEEP)
        image.load()
        size, orientation = (image.height, image.width), image.getexif().get(_ORIENTATION, 1)
        if image.format not in _KEPT_FORMATS:
            if getattr(image, "n_frames", 1) > 1:
                raise ValueError("holds several pages")
            kept = content = records.encode_png(np.asarray(image.convert("RGB")))
    decoded = tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
    if decoded.shape[:2] != size:
        raise ValueError(f"decoders disagree on its size: {size} and {decoded.shape[:2]}")
    return DecodedImage(kept, decoded, orientation if orientation in range(1, 9) else 1)


def _is_deep_png(content: bytes) -> bool:
    """Return whether a PNG has 16 bits per value; Pillow silently keeps 8 of a color image."""
    return content.startswith(b"\x89PNG\r\n\x1a\n") and content[24:25] == b"\x10"


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
        raise DatasetError(
            f"Data set '{name}' needs data_dir, its own folder or its parent. {advice}"
        )
    folder = pathlib.Path(data_dir).expanduser().resolve()
    if not folder.is_dir():
        raise DatasetError(f"data_dir={str(data_dir)!r} is not a folder. {advice}")
    return folder


def files_by_stem(
    folder: pathlib.Path, endings: Iterable[str], found: faults.Faults
) -> dict[str, pathlib.Path]:
    """Return the folder's files by name without ending; skip hidden files and folders."""
    files: dict[str, pathlib.Path] = {}
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or file.is_dir():
            continue
        if file.suffix.lower() not in endings:
            found.add(ENDING, file)
        elif file.stem in files:
            found.add(TWICE, f"{files[file.stem]} and {file.name}")
        else:
            files[file.stem] = file
    return files


def pair_all(
    image_files: Mapping, mask_files: Mapping, found: faults.Faults, split: str | None = None
) -> tuple[Pair, ...]:
    """Pair all images with all masks, in the order of their names; see `pair_listed`."""
    for stem in sorted(mask_files.keys() - image_files.keys()):
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

    Args:
        ids: names of the images.
        image_files: name -> file of each image.
        mask_files: name -> file of each mask.
        found: collects the faults.
        split: name of the split. In UNLABELLED_SPLIT it is no fault if no image has a mask.
    """
    ids = tuple(ids)
    has_labels = split != UNLABELLED_SPLIT or any(stem in mask_files for stem in ids)
    pairs = []
    for stem in ids:
        if stem not in image_files:
            found.add(LISTED, f"{stem} (split '{split}')" if split else stem)
        elif has_labels and stem not in mask_files:
            found.add(NO_MASK, image_files[stem])
        else:
            pairs.append(Pair(stem, image_files[stem], mask_files.get(stem)))
    return tuple(pairs)


def read_list(file: pathlib.Path) -> tuple[str, ...]:
    """Read the names of a list file: the first word of each line, each name once.

    The ending of an image file is removed: the lists of the M&M release contain it.
    """
    lines = (line.split() for line in file.read_text(encoding="utf-8-sig").splitlines())
    return tuple(dict.fromkeys(_without_ending(words[0]) for words in lines if words))


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
        rule=rule,
        train_split=train_split,
        eval_split=eval_split,
        fingerprint=fingerprint(splits),
        messages=messages,
        found=found,
    )


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
            stats = [file.stat() for file in (pair.image, pair.mask) if file is not None]
            lines.append(repr((split, pair, [(s.st_size, s.st_mtime_ns) for s in stats])))
    return "\n".join(lines)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or its header is damaged"
    if isinstance(error, tf.errors.InvalidArgumentError):
        return "damaged or cut short: TensorFlow cannot decode it"
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__
