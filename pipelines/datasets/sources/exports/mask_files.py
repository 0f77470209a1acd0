"""Folders of images and masks in any usual layout, with a class table or without one."""

import dataclasses
import pathlib

from pipelines.datasets import masks
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports import pairing, scan, tables
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import VOID, DatasetError, Request

NAME = "image and mask files"
_TOO_FEW = 0.5
_RENAME = "Add the images, or rename them: a.jpg and a.png, or a.jpg and a_mask.png."


def find(tree: Tree) -> list[pathlib.Path]:
    """Return the class table of a known tool, if masks and images are here as well."""
    found = tables.find(tree)
    if found is None or found[0].name == NAME:
        return []
    return [found[1]] if pairing.pair(tree, forms.Skipped()).pairs else []


def read(tree: Tree, request: Request) -> forms.Export | None:
    """Read a folder of images and masks; None if nothing looks like masks.

    Raises:
        DatasetError: if most masks have no image, or if the masks hold no class ids.
    """
    skipped = forms.Skipped()
    paired = pairing.pair(tree, skipped)
    if paired.problem:
        raise DatasetError(f"{tree.root}: {paired.problem}. {_RENAME}")
    if not paired.pairs:
        return None
    unpaired = [name for names in skipped.counts().values() for name in names]
    if len(unpaired) > _TOO_FEW * (len(unpaired) + len(paired.masks)):
        raise DatasetError(
            f"{tree.root}: {len(unpaired)} masks have no image of their name, for example "
            f"{unpaired[0]}. {_RENAME}"
        )
    name, source, described = _classes(tree, paired.masks, request)
    classes, rule, unlabelled, messages = described
    annotated, bare = pictures_of(tree, paired.pairs)
    return forms.Export(
        name,
        tree.root,
        classes,
        annotated,
        unlabelled,
        sources=(source,) if source else (),
        rule=rule,
        counts=skipped.counts(),
        messages=(*messages, *([paired.message] if paired.message else [])),
        bare=bare,
    )


def pictures_of(tree: Tree, pairs: tuple[pairing.Pair, ...]) -> tuple[tuple, tuple]:
    """Return (pictures with a mask, pictures without one) of pairs."""
    names = pairing.ids(tree, pairs)
    annotated, bare = [], []
    for name, pair in zip(names, pairs, strict=True):
        mask_files = () if pair.mask is None else (pair.mask,)
        picture = forms.Picture(name, pair.image, pair.split, masks=mask_files)
        (annotated if mask_files else bare).append(picture)
    return tuple(annotated), tuple(bare)


def _classes(tree: Tree, mask_files, request: Request) -> tuple:
    """Return (format, table file or None, (classes, rule, unlabelled, messages))."""
    found = tables.find(tree)
    if found is None:
        return NAME, None, guessed(mask_files, request, str(tree.root))
    form, source = found
    table = form.read(tree, source)
    void = [request.void_value] if request.void_value != VOID else []
    classes, rule, unlabelled = forms.mask_classes(
        table.names,
        source.name,
        request.reading.unlabelled,
        table.colors,
        (*table.void_values, *void),
        table.background,
    )
    rule = dataclasses.replace(_mapped(rule, table.mapping), takes_void_value=not table.colors)
    return form.name, source, (classes, rule, unlabelled, ())


def _mapped(rule: masks.MaskRule, mapping) -> masks.MaskRule:
    """Return the rule for stored values that a table maps to other values."""
    if not mapping:
        return rule
    listed = list(rule.table)
    for stored, value in mapping.items():
        if 0 <= stored <= VOID:
            listed[stored] = rule.table[value] if 0 <= value <= VOID else VOID
    return dataclasses.replace(rule, table=tuple(listed))


def guessed(mask_files, request: Request, where: str, pages=()) -> tuple:
    """Return (classes, rule, unlabelled, messages) of masks without a class table.

    Masks of 0 and 255 alone are a background and one class. Values that number objects are too.
    Otherwise each value, or each color, is a class that is named after it.

    Args:
        mask_files: the masks.
        request: the user's choices.
        where: the folder, for messages.
        pages: the page of each mask in a TIFF stack; () for files of one page.

    Raises:
        DatasetError: if there are too many values or colors, or masks of a wrong kind.
    """
    seen = scan.scan(mask_files, pages)
    void = {VOID, request.void_value}
    values = set(seen.values) - void
    if not seen.colors and set(seen.values) in ({0, VOID}, {VOID}):
        return _described({0: "background", VOID: "foreground"}, request, (), _BINARY)
    if seen.are_instances:
        names = dict.fromkeys(range(1, VOID + 1), "object")
        described = _described({0: "background", **names}, request, (), _INSTANCES)
        rule = dataclasses.replace(described[1], above=described[1].table[1])
        return (described[0], rule, *described[2:])
    scan.check_countable(seen, where)
    if seen.colors:
        names = {1000 + k: "_".join(map(str, color)) for k, color in enumerate(seen.colors)}
        colors = {1000 + k: color for k, color in enumerate(seen.colors)}
        names |= {value: f"class_{value}" for value in sorted(values)}
        return _described(names, request, void, _COLORS.format(where=where), colors)
    names = {value: f"class_{value}" for value in sorted(values)}
    described = _described(names, request, void, _NAMES.format(where=where))
    if not seen.palettes_differ:
        return described
    rule = dataclasses.replace(described[1], ignores_palettes=True)
    return (described[0], rule, described[2], (*described[3], _PALETTES))


_BINARY = (
    "All masks hold 0 and 255 only: 0 is 'background' and 255 is 'foreground', without void. Write "
    "classes.txt with two names to change the names."
)
_INSTANCES = (
    "Warning: the values of the masks number objects and are no classes, because nearly each value "
    "is one connected piece: 0 is 'background', and all other values are one class, 'object'."
)
_NAMES = (
    "No class names were found: the classes are named after the values of the masks. Write "
    "{where}/classes.txt with one name a line; line 1 names value 0."
)
_PALETTES = (
    "Warning: the palettes of the masks differ, but no color has two values, so the values count "
    "and not the colors."
)
_COLORS = (
    "The masks hold colors, and no color table is here: each color is a class, named after its "
    "red, green and blue. To name them, write {where}/classes.txt with one name a line and "
    "{where}/colors.txt with lines 'name red green blue'."
)


def _described(names, request, void, message, colors=None) -> tuple:
    classes, rule, unlabelled = forms.mask_classes(
        names,
        "the masks, because there is no class table",
        request.reading.unlabelled,
        colors,
        tuple(void),
        is_guess=True,
    )
    rule = dataclasses.replace(rule, palettes_by_color=bool(colors))
    return classes, rule, unlabelled, (message,)
