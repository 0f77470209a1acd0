"""YOLO segmentation: a text file for each picture, one outline a line, and names in data.yaml."""

import math
import pathlib
import re

from pipelines.datasets import files
from pipelines.datasets.sources.exports import coco, drafts, pictures, shapes, tree
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.spec import DatasetError, Request

NAME = "YOLO segmentation"
_TABLES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
_NAMES = ("classes.txt", "obj.names")
_MAX_LINES = 100_000
_SAMPLE = 200


def find(files_: tree.Tree) -> list[pathlib.Path]:
    """Return label files if they have outlines and there is a list of names."""
    is_yolo = kind_of_export(files_) == "outlines" and (table(files_) or _name_list(files_))
    return label_files(files_) if is_yolo else []


def label_files(files_: tree.Tree) -> list[pathlib.Path]:
    """Return the text files in folders called labels."""
    return [
        file
        for file in files_.files
        if file.suffix.lower() == ".txt"
        and "labels" in pathlib.PurePosixPath(files_.relative(file)).parts[:-1]
    ]


def kind_of_export(files_: tree.Tree) -> str:
    """Return "outlines", "boxes", "turned boxes", "key points" or "" of the label files.

    Turned boxes have 9 numbers in each line of each file (OBB).
    """
    return files_.remembered("kind of YOLO", lambda: _kind(files_))


def _kind(files_: tree.Tree) -> str:
    labels = label_files(files_)
    lengths = {len(r) for f in labels[:: max(1, len(labels) // _SAMPLE)] for r in _rows(f)}
    if not lengths:
        return ""
    if (found := table(files_)) is not None and "kpt_shape" in found[1]:
        return "key points"
    if lengths == {9}:
        return "turned boxes"
    return "outlines" if any(n >= 7 and n % 2 for n in lengths) else "boxes"


def table(files_: tree.Tree) -> tuple[pathlib.Path, dict] | None:
    """Return the YAML file with `names`, and its content."""
    listed = [files_.only] if files_.only and files_.only.suffix in (".yaml", ".yml") else []
    top = [f for f in files_.files if f.suffix.lower() in (".yaml", ".yml")]
    top.sort(key=lambda f: (f.name.lower() not in _TABLES, len(f.parts)))
    for file in (*listed, *top[:10]):
        try:
            content = tree.read_yaml(file)
        except DatasetError:
            if file in listed or file.name.lower() in _TABLES:
                raise
            continue
        if isinstance(content, dict) and isinstance(content.get("names"), list | dict):
            return file, content
    return None


def names_of(file: pathlib.Path, content: dict) -> dict[int, str]:
    """Return value -> name of a YAML table; `names` is a list or a mapping, `nc` is not used.

    Raises:
        DatasetError: if a key is no number.
    """
    listed = content["names"]
    entries = enumerate(listed) if isinstance(listed, list) else listed.items()
    try:
        return {int(key): str(name) for key, name in entries}
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{file}: the keys of `names` must be class numbers.") from error


def _name_list(files_: tree.Tree) -> pathlib.Path | None:
    return next(iter(files_.named(*_NAMES)), None)


def _names(files_: tree.Tree) -> tuple[pathlib.Path, dict[int, str]]:
    if (found := table(files_)) is not None:
        return found[0], names_of(*found)
    file = _name_list(files_)
    return file, dict(enumerate(files.read_lines(file)))


def read(files_: tree.Tree, request: Request) -> forms.Export:
    """Read the label files of an export. Class 0 is the first name; background is put in front."""
    source, names = _names(files_)
    unlabelled = request.reading.unlabelled
    classes = forms.shape_classes([names[k] for k in sorted(names)], source.name, unlabelled)
    labels = {_key(files_.relative(file)): file for file in label_files(files_)}
    skipped = forms.Skipped()
    found, used = [], set()
    for image in files_.files:
        if not pictures.is_picture(image):
            continue
        key = _key(files_.relative(image))
        file = labels.get(key)
        used.add(key)
        painted = None if file is None else _painted(file, names, classes, skipped)
        found.append(drafts.Draft(files_.relative(image), file or source, painted))
    for key in sorted(labels.keys() - used):  # pictures in another folder, or missing
        painted = _painted(labels[key], names, classes, skipped)
        found.append(drafts.Draft(f"{key}.jpg", labels[key], painted))
    return drafts.export(
        found,
        files_,
        request.reading,
        skipped,
        format=NAME,
        classes=classes,
        sources=(source, *sorted(labels.values())),
        small_on_top=True,
        messages=(coco.OVERLAP,),
    )


def _key(path: str) -> str:
    """Return a path without ending and without the folder `images` or `labels` in it."""
    stem = files.normal(path).rpartition(".")[0]
    parts = stem.split("/")
    for k in range(len(parts) - 2, -1, -1):
        if re.fullmatch("images|labels", parts[k]):
            return "/".join(parts[:k] + parts[k + 1 :])
    return stem


def _rows(file: pathlib.Path) -> list[list[float]]:
    """Return the numbers of each line; lines that hold other words are left out."""
    rows = []
    try:
        lines = files.read_lines(file)[:_MAX_LINES]
    except DatasetError:
        return []
    for line in lines:
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            continue
        if row and all(map(math.isfinite, row)):
            rows.append(row)
    return rows


def _painted(file, names, classes, skipped) -> list | None:
    painted = []
    for number, row in enumerate(_rows(file)):
        where = f"line {number + 1} of {file.name}"
        label = classes.id_of(names.get(int(row[0])))
        if label is None:
            skipped.add("line of an unknown class", where)
        elif len(row) == 5:
            skipped.add("box among the outlines, which was filled", where)
            _, x, y, w, h = row
            x0, y0, x1, y1 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
            painted.append((label, shapes.Relative(((x0, y0), (x1, y0), (x1, y1), (x0, y1)))))
        elif ring := shapes.points(row[1:]):
            painted.append((label, shapes.Relative(ring)))
        else:
            skipped.add("line without an outline of three points", where)
    return painted
