"""Data sets made of image files and mask files: finding the pairs, reading and checking each one.

Masks are read as indices (the colours of a palette PNG mean nothing). Faults are collected, and
become one DatasetError with up to ten file names a kind, which says what to do.
"""

import dataclasses
import os
import pathlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from pipelines import datasets
from pipelines.builders import records

VOID = datasets.VOID
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
# Formats by content, in Pillow's words, whose bytes are kept; MPO is a JPEG of some cameras.
_KEPT_FORMATS = ("JPEG", "MPO", "PNG")
_INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
# All that Pillow raises on damaged files (and beyond its bound on pixels), and TensorFlow.
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

# Kinds of fault: {names} becomes the files at fault.
_ENDING = (
    "file of a kind that is not read here: {names}. Images may end in "
    f"{' '.join(IMAGE_ENDINGS)}, masks in {' '.join(MASK_ENDINGS)} (a JPEG would blur class ids). "
    "Convert these files, or move them elsewhere."
)
_TWICE = (
    "two files of one name: {names}. Files pair by their name without ending: rename or remove one."
)
_NO_MASK = (
    "image without a mask: {names}. A mask has its image's name and another ending (a.jpg, a.png): "
    "add the mask, rename it, or remove the image."
)
_NO_IMAGE = "mask without an image: {names}. Add the image, or remove the mask."
_LISTED = (
    "name on a list without an image file: {names}. Add the image, or take the name off the list "
    "(one name a line, without folder and ending)."
)
_SIZES = (
    "image and mask of different size (height x width): {names}. "
    "A mask needs its image's size; resize masks with nearest neighbour, never bilinear."
)
_DEEP = (
    "image with more than 8 bits a grey value: {names}. Choose the range of values that matters "
    "and save it as 8 bits; a choice made here would be a guess."
)
_COLOURED = (
    "mask that holds colours, not class ids: {names}. Colour masks need a colour table, which is "
    "not supported: save each pixel's class id as a grey or palette PNG, 255 for void."
)
_LOSSY = "mask that is a JPEG, which blurs class ids: {names}. Save masks as PNG from their source."
_BINARY = (
    "data set whose masks hold {names} and 255 only: a binary mask? 255 is void, so class 1 has no "
    "pixel. Write 1 instead of 255."
)


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image file and its mask file."""

    id: str
    image: pathlib.Path
    mask: pathlib.Path


class Faults:
    """Faulty files by kind; a kind is the sentence that explains it, with {names} in it."""

    def __init__(self):
        self._names: dict[str, list[str]] = {}

    def add(self, kind: str, name: object) -> None:
        """Notes one file."""
        self._names.setdefault(kind, []).append(str(name))

    def check(self, where: str) -> None:
        """Raises one DatasetError that lists all faults, if there are any."""
        lines = [
            f"{len(names)} x {kind.format(names=records.named(names))}"
            for kind, names in self._names.items()
        ]
        if lines:
            raise datasets.DatasetError(f"{where}: " + "\n".join(lines))


class _WrongKindError(Exception):
    """A file that is whole but not usable; holds the kind of fault."""


class PairedBuilder(records.RecordsBuilder, skip_registration=True):
    """Reads pairs (`plan.splits`: tuple of Pair by split) and checks each of them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._faults = Faults()
        self._values: set[int] = set()  # over all masks
        self._out_of_range: list[pathlib.Path] = []

    def samples(self, split: str) -> Iterator[records.Sample]:
        """Yields the pairs of a split that are free of faults."""
        num_yielded = 0
        for pair in self.builder_config.plan.splits[split]:
            sample = self._read(pair)
            if sample is not None:
                num_yielded += 1
                yield sample
        if not num_yielded:
            # TFDS cannot write an empty split: this is the end, so name the other faults too.
            splits = list(self.builder_config.plan.splits)
            for later in splits[splits.index(split) + 1 :]:
                for pair in self.builder_config.plan.splits[later]:
                    self._read(pair)
            self.check()
            raise datasets.DatasetError(
                f"Split '{split}' has no readable image; left out were "
                f"{records.named(self.index.unreadable)}. Restore these files."
            )

    def check(self) -> None:
        """Raises one DatasetError for all that was found."""
        spec = self.builder_config.plan.spec
        kind = value_fault(self._values, spec.num_classes)
        for file in self._out_of_range:
            self._faults.add(kind, file)
        if self._values == {0, VOID} and spec.num_classes > 1:
            self._faults.add(_BINARY, 0)
        self._faults.check(f"Data set '{spec.name}'")
        records.check_unreadable(self.index.unreadable, self.builder_config.max_unreadable)

    def _read(self, pair: Pair) -> records.Sample | None:
        file = pair.image
        try:
            image, size = read_image(file)
            file = pair.mask
            mask = read_mask(file)
        except _WrongKindError as wrong:
            self._faults.add(str(wrong), file)
            return None
        except _DAMAGED as error:
            self.index.unreadable.append(f"{file} ({_reason(error)})")
            return None
        return self._sample(pair, image, size, mask)

    def _sample(self, pair, image, size, mask) -> records.Sample | None:
        values = np.unique(mask)
        self._values.update(values.tolist())
        num_classes = self.builder_config.plan.spec.num_classes
        if mask.shape != size:
            sizes = " and ".join(f"{height}x{width}" for height, width in (size, mask.shape))
            self._faults.add(_SIZES, f"{pair.image} and {pair.mask} ({sizes})")
        elif not np.isin(values, [*range(num_classes), VOID]).all():
            self._out_of_range.append(pair.mask)
        else:
            return records.Sample(pair.id, image, mask.astype(np.uint8))
        return None


