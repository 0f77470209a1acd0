"""Annotations before their pictures are found, and the search for these pictures."""

import dataclasses
import pathlib
from collections.abc import Iterable

from pipelines.datasets import division
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports import pictures
from pipelines.datasets.sources.exports.shapes import Shape
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import Reading

MISSING = "image that is not here"
LATER_ON_TOP = "Where shapes overlap, the later one is on top."


@dataclasses.dataclass
class Draft:
    """The annotation of one picture.

    Attributes:
        name: the picture's name or path in the annotation.
        annotation: file of the annotation.
        shapes: (class id or 255, shape); None if nobody annotated the picture.
        split: name of the split, or None.
        near: a folder that decides between pictures of equal names, such as a subset.
        size: (height, width) in the annotation, or None.
        embedded: the picture inside the annotation, or None.
        masks: mask files in place of shapes.
    """

    name: str
    annotation: pathlib.Path
    shapes: list[tuple[int, Shape]] | None = None
    split: str | None = None
    near: str = ""
    size: tuple[int, int] | None = None
    embedded: forms.Embedded | None = None
    masks: tuple[pathlib.Path, ...] = ()

    @property
    def is_annotated(self) -> bool:
        """Whether somebody annotated the picture, perhaps without any object."""
        return self.shapes is not None or bool(self.masks)


def export(
    drafts: Iterable[Draft],
    tree: Tree,
    reading: Reading,
    skipped: forms.Skipped,
    usual: str = "background",
    **facts: object,
) -> forms.Export:
    """Return the export of some drafts, with their pictures.

    Args:
        drafts: the annotations.
        tree: the files of the export.
        reading: choices of the user; with unannotated="background", pictures without annotation
            count as annotated.
        skipped: gets the pictures that are not here, and pictures that are annotated twice.
        usual: meaning of unlabelled pixels in this format, "background" or "void".
        facts: further fields of `forms.Export`, at least `format` and `classes`.
    """
    annotated, bare = _found(drafts, tree, reading, skipped)
    return forms.Export(
        root=tree.root,
        pictures=annotated,
        unlabelled=reading.unlabelled or usual,
        counts=skipped.counts(),
        bare=bare,
        **facts,
    )


def _found(
    drafts: Iterable[Draft], tree: Tree, reading: Reading, skipped: forms.Skipped
) -> tuple[tuple[forms.Picture, ...], tuple[forms.Picture, ...]]:
    """Return (annotated pictures, pictures without annotation), in the order of the drafts."""
    folder = None if reading.images is None else pathlib.Path(reading.images).expanduser()
    finder = pictures.Finder(tree, folder)
    files: dict[pathlib.Path | int, Draft] = {}
    for number, draft in enumerate(drafts):
        file = finder.find(draft.name, draft.near)
        if file is None and draft.embedded is None:
            skipped.add(MISSING, draft.name)
        elif file is not None and file in files and files[file].is_annotated:
            if draft.is_annotated:
                skipped.add("further annotation of an image; the first one counts", draft.name)
        else:
            files[number if file is None else file] = draft
    ids = pictures.unique_ids([_label(file, draft, tree) for file, draft in files.items()])
    annotated, bare = [], []
    for name, (file, draft) in zip(ids, files.items(), strict=True):
        if draft.shapes is None and not draft.masks and reading.unannotated == "background":
            draft = dataclasses.replace(draft, shapes=[])
        picture = _picture(name, file, draft, tree)
        (annotated if draft.is_annotated else bare).append(picture)
    return tuple(annotated), tuple(bare)


def _label(file: pathlib.Path | int, draft: Draft, tree: Tree) -> str:
    if isinstance(file, int):
        return f"{draft.annotation.stem}.png"
    return tree.relative(file) if tree.root in file.parents else file.name


def _picture(name: str, file: pathlib.Path | int, draft: Draft, tree: Tree) -> forms.Picture:
    is_file = isinstance(file, pathlib.Path)
    return forms.Picture(
        id=name,
        image=file if is_file else draft.embedded,
        split=draft.split or (folder_split(file, tree) if is_file else None),
        shapes=None if draft.masks else tuple(draft.shapes or ()),
        masks=draft.masks,
        size=draft.size,
        annotation=str(draft.annotation),
    )


def folder_split(file: pathlib.Path, tree: Tree) -> str | None:
    """Return the folder of a file that names a usual split, or None."""
    if tree.root not in file.parents:
        return None
    parts = pathlib.PurePosixPath(tree.relative(file)).parts[:-1]
    return next((part for part in parts if division.usual_split(part)), None)


def named_split(stem: str) -> str | None:
    """Return the part of a file's name that names a usual split, or None.

    Example:
        >>> named_split("instances_val2017")
        'val2017'
    """
    words = stem.replace("-", "_").replace(".", "_").split("_")
    return next((word for word in reversed(words) if division.usual_split(word)), None)


def size_of(record: dict, height: str = "height", width: str = "width") -> tuple[int, int] | None:
    """Return (height, width) of a record of an annotation; None if they are missing or no sizes."""
    size = record.get(height), record.get(width)
    is_size = all(isinstance(side, int | float) and 1 <= side <= 10**6 for side in size)
    return (int(size[0]), int(size[1])) if is_size else None
