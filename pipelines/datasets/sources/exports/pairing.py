"""Pair image files and mask files by the usual names of folders and files.

A folder such as `masks` or `trainannot` holds masks. Without one, files such as a_mask.png beside
a.jpg are masks. The rest of the path, without the folders' names and one suffix, makes the pair.
"""

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Callable, Iterable

from pipelines.datasets import files, image_mask_pairs, masks
from pipelines.datasets.sources.exports import drafts, pictures
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import DatasetError

_IMAGE_FOLDERS = re.compile(
    r"imgs?|images?|img_dir|jpegimages|leftimg8bit|photos?|pictures?|rgb|inputs?|raw|\d+_stillsraw\w*"
)
_MASK_FOLDERS = re.compile(
    r"masks?|ann|anns|ann_dir|annotations?|labels?|label_dir|gts?|gtfine|gtcoarse|groundtruths?"
    r"|ground_truth|segmentationclass(png|aug)?|segs?|segmentations?|targets?|labeledapproved\w*"
)
_MASK_FOLDER_ENDS = re.compile(r"(.+?)_?(annot|masks?|labels?|gt|annotations?|seg)")
_IMAGE_FOLDER_ENDS = re.compile(r"(.+?)_?(images?|imgs?)")
_PREVIEWS = re.compile(r".*visuali[sz]ations?|.*_viz|segmentationobject|overlays?|previews?")
_PREVIEW_FILES = re.compile(
    r".*_(gtfine|gtcoarse)_(color|instanceids|polygons)|.*_parts_\d+|.*_overlay|.*_preview"
)
_MASK_SUFFIXES = (
    "_mask",
    "-mask",
    " mask",
    "_masks",
    "_label",
    "_labels",
    "_gt",
    "_seg",
    "_segmentation",
    "_annotation",
    "_l",
    "_labelids",
    "_gtfine_labeltrainids",
    "_gtfine_labelids",
    "_label_ground-truth",
    "_groundtruth",
    ".ome",
)
_IMAGE_SUFFIXES = ("", "_img", "_image", "_sat", "_leftimg8bit", ".ome")
_MASK_PREFIXES = ("mask_", "gt_", "label_", "mask-")
_NEARLY_ALL = 0.9  # of the masks; a rule that pairs so many is the right one
_LIST_FOLDERS = ("", "imagesets/segmentation", "imagesets", "splits", "lists")


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image, its mask or None, and the name of its split or None."""

    image: pathlib.Path
    mask: pathlib.Path | None
    split: str | None


@dataclasses.dataclass(frozen=True)
class Pairing:
    """Pairs of a tree.

    Attributes:
        pairs: the pairs, images without a mask included.
        message: a sentence on the naming rule that made the pairs, or "".
        problem: a sentence if there are images and masks of which no names agree, or "".
    """

    pairs: tuple[Pair, ...]
    message: str = ""
    problem: str = ""

    @property
    def masks(self) -> tuple[pathlib.Path, ...]:
        """The masks of all pairs."""
        return tuple(pair.mask for pair in self.pairs if pair.mask is not None)


@dataclasses.dataclass(frozen=True)
class _File:
    path: pathlib.Path
    folders: tuple[str, ...]  # without the names of folders of images or masks
    stem: str


def pair(tree: Tree, skipped: forms.Skipped, only: Iterable[pathlib.Path] | None = None) -> Pairing:
    """Pair all images of a tree with its masks.

    Args:
        tree: the files.
        skipped: gets masks without an image.
        only: the masks to use; None means all.

    Returns:
        The pairs, images without a mask included. No pairs if nothing looks like masks.
    """
    images, mask_files = _sorted_out(tree)
    if only is not None:
        wanted = set(only)
        mask_files = [mask for mask in mask_files if mask.path in wanted]
    rule, matched = _best_rule(images, mask_files)
    if not matched:
        return Pairing((), problem=_problem(tree, images, mask_files))
    used = {mask.path for mask in matched.values()}
    for mask in mask_files:
        if mask.path not in used:
            skipped.add("mask without an image", tree.relative(mask.path))
    lists = _splits_of_lists(tree, images)
    pairs = []
    for image in images:
        mask = matched.get(image.path)
        split = lists.get(image.path) or drafts.folder_split(image.path, tree)
        pairs.append(Pair(image.path, mask.path if mask else None, split))
    pairs.sort(key=lambda found: tree.relative(found.image))
    return Pairing(tuple(pairs), rule)


def _problem(tree: Tree, images: list[_File], mask_files: list[_File]) -> str:
    if not images or not mask_files:
        return ""
    first, other = (tree.relative(listed[0].path) for listed in (mask_files, images))
    return (
        f"{len(mask_files)} masks have no image of their name, for example {first}, and "
        f"{len(images)} images have no mask, for example {other}"
    )


def _sorted_out(tree: Tree) -> tuple[list[_File], list[_File]]:
    """Return the images and the masks."""
    images, mask_files, others = [], [], []
    for file in tree.files:
        parts = pathlib.PurePosixPath(tree.relative(file).lower()).parts[:-1]
        stem = files.normal(file.stem).lower()
        if any(map(_PREVIEWS.fullmatch, parts)) or _PREVIEW_FILES.fullmatch(stem):
            continue
        is_mask = any(_mask_folder(part) is not None for part in parts)
        if is_mask and file.suffix.lower() in (*masks.ENDINGS, ".jpg", ".jpeg"):
            kept = [p if (k := _mask_folder(p)) is None else k for p in parts]
            mask_files.append(_File(file, tuple(filter(None, kept)), stem))
        elif not is_mask and pictures.is_picture(file):
            kept = tuple(filter(None, map(_without_image_folder, parts)))
            others.append(_File(file, kept, stem))
    if not mask_files:
        images, mask_files = _flat(others)
    return images or others, mask_files


def _mask_folder(part: str) -> str | None:
    """Return the part of a folder's name that stays: "" for masks, "train" for trainannot."""
    if _MASK_FOLDERS.fullmatch(part):
        return ""
    match = _MASK_FOLDER_ENDS.fullmatch(part)
    return match[1] if match else None


