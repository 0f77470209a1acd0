"""Images without labels, for the proxies: the usable image files of any folder.

Each file is decoded once before training, by the same function that training uses. A damaged file
therefore cannot stop a run. If a task needs color, gray images are left out as well.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import os
import pathlib
import struct
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pipelines.batches import views
from pipelines.datasets import faults, headers
from pipelines.datasets import files as file_rules
from pipelines.datasets.spec import DatasetError, printable

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp")

GRAY_TOLERANCE = 3
"""The largest difference of red, green and blue at any pixel of a gray image. A JPEG has this
difference if both color components are one step off neutral (R - Y = 1.402, B - Y = 1.772; JFIF
1.02).
"""

# Folders of data sets. Masks are left out if images are beside them, and records of TFDS always.
_IMAGE_FOLDERS = ("images", "jpegimages", "leftimg8bit")
_MASK_FOLDERS = (
    "annotations",
    "gtcoarse",
    "gtfine",
    "labels",
    "masks",
    "segmentationclass",
    "segmentationclassaug",
    "segmentationobject",
)
_RECORDS = "dataset_info.json"
_GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")  # Pillow's, of one channel
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    faults.WrongKindError,
    tf.errors.OpError,
)
_USED, _GRAY_MODE, _GRAY_PIXELS = "used", "gray mode", "gray pixels"
_COARSE = 8  # pixels; every eighth row and column is enough to find color in nearly all images


@dataclasses.dataclass(frozen=True)
class Files:
    """Image files for training, and the files that were left out.

    Attributes:
        image_files: absolute paths of files that can be decoded, in order.
        gray_mode: left out files with one gray channel; empty if color is not needed.
        gray_pixels: left out files with three channels that differ by at most GRAY_TOLERANCE at
            every pixel; empty if color is not needed.
        unreadable: files that cannot be used, each with the reason.
        masks: image files in mask folders and other data folders, which were not read.
    """

    image_files: tuple[str, ...]
    gray_mode: tuple[str, ...] = ()
    gray_pixels: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()

    @property
    def num_gray(self) -> int:
        """The number of gray images of both kinds."""
        return len(self.gray_mode) + len(self.gray_pixels)

    @property
    def messages(self) -> tuple[str, ...]:
        """Sentences for the log: the used files, and the files left out with the reason."""
        num_found = len(self.image_files) + self.num_gray + len(self.unreadable)
        lines = [f"{len(self.image_files)} of {num_found} unlabelled images are used."]
        if self.num_gray:
            lines.append(
                f"Left out {self.num_gray} gray images, which have no color to learn: "
                f"{len(self.gray_mode)} stored as gray, {len(self.gray_pixels)} stored in color "
                f"with red, green and blue nowhere more than {GRAY_TOLERANCE} apart."
            )
        if self.unreadable:
            lines.append(f"Left out {len(self.unreadable)} unreadable: {_named(self.unreadable)}.")
        if self.masks:
            folders = sorted({str(pathlib.Path(file).parent) for file in self.masks})
            lines.append(
                f"Left out {len(self.masks)} files in folders of masks or of records: "
                f"{_named(folders)}."
            )
        return tuple(lines)


def find(folder: str | os.PathLike, need_color: bool = False) -> Files:
    """Find the image files in a folder and all folders below it, and check each of them.

    System files and folders, such as names with a leading dot, are skipped. Links to folders are
    not followed. Folders of masks beside a folder of images (`masks/` beside `images/`) are left
    out and counted.

    Args:
        folder: path of any folder.
        need_color: bool, also leave out gray images.

    Returns:
        Files in the order of their paths within the folder.

    Raises:
        DatasetError: if there is no such folder, no image in it, or no usable image.

    Example:
        >>> find("photos", need_color=True).image_files  # doctest: +SKIP
        ('/data/photos/a.jpg', '/data/photos/b.jpg')
    """
    root = pathlib.Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise DatasetError(f"{folder} is not a folder. Name a folder of images.")
    masks: list[pathlib.Path] = []
    found = sorted(_image_files(root, masks), key=lambda file: file.relative_to(root).as_posix())
    if not found:
        raise DatasetError(
            f"No images in {root} or the folders below it: no file ends in {' '.join(ENDINGS)} "
            "(hidden files and folders of masks do not count). Name a folder of images."
        )
    checked = check([str(file) for file in found], need_color)
    return dataclasses.replace(checked, masks=tuple(map(str, sorted(masks))))


def check(files: Sequence[str], need_color: bool = False) -> Files:
    """Decode each file once and leave out the files that cannot be used; see `Files`.

    Args:
        files: paths of image files.
        need_color: bool, also leave out gray images.

    Raises:
        DatasetError: if there is no file, or no usable file. The message counts and names them.
    """
    if not files:
        raise DatasetError("There are no image files to check: name at least one.")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        kinds = list(pool.map(functools.partial(_kind, need_color=need_color), files))

    def of_kind(wanted):
        return tuple(file for file, kind in zip(files, kinds, strict=True) if kind == wanted)

    known = (_USED, _GRAY_MODE, _GRAY_PIXELS)
    unreadable = [f"{f} ({k})" for f, k in zip(files, kinds, strict=True) if k not in known]
    result = Files(*map(of_kind, known), tuple(unreadable))
    if not result.image_files:
        raise DatasetError(
            f"None of {len(files)} images can be used. {' '.join(result.messages[1:])} "
            f"Add images{' in color' if need_color else ''}."
        )
    return result


def divide(
    files: Sequence[str], share: float = 0.1, least: int = 1
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hold out a share of the files, chosen by a hash of their names.

    The hash is SHA-256 of the path within the files' common folder. The same names are therefore
    divided in the same way, wherever the folder is.

    Args:
        files: paths of the same kind (absolute or relative), at least one more than `least`.
        share: float between 0 and 1, the share to hold out.
        least: number of files to hold out at least. At least one file is always left to train on.

    Returns:
        (files to train on, files held out), each in the given order.

    Raises:
        DatasetError: if there are too few files.
        ValueError: if `share` is out of range.

    Example:
        >>> divide(["photos/a.jpg", "photos/b.jpg", "photos/c.jpg"], share=0.4)
        (('photos/b.jpg', 'photos/c.jpg'), ('photos/a.jpg',))
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}.")
    if len(files) <= least:
        raise DatasetError(
            f"At least {least + 1} images are needed, 1 to train on and {least} to measure on; got "
            f"{len(files)} ({_named(files)}). Add images."
        )
    folder = os.path.commonpath(files)
    num_held_out = min(max(least, round(share * len(files))), len(files) - 1)
    held_out = set(sorted(files, key=lambda file: _digest(file, folder))[:num_held_out])
    train = tuple(file for file in files if file not in held_out)
    return train, tuple(file for file in files if file in held_out)


def _image_files(root: pathlib.Path, masks: list[pathlib.Path]):
    """Yield the image files below `root`; add image files of data folders to `masks` instead."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not file_rules.is_system(name)]
        skipped = [name for name in subfolders if _is_data(pathlib.Path(folder, name), subfolders)]
        subfolders[:] = [name for name in subfolders if name not in skipped]
        for name in skipped:
            masks += [*_image_files(pathlib.Path(folder, name), masks)]
        for name in names:
            if not file_rules.is_system(name) and name.lower().endswith(ENDINGS):
                yield pathlib.Path(folder, name)


