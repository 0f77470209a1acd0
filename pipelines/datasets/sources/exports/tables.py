"""Class tables that lie beside masks: names of values, and colors.

Each entry of TABLES is one format of a table: a function that finds its file in a tree, and a
function that reads it.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping

from pipelines.datasets import files, masks
from pipelines.datasets.sources.exports import json_kinds, yolo
from pipelines.datasets.sources.exports import tree as trees
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import VOID, DatasetError

_IGNORE = "__ignore__"  # labelme's name of void; it has no value of its own


@dataclasses.dataclass(frozen=True)
class Table:
    """A class table.

    Attributes:
        names: mask value -> name, in the order of the classes.
        colors: mask value -> color, if the masks may hold colors.
        void_values: values that mean void.
        background: value of the background, or None for the class with a usual name.
        mapping: stored value -> mask value, where the table defines one.
    """

    names: Mapping[int, str]
    colors: Mapping[int, masks.RGB] = dataclasses.field(default_factory=dict)
    void_values: tuple[int, ...] = (VOID,)
    background: int | None = None
    mapping: Mapping[int, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of class tables.

    Attributes:
        name: name of the export that has such a table.
        find: function (tree) -> the table's file, or None.
        read: function (tree, file) -> the table.
    """

    name: str
    find: Callable[[Tree], pathlib.Path | None]
    read: Callable[[Tree, pathlib.Path], Table]


def _first(*names: str) -> Callable[[Tree], pathlib.Path | None]:
    """Return a function that finds the file of a name that is closest to the root."""

    def find(tree):
        found = sorted(tree.named(*names), key=lambda file: (len(file.parts), file))
        return next(iter(found), None)

    return find


def _has_folder(tree: Tree, *names: str) -> bool:
    return any(part in names for path in tree.folders for part in path.lower().split("/"))


def _labelmap(tree: Tree) -> pathlib.Path | None:
    """Find labelmap.txt with colons; TensorFlow Lite's file of this name has bare names."""
    file = _first("labelmap.txt")(tree)
    if file is None or not _has_folder(tree, "segmentationclass"):
        return None
    lines = [line for line in files.read_lines(file) if line and not line.startswith("#")]
    return file if lines and all(line.count(":") >= 3 for line in lines) else None


def _read_labelmap(_, file: pathlib.Path) -> Table:
    """Read lines `name:r,g,b:parts:actions`. Line n is value n in gray masks (CVAT's import)."""
    lines = [line for line in files.read_lines(file) if line and not line.startswith("#")]
    rows = [line.rsplit(":", 3) for line in lines]
    colors = {k: _color(row[1].split(","), file) for k, row in enumerate(rows)}
    return Table({k: row[0] for k, row in enumerate(rows)}, colors)


def _color(words: list[str], file: pathlib.Path) -> masks.RGB:
    try:
        color = tuple(int(word) for word in words)
    except ValueError:
        color = ()
    if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
        raise DatasetError(f"{file} has {words!r} where three numbers of 0 to 255 are expected.")
    return color


def _read_names(tree: Tree, file: pathlib.Path) -> Table:
    """Read one name a line; line n is value n. labelme's first line `__ignore__` has no value.

    colors.txt beside it gives colors, one line `name red green blue` for each class and for void.
    """
    names = dict(enumerate(line for line in files.read_lines(file) if line != _IGNORE))
    values = {name.lower(): value for value, name in names.items()}
    values = dict.fromkeys(masks.VOID_NAMES, VOID) | values
    colors = {}
    for table in tree.named("colors.txt", "colours.txt"):
        for line in files.read_lines(table):
            name, *words = line.rsplit(maxsplit=3)
            if name.lower() not in values:
                raise DatasetError(f"{table} names {name!r}, which is not in {file}.")
            colors[values[name.lower()]] = _color(words, table)
    return Table(names, colors)


def _roboflow(tree: Tree) -> pathlib.Path | None:
    file = _first("_classes.csv")(tree)
    is_table = file is not None and files.first_line(file).lower().startswith("pixel value")
    return file if is_table else None


def _read_roboflow(tree: Tree, first: pathlib.Path) -> Table:
    """Read `Pixel Value, Class` of all splits, which must agree."""
    names: dict[int, str] = {}
    for file in tree.named(first.name.lower()):
        for row in trees.read_table(file)[1:]:
            value = int(row[0]) if len(row) >= 2 and row[0].isdecimal() else None
            if value is None or names.setdefault(value, row[1]) != row[1]:
                raise DatasetError(
                    f"{file} has the line {', '.join(row)!r}; expected a value and its class, the "
                    f"same in all splits. Compare it with {first}."
                )
    return Table(dict(sorted(names.items())))