def _without_image_folder(part: str) -> str:
    if _IMAGE_FOLDERS.fullmatch(part):
        return ""
    match = _IMAGE_FOLDER_ENDS.fullmatch(part)
    return match[1] if match else part


def _flat(found: list[_File]) -> tuple[list[_File], list[_File]]:
    """Divide pictures of mixed folders: by suffix, or a.jpg and a.png are image and mask."""
    stems = {file.stem.removesuffix(end) for file in found for end in _IMAGE_SUFFIXES}
    rules = [rule for _, rule in _rules() if rule("a") is None]
    for rule in rules:
        mask_files = [f for f in found if rule(f.stem) is not None]
        images = {rule(f.stem) for f in mask_files}
        if mask_files and len(images & stems) * 2 > len(mask_files):
            chosen = {f.path for f in mask_files}
            return [f for f in found if f.path not in chosen], mask_files
    photos = [f for f in found if f.path.suffix.lower() in (".jpg", ".jpeg")]
    names = {(f.folders, f.stem) for f in photos}
    mask_files = [f for f in found if f not in photos and (f.folders, f.stem) in names]
    return (photos, mask_files) if len(mask_files) * 2 > len(photos) else (found, [])


def _rules() -> list[tuple[str, Callable[[str], str | None]]]:
    """Return (suffix or prefix, function mask stem -> image stem or None), in order."""

    def suffix(end):
        return lambda stem: stem.removesuffix(end) if stem.endswith(end) and stem != end else None

    def prefix(start):
        return lambda s: s.removeprefix(start) if s.startswith(start) and s != start else None

    rules = [("", lambda stem: stem)]
    rules += [(end, suffix(end)) for end in _MASK_SUFFIXES]
    return rules + [(start, prefix(start)) for start in _MASK_PREFIXES]


def _best_rule(images: list[_File], mask_files: list[_File]):
    """Return (sentence, image path -> mask) of the first rule that pairs the most masks."""
    best: tuple[str, dict] = ("", {})
    for by_folder, (name, rule), end in itertools.product((True, False), _rules(), _IMAGE_SUFFIXES):
        matched = _matched(images, mask_files, rule, end, by_folder)
        if len(matched) > len(best[1]):
            described = [f"{name!r} of masks"] if name else []
            described += [f"{end!r} of images"] if end else []
            text = f"Names were paired without {' and '.join(described)}." if described else ""
            best = (text, matched)
        if len(best[1]) >= _NEARLY_ALL * len(mask_files):
            break
    return best


def _matched(images, mask_files, rule, end: str, by_folder: bool) -> dict[pathlib.Path, _File]:
    def key(file, stem):
        return (file.folders if by_folder else (), stem)

    named: dict[tuple, list[_File]] = {}
    for image in images:
        if image.stem.endswith(end):
            named.setdefault(key(image, image.stem.removesuffix(end)), []).append(image)
    found: dict[pathlib.Path, _File] = {}
    for mask in mask_files:
        stem = rule(mask.stem)
        fitting = named.get(key(mask, stem), []) if stem is not None else []
        if len(fitting) == 1 and fitting[0].path not in found:
            found[fitting[0].path] = mask
    return found


def _splits_of_lists(tree: Tree, images: Iterable[_File]) -> dict[pathlib.Path, str]:
    """Return image path -> split of lists such as ImageSets/Segmentation/train.txt."""
    by_stem: dict[str, list[pathlib.Path]] = {}
    for image in images:
        for end in _IMAGE_SUFFIXES:
            if image.stem.endswith(end):
                by_stem.setdefault(image.stem.removesuffix(end), []).append(image.path)
    found: dict[pathlib.Path, str] = {}
    for file in tree.files:
        folder = tree.relative(file.parent).lower().removeprefix(".")
        if file.suffix.lower() != ".txt" or folder not in _LIST_FOLDERS or file.stem == "default":
            continue
        if folder == "" and drafts.named_split(file.stem) is None:
            continue
        try:
            lines = files.read_lines(file)
        except DatasetError:
            continue
        for line in lines:
            stem = files.normal(image_mask_pairs.listed_name(line.lower(), by_stem.keys()))
            fitting = by_stem.get(stem, [])
            if len(set(fitting)) == 1:
                found.setdefault(fitting[0], file.stem)
    return found


def ids(tree: Tree, found: Iterable[Pair]) -> list[str]:
    """Return a unique name for each pair: the image's stem, or its path."""
    return pictures.unique_ids([tree.relative(pair.image) for pair in found])
