"""Exports that hold no masks or outlines: recognized by name, and refused with the way out."""

import dataclasses
import pathlib
import re
from collections.abc import Callable

from pipelines.datasets import files
from pipelines.datasets.sources.exports import cvat_xml, json_kinds, yolo
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import DatasetError


@dataclasses.dataclass(frozen=True)
class Lookalike:
    """A kind of export that is not read.

    Attributes:
        name: its name, for the message.
        find: function (tree) -> files that give it away.
        way_out: a sentence with the fix.
    """

    name: str
    find: Callable[[Tree], list[pathlib.Path]]
    way_out: str


_OUTLINES = "Segmentation needs outlines or masks: label polygons, and export them."
_RLE_NAME = re.compile(r"task-\d+-annotation-\d+-by-.+\.(png|npy)")
_BOX_COLUMNS = {"bbox", "xmin", "x_min"}
_VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")


def _json(*kinds: str) -> Callable[[Tree], list[pathlib.Path]]:
    return lambda tree: [f for kind in kinds for f in json_kinds.kinds(tree).get(kind, [])]


def _voc_boxes(tree: Tree) -> list[pathlib.Path]:
    return tree.ending(".xml")[:1] if cvat_xml.is_voc(tree, "bndbox") else []


def _labelme_xml(tree: Tree) -> list[pathlib.Path]:
    return tree.ending(".xml")[:1] if cvat_xml.is_voc(tree, "polygon") else []


def _yolo_of(*kinds: str) -> Callable[[Tree], list[pathlib.Path]]:
    return lambda tree: yolo.label_files(tree)[:1] if yolo.kind_of_export(tree) in kinds else []


def _classification(tree: Tree) -> list[pathlib.Path]:
    tables = tree.named("_classes.csv")
    return [f for f in tables if files.first_line(f).lower().startswith("filename")]


def _brush_files(tree: Tree) -> list[pathlib.Path]:
    return [file for file in tree.files if _RLE_NAME.fullmatch(file.name)]


def _videos(tree: Tree) -> list[pathlib.Path]:
    return [file for file in tree.files if file.suffix.lower() in _VIDEOS]


def _damaged(tree: Tree) -> list[pathlib.Path]:
    """Return the damaged JSON files; raise the reason, such as a size above the limit."""
    found = json_kinds.kinds(tree).get("damaged", [])
    for file in found[:1]:
        tree.json(file)
    return found


def _box_tables(tree: Tree) -> list[pathlib.Path]:
    """Return the CSV files with boxes, in Kaggle's and TensorFlow's forms."""
    heads = {file: files.first_line(file).lower().split(",") for file in tree.ending(".csv")}
    names = {file: {cell.strip().strip('"') for cell in head} for file, head in heads.items()}
    return [file for file, found in names.items() if found & _BOX_COLUMNS]


LOOKALIKES = (
    Lookalike("a COCO file with boxes only", _json("COCO boxes"), _OUTLINES),
    Lookalike("a COCO file with key points only", _json("COCO key points"), _OUTLINES),
    Lookalike(
        "a COCO file without categories, such as captions",
        _json("COCO without categories", "COCO other"),
        "Name the file with polygons, usually instances_*.json.",
    ),
    Lookalike(
        "a list of COCO results, which are predictions",
        _json("COCO results"),
        "Name the file with the annotations: an object with images, annotations and categories.",
    ),
    Lookalike("Pascal VOC with boxes only", _voc_boxes, _OUTLINES),
    Lookalike(
        "LabelMe XML",
        _labelme_xml,
        "It is not read: convert it to COCO, for example with datumaro (format label_me).",
    ),
    Lookalike("YOLO detection with boxes only", _yolo_of("boxes"), _OUTLINES),
    Lookalike("YOLO with turned boxes (OBB) only", _yolo_of("turned boxes"), _OUTLINES),
    Lookalike("YOLO with key points (pose)", _yolo_of("key points"), _OUTLINES),
    Lookalike(
        "Roboflow classification, one label for the whole picture", _classification, _OUTLINES
    ),
    Lookalike(
        "Label Studio's brush labels as PNG or NumPy files, without the names of the pictures",
        _brush_files,
        "Export the project as JSON, and add the pictures.",
    ),
    Lookalike(
        "Label Studio's files of a cloud storage, one an annotation",
        _json("Label Studio, one file an annotation"),
        "Export the project as JSON in Label Studio.",
    ),
    Lookalike(
        "masks of Segment Anything (SAM), which have no classes",
        _json("SAM"),
        "Give each mask a class in an annotation tool, and export that.",
    ),
    Lookalike("a Datumaro file", _json("Datumaro"), "Export it as COCO 1.0."),
    Lookalike(
        "GeoJSON, which needs its slide or map",
        _json("GeoJSON"),
        "Export labelled tiles: in QuPath with LabeledImageServer, from a map with rasterio.",
    ),
    Lookalike("a project of VIA 3", _json("VIA 3"), "Export it as COCO in the annotator."),
    Lookalike(
        "a Supervisely annotation without meta.json",
        _json("Supervisely annotation"),
        "Add meta.json of the project: it lists the classes.",
    ),
    Lookalike("a table of boxes", _box_tables, _OUTLINES),
    Lookalike("a damaged JSON file", _damaged, "Export it again."),
    Lookalike("a video", _videos, "Extract the labelled frames as PNG, with one mask each."),
)
"""Kinds of export that are refused by name, in the order in which they are looked for."""


def check(tree: Tree) -> None:
    """Raise DatasetError if a tree is one of LOOKALIKES."""
    for kind in LOOKALIKES:
        found = kind.find(tree)
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise DatasetError(f"{found[0]}{more}: this is {kind.name}. {kind.way_out}")
