"""VGG Image Annotator, versions 1 and 2: JSON of annotations or of a project, and CSV."""

import csv
import json
import pathlib
from collections.abc import Iterable, Iterator

from pipelines.datasets.sources.exports import drafts, json_kinds, shapes
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports.tree import MAX_JSON_BYTES, Tree, read_bytes
from pipelines.datasets.spec import DatasetError, Request

NAME = "VGG Image Annotator"
_COLUMN = "region_shape_attributes"
_WITHOUT_AREA = ("point", "line")


def find(tree: Tree) -> list[pathlib.Path]:
    """Return the JSON and CSV files of VIA."""
    found = json_kinds.kinds(tree)
    csvs = [file for file in tree.ending(".csv") if _COLUMN in _head(file)]
    return [*found.get("VIA project", []), *found.get("VIA", []), *csvs]


def _head(file: pathlib.Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(500).decode("utf-8", "replace")
    except OSError:
        return ""


def read(tree: Tree, request: Request) -> forms.Export:
    """Read one file of VIA; the annotation of a picture is the list of its regions.

    The class is one of the attributes of a region. VIA does not record which one: see `_attribute`.

    Raises:
        DatasetError: if there are several files, or if no attribute can be the class.
    """
    source = _source(find(tree))
    records, attributes = _records(tree, source)
    regions = [(r.get("filename", ""), list(_regions(r))) for r in records]
    every = [region for _, listed in regions for region in listed]
    key = _attribute(every, attributes, source)
    names = sorted({name for region in every if (name := _class(region, key))})
    unlabelled = request.reading.unlabelled
    origin = f"region attribute '{key}' of {source.name}, sorted"
    classes = forms.shape_classes(names, origin, unlabelled)
    skipped = forms.Skipped()
    found = [_draft(source, name, part, key, classes, skipped) for name, part in regions]
    return drafts.export(
        found,
        tree,
        request.reading,
        skipped,
        format=NAME,
        classes=classes,
        sources=(source,),
        messages=(drafts.LATER_ON_TOP,),
    )


def _source(sources: list[pathlib.Path]) -> pathlib.Path:
    if len(sources) > 1:
        names = ", ".join(map(str, sources))
        raise DatasetError(f"Several files of {NAME}: {names}. Name one of them as data_dir.")
    return sources[0]


def _records(tree: Tree, source: pathlib.Path) -> tuple[list[dict], dict]:
    """Return the records of the pictures, and the attributes of regions that a project defines."""
    if source.suffix.lower() == ".csv":
        return _csv_records(source), {}
    document = tree.json(source)
    attributes = document.get("_via_attributes", {}).get("region", {})
    listed = document.get("_via_img_metadata", document)
    return [r for r in listed.values() if isinstance(r, dict)], attributes


def _csv_records(source: pathlib.Path) -> list[dict]:
    by_name: dict[str, dict] = {}
    text = read_bytes(source, MAX_JSON_BYTES).decode("utf-8-sig", "replace")
    try:
        for row in csv.DictReader(text.splitlines()):
            name = row.get("filename") or row.get("#filename") or ""
            record = by_name.setdefault(name, {"filename": name, "regions": []})
            shape = json.loads(row[_COLUMN] or "{}")
            attributes = json.loads(row.get("region_attributes") or "{}")
            if shape:
                region = {"shape_attributes": shape, "region_attributes": attributes}
                record["regions"].append(region)
    except (csv.Error, ValueError, KeyError, RecursionError) as error:
        raise DatasetError(f"{source} is no valid CSV of {NAME} ({error}).") from error
    return list(by_name.values())


def _regions(record: dict) -> Iterator[dict]:
    """Yield the regions of a picture: a list, or in version 1 an object."""
    regions = record.get("regions")
    listed = regions.values() if isinstance(regions, dict) else regions or ()
    for region in listed:
        if isinstance(region, dict) and isinstance(region.get("shape_attributes"), dict):
            yield region


def _class(region: dict, key: str) -> str | None:
    """Return the class of a region; a checkbox is an object of flags, the first one set counts."""
    attributes = region.get("region_attributes")
    value = attributes.get(key) if isinstance(attributes, dict) else None
    if isinstance(value, dict):
        value = next((name for name, is_set in value.items() if is_set), None)
    return str(value).strip() or None if isinstance(value, str | int) else None


def _attribute(regions: Iterable[dict], attributes: dict, source: pathlib.Path) -> str:
    """Return the attribute that holds the class.

    It is the only one; else the only dropdown or radio attribute of the project; else, of the
    attributes that all regions have, the one with the fewest values.
    """
    regions = list(regions)
    counts: dict[str, set] = {}
    present: dict[str, int] = {}
    for region in regions:
        own = region.get("region_attributes")
        for key in own if isinstance(own, dict) else ():
            if (value := _class(region, key)) is not None:
                counts.setdefault(key, set()).add(value)
                present[key] = present.get(key, 0) + 1
    if not counts:
        raise DatasetError(
            f"{source}: no region has an attribute, so there are no classes. Add an attribute to "
            "the regions in the annotator, for example 'type'."
        )
    chosen = [
        key
        for key in counts
        if isinstance(attributes.get(key), dict)
        and attributes[key].get("type") in ("dropdown", "radio")
    ]
    if len(chosen) == 1:
        return chosen[0]
    return min(counts, key=lambda key: (-present[key], len(counts[key]), key))


def _draft(source, name, regions, key, classes, skipped) -> drafts.Draft:
    painted = []
    for number, region in enumerate(regions):
        where = f"region {number} of {name}"
        label = classes.id_of(_class(region, key))
        kind = region["shape_attributes"].get("name")
        if kind in _WITHOUT_AREA:
            skipped.add("point or line, which has no area", where)
        elif label is None:
            skipped.add(f"region without the attribute '{key}'", where)
        elif (shape := _shape(kind, region["shape_attributes"])) is None:
            skipped.add("region that is damaged, open, or has too few points", where)
        else:
            painted.append((label, shape))
    return drafts.Draft(name, source, painted or None)


def _shape(kind: str, record: dict) -> shapes.Shape | None:
    try:
        if kind in ("polygon", "polyline"):
            xs, ys = record["all_points_x"], record["all_points_y"]
            points = shapes.pairs(list(zip(xs, ys, strict=True)))
            is_open = kind == "polyline" and points and points[0] != points[-1]
            return shapes.Polygon((points,)) if points and not is_open else None
        return _SHAPES[kind](record) if kind in _SHAPES else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _rectangle(record: dict) -> shapes.Polygon:
    x, y, width, height = (_number(record, key) for key in ("x", "y", "width", "height"))
    return shapes.rectangle(x, y, x + width, y + height)


def _circle(record: dict) -> shapes.Ellipse:
    cx, cy, radius = (_number(record, key) for key in ("cx", "cy", "r"))
    return shapes.Ellipse((cx, cy), (radius, radius))


def _ellipse(record: dict) -> shapes.Ellipse:
    cx, cy, rx, ry = (_number(record, key) for key in ("cx", "cy", "rx", "ry"))
    turn = 57.29577951308232 * float(record.get("theta", 0))  # radians
    return shapes.Ellipse((cx, cy), (rx, ry), turn)


def _number(record: dict, key: str) -> float:
    number = float(record[key])
    if not abs(number) < 1e6:
        raise ValueError(f"{key} out of range: {number}")
    return number


_SHAPES = {"rect": _rectangle, "circle": _circle, "ellipse": _ellipse}