def read_image(file: pathlib.Path) -> tuple[pathlib.Path | bytes, tuple[int, int]]:
    """Decodes an image in full, with Pillow and with TensorFlow, which is the stricter one.

    Returns:
        The file itself if TensorFlow can decode it, otherwise PNG bytes of it; and (height, width).

    Raises:
        _WrongKindError or one of _DAMAGED.
    """
    content = file.read_bytes()
    kept: pathlib.Path | bytes = file
    with Image.open(file) as image:
        if image.mode in _DEEP_MODES:
            raise _WrongKindError(_DEEP)
        image.load()
        size = (image.height, image.width)
        if image.format not in _KEPT_FORMATS:
            if getattr(image, "n_frames", 1) > 1:
                raise ValueError("holds several pages")
            kept = content = records.encode_png(np.asarray(image.convert("RGB")))
    decoded = tf.io.decode_image(content, channels=3, expand_animations=False)
    if tuple(decoded.shape[:2]) != size:
        raise ValueError(f"decoders disagree on its size: {size} and {tuple(decoded.shape[:2])}")
    return kept, size


def read_mask(file: pathlib.Path) -> np.ndarray:
    """Reads a mask's indices, integers [height, width]; not yet checked against the classes.

    Raises:
        _WrongKindError or one of _DAMAGED.
    """
    with Image.open(file) as mask:
        if mask.format in ("JPEG", "MPO"):
            raise _WrongKindError(_LOSSY)
        if mask.mode not in _INDEX_MODES:
            raise _WrongKindError(_COLOURED)
        pixels = np.asarray(mask)
    return pixels.astype(np.uint8) if pixels.dtype == bool else pixels


def value_fault(values: Iterable[int], num_classes: int) -> str:
    """Returns the kind of fault for masks that hold `values`, some of them no class id."""
    wrong = sorted(set(values) - {*range(num_classes), VOID})
    seen = (
        f"{wrong[0]} to {wrong[-1]} seen" if len(wrong) > 1 else f"{wrong[0] if wrong else ''} seen"
    )
    hint = "Correct the masks or the list of classes."
    if num_classes == 19 and wrong and wrong[0] >= 19 and wrong[-1] <= 33:  # as in Cityscapes
        hint = "These look like labelIds, trainIds are needed (*_labelTrainIds.png)."
    elif wrong == [num_classes] and 0 not in values:
        hint = "The ids seem to start at 1: the first class is 0."
    return (
        f"mask with values outside the classes, {seen} where 0 to {num_classes - 1} and {VOID} "
        f"(void) are allowed: {{names}}. {hint}"
    )


def data_folder(data_dir: str | os.PathLike | None, name: str, advice: str) -> pathlib.Path:
    """Returns the folder that the user gave, as an absolute path.

    Raises:
        DatasetError: if none was given, or it is no folder.
    """
    if data_dir is None:
        raise datasets.DatasetError(
            f"Data set '{name}' needs --data_dir, its own folder or its parent. {advice}"
        )
    folder = pathlib.Path(data_dir).expanduser().resolve()
    if not folder.is_dir():
        raise datasets.DatasetError(f"--data_dir={data_dir} is not a folder. {advice}")
    return folder


def files_by_stem(folder: pathlib.Path, endings: Iterable[str], faults: Faults) -> dict:
    """Returns the folder's files by name without ending; hidden files and folders are left out."""
    found: dict[str, pathlib.Path] = {}
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or file.is_dir():
            continue
        if file.suffix.lower() not in endings:
            faults.add(_ENDING, file)
        elif file.stem in found:
            faults.add(_TWICE, f"{found[file.stem]} and {file.name}")
        else:
            found[file.stem] = file
    return found


def pair_all(images: Mapping, masks: Mapping, faults: Faults) -> tuple[Pair, ...]:
    """Pairs all images with all masks, in the order of their names."""
    for stem in sorted(masks.keys() - images.keys()):
        faults.add(_NO_IMAGE, masks[stem])
    return pair_listed(sorted(images), images, masks, faults)


def pair_listed(
    ids: Iterable[str], images: Mapping, masks: Mapping, faults: Faults
) -> tuple[Pair, ...]:
    """Pairs the images of a list with their masks, in the list's order."""
    pairs = []
    for stem in ids:
        if stem not in images:
            faults.add(_LISTED, stem)
        elif stem not in masks:
            faults.add(_NO_MASK, images[stem])
        else:
            pairs.append(Pair(stem, images[stem], masks[stem]))
    return tuple(pairs)


def read_list(file: pathlib.Path) -> tuple[str, ...]:
    """Reads the names of a list file: the first word of each line, each name once."""
    lines = (line.split() for line in file.read_text(encoding="utf-8-sig").splitlines())
    return tuple(dict.fromkeys(words[0] for words in lines if words))


def fingerprint(splits: Mapping[str, Iterable[Pair]]) -> str:
    """Returns text made of all files' names, sizes and times, in order."""
    lines = []
    for split, pairs in splits.items():
        for pair in pairs:
            stats = [file.stat() for file in (pair.image, pair.mask)]
            lines.append(repr((split, pair, [(s.st_size, s.st_mtime_ns) for s in stats])))
    return "\n".join(lines)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or its head is damaged"
    if isinstance(error, tf.errors.InvalidArgumentError):
        return "damaged or cut short: TensorFlow cannot decode it"
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__
