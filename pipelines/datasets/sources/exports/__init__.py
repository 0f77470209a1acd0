"""Annotation exports: recognize the format of a folder, file or ZIP, and read it.

FORMATS is the registry. A format is a module with a function `find(tree) -> files` that returns
the files that give the format away, and a function `read(tree, request) -> Export`. To add one,
write such a module and one entry.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable

from pipelines.datasets import faults, files
from pipelines.datasets.sources.exports import (
    ade20k,
    archive,
    cityscapes_masks,
    coco,
    coco_panoptic,
    cvat_xml,
    kaggle_rle,
    label_studio,
    labelme,
    lookalikes,
    mask_files,
    object_masks,
    supervisely,
    tiff_stacks,
    via,
    yolo,
)
from pipelines.datasets.sources.exports.export import Export
from pipelines.datasets.sources.exports.plans import plan, summary
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import DatasetError, Request

__all__ = [
    "FORMATS",
    "MASKS",
    "Export",
    "Tree",
    "open_tree",
    "plan",
    "read",
    "recognized",
    "summary",
]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of exports.

    Attributes:
        name: the name, with its tool.
        find: function (tree) -> files that give the format away; [] if it is another one.
        read: function (tree, request) -> the export.
    """

    name: str
    find: Callable[[Tree], list[pathlib.Path]]
    read: Callable[[Tree, Request], Export | None]


FORMATS = tuple(
    Format(module.NAME, module.find, module.read)
    for module in (
        coco,
        coco_panoptic,
        labelme,
        cvat_xml,
        label_studio,
        yolo,
        supervisely,
        via,
        kaggle_rle,
        ade20k,
        cityscapes_masks,
        object_masks,
        tiff_stacks,
    )
)
"""Formats with sure signs, in the order in which they are looked for."""

MASKS = Format("image and mask files with a class table", mask_files.find, mask_files.read)
"""Masks with a class table of a known tool."""

_ENDINGS = (".json", ".xml", ".yaml", ".yml", ".csv")


def open_tree(data_dir: str | os.PathLike) -> Tree:
    """Return the files of a folder, of a ZIP file, or beside one annotation file.

    Raises:
        DatasetError: if there is no such file or folder, or if the file is of another kind.
    """
    path = pathlib.Path(data_dir).expanduser().resolve()
    if path.is_dir():
        return Tree(path)
    if not path.exists():
        raise DatasetError(f"data_dir={str(data_dir)!r} is not a folder, and not a file.")
    if path.suffix.lower() == ".zip":
        return Tree(archive.unpacked(path))
    if path.suffix.lower() in _ENDINGS:
        is_inner = path.parent.name.lower() in ("annotations", "ann", "labels")
        return Tree(path.parent.parent if is_inner else path.parent, only=path)
    raise DatasetError(
        f"data_dir={str(data_dir)!r} is a file of an unknown kind: use a folder, a ZIP file, or an "
        f"annotation file that ends in {', '.join(_ENDINGS)}."
    )


def recognized(tree: Tree) -> list[tuple[Format, list[pathlib.Path]]]:
    """Return all formats whose signs are in a tree, each with the files that give it away."""
    found = [(form, form.find(tree)) for form in FORMATS]
    found = [(form, signs) for form, signs in found if signs]
    if not found and (signs := MASKS.find(tree)):
        return [(MASKS, signs)]
    return found


def read(tree: Tree, request: Request) -> Export | None:
    """Recognize the format of a tree and read it.

    Returns:
        The export; None if nothing is recognized, and nothing looks like images and masks.

    Raises:
        DatasetError: if several formats fit, if the files are of a kind without outlines, or if
            they are damaged.
    """
    found = recognized(tree)
    if len(found) > 1:
        listed = "; ".join(f"{form.name} ({faults.named(_names(f), 3)})" for form, f in found)
        raise DatasetError(
            f"{tree.root} holds annotations of several formats: {listed}. Name the file or the "
            "folder to use with the argument data_dir, or move the others away."
        )
    if found:
        return _read(found[0][0], tree, request)
    if tree.only is None and (export := _read(MASKS, tree, request)) is not None:
        return export
    lookalikes.check(tree)
    if tree.only is not None:
        raise DatasetError(
            f"{tree.only} is of no known format: neither {', '.join(f.name for f in FORMATS)}."
        )
    return None


def _names(found: list[pathlib.Path]) -> list[str]:
    return [file.name for file in found]


def _read(form: Format, tree: Tree, request: Request) -> Export | None:
    """Read a tree; a structure that the reader does not expect becomes one sentence."""
    try:
        return form.read(tree, request)
    except (AttributeError, TypeError, KeyError, IndexError, OverflowError) as error:
        signs = form.find(tree) or [tree.root]
        raise DatasetError(
            f"{signs[0]} looks like {form.name}, but its structure is unexpected "
            f"({type(error).__name__}: {files.reason(error)}). Export it again."
        ) from error
