"""Supervisely: meta.json with the classes, and DATASET/ann/X.EXT.json beside DATASET/img/X.EXT."""

import base64
import binascii
import pathlib
import zlib

from pipelines.datasets import files
from pipelines.datasets.sources.exports import drafts, json_kinds, labelme, pictures, shapes
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import Request

NAME = "Supervisely"
_AREAS = ("polygon", "bitmap", "rectangle")
_MAX_UNPACKED = 256 * 2**20


def find(tree: Tree) -> list[pathlib.Path]:
    """Return meta.json if annotation files in folders `ann` go with it."""
    metas = json_kinds.kinds(tree).get(NAME, [])
    return metas if any(f.parent.name == "ann" for f in tree.ending(".json")) else []


def read(tree: Tree, request: Request) -> forms.Export:
    """Read the annotation files; later objects are on top."""
    meta = find(tree)[0]
    listed = [c for c in tree.json(meta)["classes"] if isinstance(c, dict)]
    areas = [c for c in listed if c.get("shape") in (*_AREAS, "any", "alpha_mask", None)]
    unlabelled = request.reading.unlabelled
    titles = [c.get("title") for c in areas]
    colors = [_color(c.get("color")) for c in areas]
    classes = forms.shape_classes(titles, meta.name, unlabelled, colors if all(colors) else ())
    skipped = forms.Skipped()
    annotations = [f for f in tree.files if f.parent.name == "ann" and f.suffix == ".json"]
    found = [_draft(file, tree.try_json(file), classes, skipped) for file in annotations]
    found += _untouched(tree, annotations)
    return drafts.export(
        [draft for draft in found if draft is not None],
        tree,
        request.reading,
        skipped,
        format=NAME,
        classes=classes,
        sources=(meta, *annotations),
        messages=(drafts.LATER_ON_TOP,),
    )


def _color(text: object) -> tuple[int, int, int] | None:
    try:
        return tuple(bytes.fromhex(str(text).lstrip("#"))) if len(str(text)) == 7 else None
    except ValueError:
        return None


def _untouched(tree: Tree, annotations: list[pathlib.Path]) -> list[drafts.Draft]:
    """Return a draft without annotation for each picture in `img` without a file in `ann`."""
    known = {(f.parent.parent, files.normal(f.stem)) for f in annotations}
    return [
        drafts.Draft(tree.relative(file), file)
        for file in tree.files
        if file.parent.name == "img"
        and pictures.is_picture(file)
        and (file.parent.parent, files.normal(file.name)) not in known
    ]


def _draft(file, document, classes, skipped) -> drafts.Draft | None:
    if not isinstance(document, dict) or not isinstance(document.get("objects"), list):
        skipped.add("annotation file that is damaged", file.name)
        return None
    painted = []
    for record in document["objects"]:
        record = record if isinstance(record, dict) else {}
        kind, where = record.get("geometryType"), f"object {record.get('id')} of {file.name}"
        label = classes.id_of(record.get("classTitle"))
        if kind not in _AREAS:
            skipped.add(f"object of type {kind}, which is not read", where)
        elif label is None:
            skipped.add("object of an unknown class", where)
        elif (shape := _shape(kind, record)) is None:
            skipped.add("object that is damaged, or has too few points", where)
        else:
            painted.append((label, shape))
    folder = file.parent.parent.name
    size = drafts.size_of(document.get("size") if isinstance(document.get("size"), dict) else {})
    name = f"{folder}/img/{file.stem}"
    return drafts.Draft(name, file, painted, split=folder, near=folder, size=size)


def _shape(kind: str, record: dict) -> shapes.Shape | None:
    if kind == "bitmap":
        return _bitmap(record.get("bitmap"))
    points = record.get("points")
    points = points if isinstance(points, dict) else {}
    ring = shapes.pairs(points.get("exterior"), fewest=2)
    if kind == "rectangle" and len(ring) == 2:
        return shapes.OutlinedBox(ring)
    holes = points.get("interior")
    holes = tuple(map(shapes.pairs, holes)) if isinstance(holes, list) else ()
    return shapes.Polygon((ring,), tuple(filter(None, holes))) if len(ring) > 2 else None


def _bitmap(record: object) -> shapes.Bitmap | None:
    """Return the mask of base64(zlib(PNG)) at its origin [x, y]; some files are not packed."""
    if not isinstance(record, dict) or not isinstance(record.get("data"), str):
        return None
    origin = record.get("origin")
    if not isinstance(origin, list) or not all(isinstance(n, int) for n in origin[:2]):
        return None
    try:
        content = base64.b64decode(record["data"])
        if not content.startswith(b"\x89PNG"):
            content = zlib.decompressobj().decompress(content, _MAX_UNPACKED)
    except (binascii.Error, ValueError, zlib.error):
        return None
    covered = labelme.decoded(content)
    return None if covered is None else shapes.Bitmap(origin[1], origin[0], covered)
