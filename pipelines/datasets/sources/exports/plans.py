"""The plan of an export: its splits, and a function that reads a picture with its labels."""

import dataclasses
import functools
import pathlib
from typing import NamedTuple

import numpy as np

from pipelines.datasets import division, faults, image_mask_pairs, inspection, masks, records
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports import shapes
from pipelines.datasets.spec import VOID, DatasetError, DatasetSpec, PixelWindow, Request


def plan(
    export: forms.Export, request: Request, builder: type[records.RecordsBuilder]
) -> records.Plan:
    """Return the plan of an export.

    Args:
        export: the export.
        request: the splits that the user asks for.
        builder: the TFDS builder; the records' folder has its name.

    Raises:
        DatasetError: if the export has fewer than two classes, no picture, or no such split.
    """
    _check(export)
    choice = _splits(export, request)
    rule = export.rule or masks.consecutive(export.classes.names)
    rule = dataclasses.replace(
        rule, unlabelled=export.unlabelled, background=export.classes.background
    )
    read_ = functools.partial(read, small_on_top=export.small_on_top)
    return records.Plan(
        spec=_spec(export),
        builder=builder,
        splits=choice.splits,
        read=functools.partial(read_, rule=rule),
        reader=read_,
        rule=rule,
        train_split=choice.train,
        eval_split=choice.eval,
        root=str(export.root),
        divided=(choice.train, choice.eval) if choice.is_divided else None,
        fingerprint=_fingerprint(export, choice.splits, request),
        messages=(summary(export), *export.messages, *_skipped(export), *choice.messages),
    )


def summary(export: forms.Export) -> str:
    """Return one line: the format, the numbers of pictures, and the origin of the classes."""
    num_bare = len(export.bare)
    meaning = "the background" if export.unlabelled == "background" else "void"
    left_out = f" (left out: {number(num_bare)} without annotation)" if num_bare else ""
    return (
        f"Recognized {export.format}: {number(len(export.pictures))} with annotation{left_out}; "
        f"{len(export.classes.names)} classes from {export.classes.origin}; pixels without a label "
        f"are {meaning}."
    )


