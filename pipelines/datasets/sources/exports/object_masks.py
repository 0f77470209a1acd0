"""Data Science Bowl 2018: a folder for each picture, with one mask of 0 and 255 for each object."""

import pathlib

from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports import pictures
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import VOID, Request

NAME = "one mask per object (Data Science Bowl 2018)"


def find(tree: Tree) -> list[pathlib.Path]:
    """Return the pictures in ID/images/ID.png that have masks ID/masks/*.png of other names."""
    return list(_found(tree))


def _found(tree: Tree) -> dict[pathlib.Path, tuple[pathlib.Path, ...]]:
    found = {}
    for folder, listed in tree.folders.items():
        path = pathlib.PurePosixPath(folder)
        images = [file for file in listed if pictures.is_picture(file)]
        if path.name != "images" or len(images) != 1 or images[0].stem != path.parent.name:
            continue
        masks = tree.folders.get(str(path.parent / "masks"), [])
        masks = [file for file in masks if pictures.is_picture(file)]
        if masks:
            found[images[0]] = tuple(masks)
    return found


def read(tree: Tree, request: Request) -> forms.Export:
    """Read the union of the masks of each picture; the objects are one class."""
    found = _found(tree)
    classes, rule, unlabelled = forms.mask_classes(
        {0: "background", VOID: "foreground"},
        "the masks, which have no names",
        request.reading.unlabelled,
        void_values=(),
        is_guess=True,
    )
    names = pictures.unique_ids([tree.relative(image) for image in found])
    return forms.Export(
        NAME,
        tree.root,
        classes,
        tuple(
            forms.Picture(name, image, masks=masks)
            for name, (image, masks) in zip(names, found.items(), strict=True)
        ),
        unlabelled,
        rule=rule,
        messages=("The masks of the objects of a picture are united into one class.",),
    )
