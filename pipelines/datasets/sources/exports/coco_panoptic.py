"""COCO panoptic: a PNG per image whose colors are segment ids, and a JSON with their categories."""

import dataclasses
import functools
import pathlib

import numpy as np

from pipelines.datasets import image_mask_pairs, masks
from pipelines.datasets.sources.exports import coco, drafts, json_kinds, shapes
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import Request

NAME = "COCO panoptic"


@dataclasses.dataclass(frozen=True)
class Segments:
    """Segments of one class in a panoptic PNG: id = R + 256 G + 65536 B (panopticapi)."""

    file: pathlib.Path
    ids: tuple[int, ...]

    def patch(self, size):
        """Return the pixels of the segments."""
        numbers = _numbers(self.file, image_mask_pairs.state(self.file))
        if numbers.shape != size:
            raise ValueError(f"{self.file} has the size {numbers.shape}, not {size}")
        return shapes.Patch(0, 0, np.isin(numbers, self.ids))


@functools.lru_cache(maxsize=4)
def _numbers(file: pathlib.Path, _) -> np.ndarray:
    """Return the segment ids of a PNG, int64 [height, width]; the second argument is its state."""
    colors = masks.read_stored(file).pixels
    if colors.ndim != 3 or colors.shape[2] < 3:
        raise ValueError(f"{file} has no colors, but panoptic ids are colors")
    return colors[..., :3].astype(np.int64) @ np.array([1, 256, 65536])


def find(tree: Tree) -> list[pathlib.Path]:
    """Return the panoptic files."""
    return json_kinds.kinds(tree).get(NAME, [])


def read(tree: Tree, request: Request) -> forms.Export:
    """Read the panoptic files of an export. Pixels of no segment are void (panopticapi)."""
    sources = find(tree)
    documents = {file: tree.json(file) for file in sources}
    names, _ = coco.categories(documents)
    unlabelled = request.reading.unlabelled or "void"
    classes = forms.shape_classes(names, "the categories of " + sources[0].name, unlabelled)
    skipped = forms.Skipped()
    found = [
        draft
        for file, document in documents.items()
        for draft in _drafts(file, document, classes, tree, skipped)
    ]
    return drafts.export(
        found,
        tree,
        request.reading,
        skipped,
        usual="void",
        format=NAME,
        classes=classes,
        sources=tuple(sources),
    )


def _drafts(file, document, classes, tree, skipped) -> list[drafts.Draft]:
    ids = {c["id"]: classes.id_of(c["name"]) for c in coco.records(document, "categories")}
    pngs = {f.name: f for f in tree.files if f.parent.name == file.stem}
    images = {coco.id_in(image, "id"): image for image in coco.records(document, "images")}
    found = []
    for annotation in coco.records(document, "annotations"):
        image, png = images.get(coco.id_in(annotation, "image_id")), _png(annotation, pngs)
        if image is None or png is None:
            skipped.add("segment file that is not here", annotation.get("file_name"))
            continue
        segments = _segments(annotation, ids, png, skipped)
        split, size = drafts.named_split(file.stem), drafts.size_of(image)
        name = image.get("file_name") or ""
        found.append(drafts.Draft(name, file, segments, split, split or "", size, None))
    return found


def _png(annotation: dict, pngs: dict[str, pathlib.Path]) -> pathlib.Path | None:
    return pngs.get(pathlib.PurePosixPath(str(annotation.get("file_name"))).name)


def _segments(annotation, ids, png, skipped) -> list[tuple[int, Segments]]:
    by_label: dict[int, list[int]] = {}
    for segment in coco.records(annotation, "segments_info"):
        label, number = ids.get(coco.id_in(segment, "category_id")), segment.get("id")
        if label is None or not isinstance(number, int):
            skipped.add("segment of an unknown category", f"{number} in {png.name}")
        else:
            by_label.setdefault(label, []).append(number)
    return [(label, Segments(png, tuple(numbers))) for label, numbers in by_label.items()]
