"""Kaggle's run-length tables: CSV with ImageId, EncodedPixels and perhaps ClassId.

A row is an object or a class of a picture. `EncodedPixels` holds pairs of start and length: pixels
are counted from 1, down the columns. An empty cell or -1 stands for a picture without an object.
Column names vary: Image_Label and ImageId_ClassId hold both, joined by an underscore.
"""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterator

from pipelines.datasets import files
from pipelines.datasets.sources.exports import drafts, object_masks, run_lengths, tree
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports.shapes import Patch
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import DatasetError, Request

NAME = "Kaggle run-length CSV"
OVERLAP = "Where objects overlap, the object with fewer pixels is on top: the format has no order."

_PIXELS = ("encodedpixels", "rle_mask")
_IMAGES = ("imageid", "image_id", "id", "img", "image", "filename")
_CLASSES = ("classid", "class_id", "class", "label", "category")
_BOTH = ("image_label", "imageid_classid")
_NOTHING = ("", "-1", "nan", "none")
_LONGEST_CELL = 2**27  # characters; a mask of 178,956,970 pixels rarely needs more


@dataclasses.dataclass(frozen=True)
class Runs:
    """Pairs of start and length over the whole picture, as text.

    Its size is known when the picture is read.
    """

    text: str

    def patch(self, size):
        """Return the covered pixels of an image of (height, width)."""
        return Patch(0, 0, run_lengths.kaggle(self.text, size))


def find(tree: Tree) -> list[pathlib.Path]:
    """Return the tables, without examples of submissions.

    A data set that also has a mask of each object (Data Science Bowl 2018) is read by these.
    """
    tables = [f for f in tree.ending(".csv") if "submission" not in f.name.lower()]
    found = [file for file in tables if _columns(_head(file)) is not None]
    return [] if found and object_masks.find(tree) else found


def read(tree: Tree, request: Request) -> forms.Export:
    """Read all tables of an export.

    Raises:
        DatasetError: if a table is damaged.
    """
    sources = find(tree)
    rows = [row for file in sources for row in _rows(file)]
    names = sorted({row.label for row in rows if row.label}, key=_order)
    classes = forms.shape_classes(
        [_class_name(name) for name in names],
        "the classes of " + ", ".join(file.name for file in sources[:3]),
        request.reading.unlabelled,
    )
    found: dict[str, drafts.Draft] = {}
    for row in rows:
        draft = found.setdefault(row.image, drafts.Draft(row.image, row.file, shapes=[]))
        if row.pixels:
            draft.shapes.append((classes.id_of(_class_name(row.label)), Runs(row.pixels)))
    return drafts.export(
        found.values(),
        tree,
        request.reading,
        forms.Skipped(),
        format=NAME,
        classes=classes,
        sources=tuple(sources),
        small_on_top=True,
        messages=(OVERLAP,),
    )


@dataclasses.dataclass(frozen=True)
class _Row:
    """One row: the picture, its class, and the text of its pixels, or "" for none."""

    file: pathlib.Path
    image: str
    label: str
    pixels: str


def _head(file: pathlib.Path) -> list[str]:
    return [cell.strip() for cell in files.first_line(file).split(",")]


def _columns(head: list[str]) -> tuple[int, int, int] | None:
    """Return the places of image, class (-1 without one) and pixels in the head of a table.

    >>> _columns(["ImageId", "ClassId", "EncodedPixels"]), _columns(["x", "y"])
    ((0, 1, 2), None)
    """
    names = [name.strip().lower() for name in head]

    def place(known):
        return next((k for k, name in enumerate(names) if name in known), -1)

    both, image, pixels = place(_BOTH), place(_IMAGES), place(_PIXELS)
    if pixels < 0 or max(both, image) < 0:
        return None
    return (both, both, pixels) if both >= 0 else (image, place(_CLASSES), pixels)


def _rows(file: pathlib.Path) -> Iterator[_Row]:
    text = tree.read_bytes(file, tree.MAX_JSON_BYTES).decode("utf-8-sig", "replace")
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        head, *rows = (row for row in csv.reader(io.StringIO(text, newline="")) if row)
    except csv.Error as error:
        raise DatasetError(f"{file} is no valid table ({files.reason(error)}).") from error
    finally:
        csv.field_size_limit(before)
    image, label, pixels = _columns(head)
    for number, row in enumerate(rows, 2):
        if len(row) <= max(image, label, pixels):
            raise DatasetError(
                f"{file} has {len(row)} cells in row {number}, and {len(head)} in the first row. "
                "Export it again."
            )
        yield _row(file, row[image].strip(), row[label].strip() if label >= 0 else "", row[pixels])


def _row(file, image, label, pixels) -> _Row:
    pixels = " ".join(pixels.split())
    pixels = "" if pixels.lower() in _NOTHING else pixels
    if label and label == image:  # one column holds both
        image, _, label = image.rpartition("_")
    return _Row(file, image, label or "object", pixels)


def _order(name: str) -> tuple:
    """Return the key that sorts numbers by value, before names."""
    return (0, int(name), "") if name.isascii() and name.isdecimal() else (1, 0, name)


def _class_name(label: str) -> str:
    return f"class_{label}" if label.isdecimal() else label