def _label_colors(tree: Tree) -> pathlib.Path | None:
    file = _first("label_colors.txt", "label_color.txt")(tree)
    words = files.first_line(file).split() if file else []
    return file if len(words) >= 4 and all(word.isdecimal() for word in words[:3]) else None


def _read_label_colors(_, file: pathlib.Path) -> Table:
    """Read lines `r g b name`, as CamVid and CVAT write them."""
    rows = [line.split(maxsplit=3) for line in files.read_lines(file) if line]
    bad = [row for row in rows if len(row) < 4]
    if bad:
        raise DatasetError(f"{file} has the line {' '.join(bad[0])!r}; expected 'r g b name'.")
    colors = {k: _color(row[:3], file) for k, row in enumerate(rows)}
    return Table({k: row[3] for k, row in enumerate(rows)}, colors)


def _class_dict(tree: Tree) -> pathlib.Path | None:
    file = _first("class_dict.csv", "class_dict_seg.csv", "classes.csv")(tree)
    head = files.first_line(file).replace(" ", "").lower() if file else ""
    return file if head.startswith("name,r,g,b") else None


def _read_class_dict(_, file: pathlib.Path) -> Table:
    """Read `name,r,g,b` with a header."""
    rows = [row for row in trees.read_table(file)[1:] if len(row) >= 4]
    colors = {k: _color(row[1:4], file) for k, row in enumerate(rows)}
    return Table({k: row[0] for k, row in enumerate(rows)}, colors)


def _common(tree: Tree) -> pathlib.Path | None:
    return next(iter(json_kinds.kinds(tree).get("common semantic segmentation", [])), None)


def _read_common(tree: Tree, file: pathlib.Path) -> Table:
    """Read `label_map`, `segmentation_colors` and `background_label` (datumaro)."""
    document = tree.json(file)
    try:
        names = {int(key): str(name) for key, name in document["label_map"].items()}
        listed = document.get("segmentation_colors") or []
        colors = {k: _color(color, file) for k, color in zip(names, listed, strict=False)}
        background = document.get("background_label")
        return Table(names, colors, background=None if background is None else int(background))
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{file} is damaged: {error}. Export it again.") from error


def _read_ade(_, file: pathlib.Path) -> Table:
    """Read objectInfo150.txt, whose ids start at 1; 0 is void (ADEChallengeData2016)."""
    rows = [line.split("\t") for line in files.read_lines(file)[1:] if line]
    try:
        names = {int(row[0]): row[-1].strip() for row in rows}
    except ValueError as error:
        raise DatasetError(f"{file} has no number in the first column of a line.") from error
    return Table(names, void_values=(0, VOID))


def _ultralytics(tree: Tree) -> pathlib.Path | None:
    found = yolo.table(tree)
    return found[0] if found and "masks_dir" in found[1] else None


def _read_ultralytics(_, file: pathlib.Path) -> Table:
    """Read `names`, and `label_mapping` from stored values to classes."""
    content = trees.read_yaml(file)
    mapping = content.get("label_mapping") or {}
    try:
        mapping = {int(k): int(v) for k, v in mapping.items() if v is not None}
    except (AttributeError, TypeError, ValueError) as error:
        raise DatasetError(f"{file}: label_mapping must map values to classes.") from error
    return Table(yolo.names_of(file, content), mapping=mapping)


def _read_id_names(_, file: pathlib.Path) -> Table:
    """Read a JSON object value -> name."""
    document = trees.read_json(file)
    try:
        return Table({int(key): str(name) for key, name in document.items()})
    except (AttributeError, ValueError) as error:
        raise DatasetError(
            f'{file} must be an object of values and names, such as {{"0": "sky"}}.'
        ) from error


FORMATS = (
    Format('CVAT "Segmentation mask"', _labelmap, _read_labelmap),
    Format("Roboflow segmentation masks", _roboflow, _read_roboflow),
    Format("CamVid masks", _label_colors, _read_label_colors),
    Format("common semantic segmentation", _common, _read_common),
    Format("ADEChallengeData2016", _first("objectinfo150.txt"), _read_ade),
    Format("Ultralytics semantic masks", _ultralytics, _read_ultralytics),
    Format("color masks with class_dict.csv", _class_dict, _read_class_dict),
    Format("masks with id2label.json", _first("id2label.json"), _read_id_names),
    Format("labelme2voc masks", _first("class_names.txt"), _read_names),
    Format("image and mask files", _first("classes.txt", "labels.txt", "names.txt"), _read_names),
)
"""Formats of class tables, in the order in which they are looked for."""


def find(tree: Tree) -> tuple[Format, pathlib.Path] | None:
    """Return the first format with a table in the tree, and the table's file."""
    found = ((form, form.find(tree)) for form in FORMATS)
    return next(((form, file) for form, file in found if file is not None), None)
