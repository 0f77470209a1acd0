"""New images without masks: find them in files, folders and patterns, and read them upright."""

import collections
import dataclasses
import glob
import pathlib
from collections.abc import Iterable

import numpy as np

from pipelines.datasets import files, headers, image_mask_pairs
from pipelines.datasets.spec import DatasetError, PixelWindow, printable

# GeoTIFF 1.1 (OGC 19-008r4): scale, tie points, transformation, and the three tables of geo keys.
_GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)


@dataclasses.dataclass(frozen=True)
class Source:
    """An image file, and the name of its results.

    Attributes:
        name: path without ending, relative to the folder that was given, with "/".
        file: path of the image.
    """

    name: str
    file: pathlib.Path


@dataclasses.dataclass(frozen=True)
class NewImage:
    """An image, decoded in full.

    Attributes:
        pixels: uint8 [H, W, 3], RGB, upright.
        is_turned: whether its EXIF data turned it.
        geo_tags: the GeoTIFF tags with their types and values; empty for other files.
    """

    pixels: np.ndarray
    is_turned: bool = False
    geo_tags: tuple[tuple[int, int, tuple], ...] = ()


def find(inputs: Iterable[str], skipped: Iterable[pathlib.Path] = ()) -> list[Source]:
    """Return the images of files, folders and patterns, each file once.

    Args:
        inputs: paths of files, folders (searched with all folders below) and patterns such as
            "photos/*.jpg" or "photos/**/*.png". An existing path is never read as a pattern.
        skipped: folders that are not searched.

    Raises:
        DatasetError: if an input leads to no image, or two images would have one name.
    """
    skipped = [folder.resolve() for folder in skipped]
    found = {}
    for text in inputs:
        images = _of_input(text, skipped)
        if not images:
            raise DatasetError(
                f"{text!r} leads to no image. Expected a file, a folder with images "
                f"({' '.join(image_mask_pairs.IMAGE_ENDINGS)}) or a pattern."
            )
        for root, file in images:
            found.setdefault(file.resolve(), (root, file))
    return _named(list(found.values()))


def read(file: pathlib.Path, window: PixelWindow | None = None) -> NewImage:
    """Read an image and turn it upright by its EXIF data.

    Args:
        file: path of the image.
        window: the mapping of stored values to 8 bits, or None for images of 8 bits.

    Raises:
        DatasetError: if the image is damaged, or has values or bands that networks cannot use; the
            message names the problem and not the file.
    """
    decoded, tags = _decoded(file, window), _geo_tags(file)
    if decoded.orientation == 1 or tags:
        return NewImage(decoded.pixels, geo_tags=tags)
    return NewImage(decoded.turned().pixels, is_turned=True)


def read_for_training(
    file: pathlib.Path, window: PixelWindow | None = None
) -> image_mask_pairs.DecodedImage:
    """Read an image upright, with the file or the bytes that input pipelines can decode.

    Args:
        file: path of the image.
        window: see `read`.

    Raises:
        DatasetError: see `read`.
    """
    decoded = _decoded(file, window)
    if decoded.orientation == 1 or _geo_tags(file):
        return decoded
    return decoded.turned()


def _decoded(file, window) -> image_mask_pairs.DecodedImage:
    """Return the image as it is stored."""
    decoded, problem = image_mask_pairs.attempt(
        lambda: image_mask_pairs.read_image(file, window=window), file
    )
    if decoded is None:
        raise DatasetError(_reason(problem, file))
    return decoded


def _of_input(text, skipped):
    """Return (folder that names are relative to, file) of each image of an input."""
    path = pathlib.Path(text).expanduser()
    if path.is_dir():
        return [(path, file) for file in _below(path, skipped)]
    if path.exists():
        return [(path.parent, path)]
    root = _fixed_part(path)
    matches = sorted(root.glob(path.relative_to(root).as_posix()))
    return [(root, file) for file in matches if _is_picture(file) and _is_shown(file, root)]


def _fixed_part(pattern: pathlib.Path) -> pathlib.Path:
    """Return the folders of a pattern before its first wildcard."""
    parts = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return pathlib.Path(*parts)


def _below(folder, skipped):
    """Yield the images below a folder, in order; links to folders are not followed."""
    for path in files.entries(folder):
        if path.is_dir():
            if not path.is_symlink() and path.resolve() not in skipped:
                yield from _below(path, skipped)
        elif _is_picture(path):
            yield path


def _is_picture(path):
    return path.suffix.lower() in image_mask_pairs.IMAGE_ENDINGS and not path.is_dir()


def _is_shown(file, root):
    """Return whether no file or folder of a path belongs to the system."""
    return not any(map(files.is_system, file.relative_to(root).parts))


def _named(images) -> list[Source]:
    """Give each image a name: without its ending, unless two images would share it."""
    stems = [file.relative_to(root).with_suffix("").as_posix() for root, file in images]
    count = collections.Counter(stems)
    names = [
        stem if count[stem] == 1 else file.relative_to(root).as_posix()
        for stem, (root, file) in zip(stems, images, strict=True)
    ]
    first = {}
    for name, (_, file) in zip(names, images, strict=True):
        if name in first:
            raise DatasetError(
                f"{first[name]} and {file} have one name, {name!r}. Predict them into two folders."
            )
        first[name] = file
    return [Source(name, file) for name, file in first.items()]


def _geo_tags(file):
    """Return the GeoTIFF tags; empty for other files."""
    if file.suffix.lower() not in (".tif", ".tiff"):
        return ()
    return headers.tiff_tags(file, _GEO_TAGS)


def _reason(problem, file) -> str:
    if isinstance(problem, tuple):
        kind, name = problem
        detail = name.removeprefix(str(file)).strip()
        return " ".join(filter(None, (kind.problem, detail))) + f". {kind.fix}"
    return problem.removeprefix(printable(str(file))).strip(" ()")