def _is_data(folder: pathlib.Path, beside: Sequence[str]) -> bool:
    """Return whether a folder holds masks or records: by its name and the folders beside it."""
    names = {name.lower() for name in beside}
    name = folder.name.lower()
    is_annot = name.endswith("annot") and name.removesuffix("annot") in names  # as in SegNet
    is_mask = name in _MASK_FOLDERS and not names.isdisjoint(_IMAGE_FOLDERS)
    return is_annot or is_mask or (folder / _RECORDS).exists()


def _kind(file: str, need_color: bool) -> str:
    """Return the kind of the file, or the reason why it cannot be read."""
    if not file_rules.is_utf8(file):
        return "its name is not valid UTF-8"
    try:
        headers.check_image(pathlib.Path(file))
        with headers.open_image(pathlib.Path(file)) as image:
            mode = image.mode
        with tf.device("CPU"):
            pixels = views.read_image(file).numpy()
    except _DAMAGED as error:
        return _reason(error)
    if need_color and mode in _GRAY_MODES:
        return _GRAY_MODE
    return _GRAY_PIXELS if need_color and not _has_color(pixels) else _USED


def _has_color(pixels: np.ndarray) -> bool:
    return any(
        np.ptp(part.astype(np.int16), axis=-1).max() > GRAY_TOLERANCE
        for part in (pixels[::_COARSE, ::_COARSE], pixels)
    )


def _reason(error: Exception) -> str:
    if isinstance(error, tf.errors.OpError):
        return "damaged or cut short: TensorFlow cannot decode it"
    return file_rules.reason(error)


def _digest(file: str, folder: str) -> bytes:
    name = pathlib.PurePath(os.path.relpath(file, folder)).as_posix()
    return hashlib.sha256(name.encode()).digest()


def _named(names: Sequence[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return printable("; ".join(names[:limit]) + more)
