"""labelme: one JSON file beside each picture, with shapes in painting order."""

import base64
import binascii
import math
import pathlib

import numpy as np

from pipelines.datasets import files, headers
from pipelines.datasets.sources.exports import drafts, json_kinds, pictures, shapes, tree
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.spec import DatasetError, Request

NAME = "labelme JSON"
_WITHOUT_AREA = ("line", "linestrip", "point", "points")
_HAS_PICTURE = "has imageData"  # in the documents that are kept
_MAX_EMBEDDED = 256 * 2**20  # bytes of the base64 text of a picture


def find(files_: tree.Tree) -> list[pathlib.Path]:
    """Return the first labelme files; an export has one for each picture."""
    return json_kinds.kinds(files_).get("labelme", [])


def read(files_: tree.Tree, request: Request) -> forms.Export:
    """Read all labelme files of an export.

    labels.txt gives the classes and their order. Without it, classes are sorted by name, as
    labelme's own export sorts them. Pixels without a shape are `_background_`.
    """
    skipped = forms.Skipped()
    documents = _documents(files_, skipped)
    names, origin = _names(files_, documents)
    unlabelled = request.reading.unlabelled
    classes = forms.shape_classes(names, origin, unlabelled, background="_background_")
    found = [_draft(file, d, classes, skipped) for file, d in documents.items()]
    found += _untouched(files_, found)
    return drafts.export(
        found,
        files_,
        request.reading,
        skipped,
        format=NAME,
        classes=classes,
        sources=tuple(documents),
        messages=(drafts.LATER_ON_TOP,),
    )


def _documents(files_: tree.Tree, skipped: forms.Skipped) -> dict[pathlib.Path, dict]:
    """Return the documents without their pictures, which would fill the memory."""
    documents = {}
    for file in files_.ending(".json"):
        try:
            document = tree.read_json(file)
        except DatasetError as error:
            skipped.add("JSON file that cannot be read", error)
            continue
        if json_kinds.kind(document, file.stem) == "labelme":
            picture = document.pop("imageData", None)
            documents[file] = document | {_HAS_PICTURE: isinstance(picture, str) and bool(picture)}
        else:
            skipped.add("JSON file of another kind", file.name)
    return documents


def _names(files_: tree.Tree, documents) -> tuple[list[str], str]:
    used = {str(s.get("label")) for d in documents.values() for s in _shapes(d)}
    for file in files_.named("labels.txt", "classes.txt"):
        listed = [line for line in files.read_lines(file) if line]
        if used <= set(listed):
            return listed, file.name
    return sorted(used), f"the labels of {len(documents)} JSON files, sorted"


def _shapes(document: dict) -> list[dict]:
    return [shape for shape in document["shapes"] if isinstance(shape, dict)]


def _untouched(files_: tree.Tree, found: list[drafts.Draft]) -> list[drafts.Draft]:
    """Return a draft without annotation for each picture beside JSON files that has no JSON."""
    annotated = {(d.annotation.parent, files.normal(d.annotation.stem)) for d in found}
    folders = {folder for folder, _ in annotated}
    return [
        drafts.Draft(files_.relative(file), file)
        for file in files_.files
        if not files_.only
        and pictures.is_picture(file)
        and file.parent in folders
        and (file.parent, files.normal(file.stem)) not in annotated
    ]


def _draft(file, document, classes, skipped) -> drafts.Draft:
    painted = []
    for number, record in enumerate(_shapes(document)):
        where = f"shape {number} ({record.get('shape_type')}) of {file.name}"
        kind = record.get("shape_type") or "polygon"
        label = classes.id_of(record.get("label"))
        if kind in _WITHOUT_AREA:
            skipped.add("line or point, which has no area", where)
        elif label is None:
            skipped.add("shape without a label", where)
        elif (shape := _shape(kind, record)) is None:
            skipped.add("shape that is damaged, or has too few points", where)
        else:
            painted.append((label, shape))
    name = document.get("imagePath")
    name = name if isinstance(name, str) and pictures.is_picture(_path(name)) else file.stem
    return drafts.Draft(
        name=name,
        annotation=file,
        shapes=painted,
        near=file.parent.name,
        size=drafts.size_of(document, "imageHeight", "imageWidth"),
        embedded=_embedded(file) if document[_HAS_PICTURE] else None,
    )


def _path(name: str) -> pathlib.PurePath:
    return pathlib.PurePosixPath(name.replace("\\", "/"))


def _embedded(file: pathlib.Path) -> forms.Embedded:
    """Return the picture in a labelme file; it is read when it is needed."""

    def read_() -> bytes:
        content = _bytes(tree.read_json(file).get("imageData"))
        if content is None:
            raise ValueError("its imageData is no base64 text of a picture")
        return content

    return forms.Embedded(file, read_)


def _bytes(text: object) -> bytes | None:
    """Return the bytes of a base64 text, or None."""
    if not isinstance(text, str) or not text or len(text) > _MAX_EMBEDDED:
        return None
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return None


def _shape(kind: str, record: dict) -> shapes.Shape | None:
    points = shapes.pairs(record.get("points"), fewest=2)
    if kind in ("polygon", "oriented_rectangle") and len(points) >= 3:
        return shapes.Outlined(points)
    if kind == "rectangle" and len(points) == 2:
        return shapes.OutlinedBox(points)
    if kind == "circle" and len(points) == 2:
        (cx, cy), rim = points
        radius = math.dist((cx, cy), rim)
        corners = ((cx - radius, cy - radius), (cx + radius, cy + radius))
        return shapes.OutlinedBox(corners, is_ellipse=True)
    if kind == "mask" and len(points) == 2:
        return _bitmap(points, _bytes(record.get("mask")))
    return None


def _bitmap(points: shapes.Points, content: bytes | None) -> shapes.Bitmap | None:
    """Return the mask at its rounded first corner; None if it cannot be decoded."""
    if not content:
        return None
    covered = decoded(content)
    (x, y), _ = points
    return None if covered is None else shapes.Bitmap(round(y), round(x), covered)


def decoded(content: bytes) -> np.ndarray | None:
    """Return the pixels of a small picture that are not 0: of alpha if it has alpha, else of gray.

    Returns:
        bool [height, width], or None if the picture is damaged or too large.
    """
    try:
        with headers.open_content(content) as image:
            has_alpha = "A" in image.getbands()
            band = image.getchannel("A") if has_alpha else image
            pixels = np.asarray(band if band.mode in ("1", "L", "P", "A") else band.convert("L"))
            return pixels > 0
    except headers.DAMAGED:
        return None
