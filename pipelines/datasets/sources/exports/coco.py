"""COCO instances: images, annotations with polygons or run lengths, categories.

CVAT, Roboflow, datumaro, labelme2coco and Label Studio write this format too. `iscrowd` plays no
part in a semantic mask: CVAT and datumaro set it for everything that is drawn as a mask. COCO
defines no order, so smaller shapes are painted over larger ones.
"""

import pathlib

from pipelines.datasets.sources.exports import drafts, json_kinds, shapes
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import DatasetError, Request

NAME = "COCO instances"
OVERLAP = "Where shapes overlap, the shape with fewer pixels is on top: the format has no order."


def find(tree: Tree) -> list[pathlib.Path]:
    """Return the COCO files with polygons or run lengths."""
    return json_kinds.kinds(tree).get("COCO", [])


def read(tree: Tree, request: Request) -> forms.Export:
    """Read all COCO files of an export; their categories are merged by name.

    Raises:
        DatasetError: if a file is damaged.
    """
    sources = find(tree)
    documents = {file: tree.json(file) for file in sources}
    names, parents = categories(documents)
    classes = forms.shape_classes(
        names, "the categories of " + _named(sources), request.reading.unlabelled
    )
    skipped = forms.Skipped()
    found = [
        draft
        for file, document in documents.items()
        for draft in _drafts(file, document, classes, skipped)
    ]
    dropped = f"Category {', '.join(map(repr, parents))} is the unused parent of the others."
    return drafts.export(
        found,
        tree,
        request.reading,
        skipped,
        format=NAME,
        classes=classes,
        sources=tuple(sources),
        small_on_top=True,
        messages=(OVERLAP, *([dropped] if parents else [])),
    )


def _named(files: list[pathlib.Path]) -> str:
    return ", ".join(file.name for file in files[:3]) + (", ..." if len(files) > 3 else "")


def categories(documents: dict[pathlib.Path, dict]) -> tuple[list[str], list[str]]:
    """Return the names of categories by ascending id, and the names of unused parents.

    Roboflow writes a category 0 that is named like the project and is the parent of all others.
    """
    by_name: dict[str, int] = {}
    parents, used = set(), set()
    for file, document in documents.items():
        ids = {id_in(a, "category_id") for a in records(document, "annotations")}
        for category in records(document, "categories"):
            name, number = category.get("name"), category.get("id")
            if not isinstance(name, str) or not isinstance(number, int):
                raise DatasetError(f"{file} has a category without name or id: {category!r:.80}.")
            by_name[name] = min(number, by_name.get(name, number))
            parents.add(str(category.get("supercategory")))
            if number in ids:
                used.add(name)
    names = sorted(by_name, key=by_name.get)
    unused = [n for n in names if by_name[n] == 0 and n in parents and n not in used]
    return [name for name in names if name not in unused], unused


def records(document: dict, key: str) -> list[dict]:
    """Return the records of a list in a document; entries that are no objects are left out."""
    listed = document.get(key)
    listed = listed if isinstance(listed, list) else []
    return [record for record in listed if isinstance(record, dict)]


def id_in(record: dict, key: str) -> int | str | None:
    """Return an id of a record, or None if it is neither a number nor a text."""
    value = record.get(key)
    return value if isinstance(value, int | str) else None


def _drafts(file, document, classes, skipped) -> list[drafts.Draft]:
    ids = {c["id"]: classes.id_of(c["name"]) for c in records(document, "categories")}
    found = {}
    for image in records(document, "images"):
        found[id_in(image, "id")] = drafts.Draft(
            name=image.get("file_name") or "",
            annotation=file,
            split=drafts.named_split(file.stem),
            near=drafts.named_split(file.stem) or file.parent.name,
            size=drafts.size_of(image),
        )
    for annotation in records(document, "annotations"):
        draft = found.get(id_in(annotation, "image_id"))
        label = ids.get(id_in(annotation, "category_id"))
        where = f"annotation {annotation.get('id')} in {file.name}"
        if draft is None:
            skipped.add("annotation of an image that the file does not list", where)
        elif label is None:
            skipped.add("annotation of an unknown category", where)
        elif (shape := _shape(annotation.get("segmentation"))) is None:
            skipped.add("annotation without an outline of three points", where)
        else:
            draft.shapes = draft.shapes or []
            draft.shapes.append((label, shape))
    return list(found.values())


def _shape(segmentation: object) -> shapes.Shape | None:
    """Return the shape of a `segmentation`: a list of rings, or run lengths."""
    if isinstance(segmentation, dict):
        size = segmentation.get("size")
        if not isinstance(size, list) or len(size) != 2 or "counts" not in segmentation:
            return None
        return shapes.CocoRuns(segmentation["counts"], tuple(size))
    if not isinstance(segmentation, list):
        return None
    rings = tuple(ring for ring in map(shapes.points, segmentation) if ring)
    return shapes.Polygon(rings) if rings else None
