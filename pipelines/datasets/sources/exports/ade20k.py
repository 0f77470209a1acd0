"""The full ADE20K: X_seg.png beside X.jpg, with the names of the objects in X_atr.txt or X.json."""

import dataclasses
import pathlib

import numpy as np

from pipelines.datasets import files, masks
from pipelines.datasets.sources.exports import drafts, shapes
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import DatasetError, Request

NAME = "ADE20K"
_END = "_seg.png"


@dataclasses.dataclass(frozen=True)
class Objects:
    """Objects of one class in X_seg.png, by the number of the object, the blue channel."""

    file: pathlib.Path
    numbers: tuple[int, ...]

    def patch(self, size):
        """Return the pixels of the objects."""
        colors = masks.read_stored(self.file).pixels
        if colors.ndim != 3 or colors.shape[2] < 3 or colors.shape[:2] != size:
            raise ValueError(f"{self.file} has the shape {colors.shape}, not {size} with colors")
        return shapes.Patch(0, 0, np.isin(colors[..., 2], self.numbers))


def find(tree: Tree) -> list[pathlib.Path]:
    """Return the masks that have a list of objects beside them."""
    known = set(tree.files)
    return [
        file
        for file in tree.files
        if file.name.endswith(_END) and any(other in known for other in _lists(file))
    ]


def _lists(file: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    stem = file.name.removesuffix(_END)
    return file.with_name(f"{stem}_atr.txt"), file.with_name(f"{stem}.json")


def read(tree: Tree, request: Request) -> forms.Export:
    """Read the masks; parts of objects are left out, and pixels of no object are void."""
    found = find(tree)
    objects = {file: _objects(tree, file) for file in found}
    counts: dict[str, int] = {}
    for listed in objects.values():
        for name in listed.values():
            counts[name] = counts.get(name, 0) + 1
    unlabelled = request.reading.unlabelled or "void"
    classes = forms.shape_classes(sorted(counts), "the lists of objects, sorted", unlabelled)
    skipped = forms.Skipped()
    listed = [_draft(tree, file, objects[file], classes) for file in found]
    return drafts.export(
        listed,
        tree,
        request.reading,
        skipped,
        usual="void",
        format=NAME,
        classes=classes,
        sources=(*found, *(f for file in found for f in _lists(file) if f.is_file())),
    )


def _objects(tree: Tree, file: pathlib.Path) -> dict[int, str]:
    """Return number -> name of the whole objects of a picture."""
    table, document = _lists(file)
    if table.is_file():
        rows = [line.split(" # ") for line in files.read_lines(table) if line]
        whole = [row for row in rows if len(row) >= 4 and row[1].strip() == "0"]
        return {int(row[0]): row[3].strip() for row in whole if row[0].strip().isdecimal()}
    try:
        listed = tree.json(document)["annotation"]["object"]
        return {o["id"]: str(o["name"]) for o in listed if not o["parts"]["part_level"]}
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{document} is no list of objects of {NAME} (key {error}).") from error


def _draft(tree: Tree, file: pathlib.Path, objects, classes) -> drafts.Draft:
    by_label: dict[int, list[int]] = {}
    for number, name in objects.items():
        by_label.setdefault(classes.id_of(name), []).append(number)
    painted = [(label, Objects(file, tuple(numbers))) for label, numbers in by_label.items()]
    name = tree.relative(file.with_name(file.name.removesuffix(_END) + ".jpg"))
    return drafts.Draft(name, file, painted)
