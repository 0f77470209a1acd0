"""Recognize JSON files of annotation tools by their keys."""

import pathlib
from collections.abc import Callable, Mapping

from pipelines.datasets.sources.exports.tree import Tree

_WHOLE_FOLDER = 24  # JSON files of a folder up to which all are looked at; else the first three
_SAMPLE = 3
_FIRST = 200  # records of a list that are looked at


def kinds(tree: Tree) -> dict[str, list[pathlib.Path]]:
    """Return kind -> JSON files of an export.

    Of a folder with many JSON files only the first three are parsed: they are of one kind, one file
    an image.

    Example:
        >>> kind({"shapes": [], "imagePath": "a.jpg"}, "a")
        'labelme'
    """
    return tree.remembered("JSON kinds", lambda: _kinds(tree))


def _kinds(tree: Tree) -> dict[str, list[pathlib.Path]]:
    found: dict[str, list[pathlib.Path]] = {}
    for file in _sample(tree):
        document = tree.try_json(file)
        found.setdefault(kind(document, file.stem), []).append(file)
    found.pop("", None)
    return found


def _sample(tree: Tree) -> list[pathlib.Path]:
    by_folder: dict[pathlib.Path, list[pathlib.Path]] = {}
    for file in tree.ending(".json"):
        by_folder.setdefault(file.parent, []).append(file)
    groups = by_folder.values()
    return [f for g in groups for f in (g if len(g) <= _WHOLE_FOLDER else g[:_SAMPLE])]


def kind(document: object, stem: str) -> str:
    """Return the kind of a parsed JSON file, "damaged" for None, or "" if it is unknown."""
    if document is None:
        return "damaged"
    rules = _OF_OBJECTS if isinstance(document, dict) else _OF_LISTS
    if not isinstance(document, dict | list):
        return ""
    return next((name for name, test in rules.items() if test(document, stem)), "")


def _has(*keys: str) -> Callable[[object, str], bool]:
    return lambda document, _: all(key in document for key in keys)


def _records(document: Mapping, key: str) -> list[dict]:
    listed = document.get(key)
    listed = listed if isinstance(listed, list) else []
    return [record for record in listed if isinstance(record, dict)]


def _any(document: Mapping, *keys: str) -> bool:
    """Return whether an annotation of a COCO file has one of the keys, with a value."""
    return any(record.get(key) for record in _records(document, "annotations") for key in keys)


def _is_coco(document, _):
    return isinstance(document.get("images"), list) and "annotations" in document


def _is_coco_of(*keys: str) -> Callable[[Mapping, str], bool]:
    return lambda document, stem: _is_coco(document, stem) and _any(document, *keys)


def _is_via(document, _):
    values = list(document.values())[:_FIRST]
    return bool(values) and all(
        isinstance(value, dict) and "filename" in value and "regions" in value for value in values
    )


def _items(*keys: str) -> Callable[[list, str], bool]:
    """Return a test of lists: whether all of the first records have all keys."""

    def test(document, _):
        first = document[:_FIRST]
        return bool(first) and all(
            isinstance(item, dict) and all(key in item for key in keys) for item in first
        )

    return test


_OF_OBJECTS: dict[str, Callable[[Mapping, str], bool]] = {
    "labelme": lambda d, _: (
        isinstance(d.get("shapes"), list) and ("imagePath" in d or "imageData" in d)
    ),
    "COCO panoptic": _is_coco_of("segments_info"),
    "COCO without categories": lambda d, s: _is_coco(d, s) and "categories" not in d,
    "COCO key points": lambda d, s: (
        _is_coco_of("keypoints")(d, s) and ("keypoint" in s or not _any(d, "segmentation"))
    ),
    "COCO": lambda d, s: (
        _is_coco(d, s) and (_any(d, "segmentation") or not _records(d, "annotations"))
    ),
    "COCO boxes": _is_coco_of("bbox"),
    "COCO other": _is_coco,
    "SAM": lambda d, _: isinstance(d.get("image"), dict) and isinstance(d.get("annotations"), list),
    "VIA project": _has("_via_img_metadata"),
    "VIA 3": _has("project", "metadata", "attribute", "file"),
    "common semantic segmentation": lambda d, _: isinstance(d.get("label_map"), dict),
    "Supervisely": lambda d, s: s == "meta" and isinstance(d.get("classes"), list),
    "Supervisely annotation": _has("objects", "size"),
    "Datumaro": lambda d, _: isinstance(d.get("items"), list) and "categories" in d,
    "GeoJSON": lambda d, _: d.get("type") in ("FeatureCollection", "Feature"),
    "Label Studio, one file an annotation": _has("task", "result"),
    "VIA": _is_via,
}
_OF_LISTS: dict[str, Callable[[list, str], bool]] = {
    "Label Studio JSON": lambda d, s: (
        _items("data")(d, s)
        and any("annotations" in item or "completions" in item for item in d[:_FIRST])
    ),
    "Label Studio JSON_MIN": _items("annotation_id"),
    "COCO results": lambda d, s: (
        _items("image_id", "category_id")(d, s) or _items("image_id", "score")(d, s)
    ),
    "GeoJSON": _items("geometry", "properties"),
}
