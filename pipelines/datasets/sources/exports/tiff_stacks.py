"""TIFF stacks: page n of one file is a picture, and page n of another file is its mask."""

import pathlib
import re

from pipelines.datasets import headers
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports import mask_files
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import Request

NAME = "TIFF stacks"
_MASKS = re.compile(r"label|mask|(^|[-_])gt([-_]|$)|seg|annot|truth", re.IGNORECASE)
_VOLUMES = re.compile(r"volumes?|images?|imgs?|raw|labels?|masks?|gt|seg\w*|annot\w*|truth")


def find(tree: Tree) -> list[pathlib.Path]:
    """Return the stacks of pictures that have a stack of masks."""
    return [image for image, _, _ in _pairs(tree)]


def _pairs(tree: Tree) -> list[tuple[pathlib.Path, pathlib.Path, int]]:
    """Return (stack of pictures, stack of masks, number of pages)."""
    stacks: dict[tuple[str, int], dict[bool, list[pathlib.Path]]] = {}
    for file in tree.files:
        num_pages = _num_pages(file) if file.suffix.lower() in (".tif", ".tiff") else 1
        if num_pages > 1:
            path = tree.relative(file).lower()
            key = re.sub(r"[-_./\s]+", " ", _VOLUMES.sub("", path)).strip()
            kinds = stacks.setdefault((key, num_pages), {True: [], False: []})
            kinds[bool(_MASKS.search(path))].append(file)
    return [
        (kinds[False][0], kinds[True][0], num_pages)
        for (_, num_pages), kinds in stacks.items()
        if len(kinds[True]) == len(kinds[False]) == 1
    ]


def _num_pages(file: pathlib.Path) -> int:
    try:
        return headers.num_tiff_pages(file)
    except OSError:
        return 1


def read(tree: Tree, request: Request) -> forms.Export:
    """Read each page as a picture."""
    pages = [
        forms.Picture(f"{image.stem}_{k:04d}", image, masks=(mask,), page=k)
        for image, mask, num_pages in _pairs(tree)
        for k in range(num_pages)
    ]
    described = mask_files.guessed(
        [page.masks[0] for page in pages], request, str(tree.root), [page.page for page in pages]
    )
    classes, rule, unlabelled, messages = described
    return forms.Export(
        NAME, tree.root, classes, tuple(pages), unlabelled, rule=rule, messages=messages
    )