def number(count: int) -> str:
    """Return "1 image" or "2 images"."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def _skipped(export: forms.Export) -> tuple[str, ...]:
    return tuple(
        f"Skipped {len(names)} x {problem}: {faults.named(names, limit=5)}."
        for problem, names in export.counts.items()
    )


def _check(export: forms.Export) -> None:
    if not export.pictures:
        skipped = " ".join(_skipped(export))
        bare = f"{len(export.bare)} images have no annotation. " if export.bare else ""
        raise DatasetError(
            f"{export.root} is recognized as {export.format}, but no annotated image was found. "
            f"{bare}{skipped} If the images lie elsewhere, name their folder with the argument "
            "images."
        )
    if len(export.classes.names) < 2:
        raise DatasetError(
            f"{export.root} ({export.format}) has the classes {export.classes.names} "
            f"({export.classes.origin}): training needs two. With unlabelled='background', pixels "
            "without a label are a class."
        )


def _spec(export: forms.Export) -> DatasetSpec:
    return DatasetSpec(
        name="folder",
        class_names=export.classes.names,
        colors=forms.usual_colors(export.classes),
        background_label=export.classes.background,
        source=f"{export.format} in {export.root}",
    )


class _Choice(NamedTuple):
    """Pictures of the two splits by name, their names, and messages about the choice."""

    splits: dict[str, tuple[forms.Picture, ...]]
    train: str
    eval: str
    messages: tuple[str, ...] = ()
    is_divided: bool = False


def _splits(export: forms.Export, request: Request) -> _Choice:
    wanted = request.splits("train", "val")
    pools: dict[str, list] = {}
    for picture in export.pictures:
        usual = division.usual_split(picture.split)
        for name in {usual, picture.split} - {None}:
            pools.setdefault(name, []).append(picture)
    are_usual = {"train", "val", "test"} & pools.keys()
    if are_usual:
        unnamed = [p for p in export.pictures if p.split is None]
        if unnamed:
            pools.setdefault("train", []).extend(unnamed)
    if all(name in pools for name in wanted):
        return _Choice({name: tuple(pools[name]) for name in dict.fromkeys(wanted)}, *wanted)
    is_default = request.train_split in (None, "train") and request.eval_split in (None, "val")
    if is_default:
        return _divided(export, pools, are_usual)
    if request.eval_split in pools and request.train_split in (None, "train") and are_usual:
        choice = _divided(export, pools, are_usual)
        splits = {
            "train": choice.splits["train"],
            request.eval_split: tuple(pools[request.eval_split]),
        }
        return _Choice(splits, "train", request.eval_split, choice.messages)
    missing = next(name for name in wanted if name not in pools)
    raise records.unknown_split(missing, tuple(sorted(pools)), f"in {export.root}")


def _divided(export: forms.Export, pools, are_usual) -> _Choice:
    """Divide the pictures of split train or val, or all pictures if there are no usual splits."""
    source = next((name for name in ("train", "val", "test") if name in are_usual), None)
    pictures = tuple(pools[source]) if source else export.pictures
    if len(pictures) == 1:
        message = "Warning: there is one annotated image, for training and for evaluation."
        return _Choice({"train": pictures}, "train", "train", (message,))
    train, evaluation = division.divided(pictures, [picture.id for picture in pictures])
    given = f"no split besides '{source}'" if len(are_usual) == 1 else "no split 'val'"
    given = given if source else "no splits"
    others = sorted(set(are_usual) - {source})
    more = f" Split {' and '.join(others)} is kept for eval_split={others[0]!r}." if others else ""
    message = (
        f"The export has {given}: {len(pictures)} images were divided by a hash of their names "
        f"into {len(train)} for training and {len(evaluation)} for evaluation.{more}"
    )
    return _Choice({"train": train, "val": evaluation}, "train", "val", (message,), True)


def _fingerprint(export: forms.Export, splits, request: Request) -> str:
    """Return text that changes with the annotation files, the pictures and the arguments."""
    lines = [export.format, repr(export.classes), repr(request), str(export.small_on_top)]
    lines += [f"{file} {image_mask_pairs.state(file)}" for file in export.sources]
    for split, pictures in splits.items():
        for picture in pictures:
            listed = [picture.image] if isinstance(picture.image, pathlib.Path) else []
            states = [image_mask_pairs.state(file) for file in (*listed, *picture.masks)]
            lines.append(f"{split} {picture.id} {picture.page} {listed} {picture.masks} {states}")
    return "\n".join(lines)


def read(
    picture: forms.Picture,
    rule: masks.MaskRule,
    small_on_top: bool = False,
    window: PixelWindow | None = None,
) -> inspection.CheckedImage:
    """Read a picture and its labels; the result lists the faults.

    Args:
        picture: the picture.
        rule: the meaning of the values of mask files.
        small_on_top: whether smaller shapes are painted over larger ones.
        window: the mapping of stored values to 8 bits, or None for images of 8 bits.
    """
    is_embedded = isinstance(picture.image, forms.Embedded)
    labels = picture.annotation or "; ".join(map(str, picture.masks))
    return image_mask_pairs.assemble(
        picture.id,
        (f"image inside {labels}" if is_embedded else picture.image, labels),
        lambda: _image(picture, window),
        lambda size: _labels(picture, rule, size, small_on_top),
    )


def _image(picture: forms.Picture, window: PixelWindow | None) -> image_mask_pairs.DecodedImage:
    if isinstance(picture.image, forms.Embedded):
        return image_mask_pairs.read_embedded(picture.image.read())
    return image_mask_pairs.read_image(picture.image, picture.page, window)


def _labels(picture, rule, size, small_on_top) -> masks.Mask:
    """Return the labels for an image of (height, width), in the annotation's size if it has one."""
    if picture.shapes is None:
        mask = _united(picture, rule)
        is_unlabelled = mask.ids == VOID
        if rule.background is not None:
            is_unlabelled |= mask.ids == rule.background
        coverage = masks.Coverage(mask.ids.size, int(np.count_nonzero(is_unlabelled)))
        return dataclasses.replace(mask, coverage=coverage)
    if size is None:
        raise ValueError("its labels were not painted, because its image cannot be read")
    if picture.size not in (None, size, size[::-1]):
        sizes = f"image {size[0]}x{size[1]}, annotation {picture.size[0]}x{picture.size[1]}"
        raise faults.WrongKindError(image_mask_pairs.SIZES, sizes)
    size = picture.size or size
    unlabelled = 0 if rule.unlabelled == "background" else VOID
    try:
        painted = shapes.paint(picture.shapes, size, unlabelled, small_on_top)
    except ValueError as error:  # an annotation file may hold many pictures
        raise ValueError(f"{picture.id}: {error}") from error
    coverage = masks.Coverage(size[0] * size[1], painted.num_unlabelled, painted.num_contested)
    return masks.Mask(painted.labels, coverage=coverage)


def _united(picture: forms.Picture, rule: masks.MaskRule) -> masks.Mask:
    """Return the union of the masks of a picture: the class of the last mask that is not 0."""
    first, *others = (masks.read(file, rule, picture.page) for file in picture.masks)
    if not others:
        return first
    ids, values = first.ids.copy(), first.values
    for mask in others:
        if mask.ids.shape != ids.shape:
            raise ValueError(f"its masks have the sizes {ids.shape} and {mask.ids.shape}")
        ids[mask.ids > 0] = mask.ids[mask.ids > 0]
        values |= mask.values
    return dataclasses.replace(first, ids=ids, values=values)
