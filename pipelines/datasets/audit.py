"""Audit a data set: report its content and all its faults at once, before training.

`examine` reads each image and mask with the same checks as `datasets.load`, but continues after a
fault. It also reports problems that `load` accepts: classes without pixels, images that are in both
splits, masks that are void.
"""

import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipelines.datasets import faults, inspection, masks, records, shrinking
from pipelines.datasets.spec import VOID, DatasetSpec, printable

_SMALLEST_SIDE = 32  # the backbones' last feature map is 32 times smaller than the image

_ABSENT_IN_TRAINING = faults.Kind(
    "class without any pixel in split '{split}'",
    "A class that is not trained on is never predicted: choose another train_split, add images, or "
    "continue and ignore the class.",
)
ABSENT_IN_EVALUATION = faults.Kind(
    "class without any pixel in split '{split}'",
    "The mean IoU leaves it out, unless it is predicted somewhere: then its IoU is 0 and counts. "
    "Choose another eval_split, or continue if this is intended.",
)
_RARE_SHARE = 0.005  # of the labelled pixels
_RARE = faults.Kind(
    f"class with less than {_RARE_SHARE:.1%} of the labelled pixels of split '{{split}}'",
    "Short training hardly learns it. Show it more often with rare_share (crops that hold a class "
    "drawn uniformly), or weigh the classes in the loss.",
)
_LEAST_KEPT = 0.7  # IoU; ours
_THIN = faults.Kind(
    "class that loses its shape when images are shrunk to a shorter side of {side} pixels",
    "Its structures are too thin or too small at this size. Train on crops of the full resolution "
    "(shorter_side=none, as in preset detail), or use a larger shorter_side.",
)
_IN_BOTH_SPLITS = faults.Kind(
    "image that is in both splits, pixel by pixel",
    "Measurements on training images are worthless: remove each image from one of the splits (its "
    "list, or its folder).",
)
_SAME_SPLIT = faults.Kind(
    "split that is both trained on and measured on",
    "Measurements on training images are worthless: choose another eval_split.",
)
_TWICE = faults.Kind(
    "image that is in its split more than once, pixel by pixel",
    "Each copy counts: remove all but one.",
)
_TWICE_WITH_OTHER_MASK = faults.Kind(
    "image that is in its split more than once, and with different masks",
    "At most one of the masks is right: remove the others with their images.",
)
_ALL_VOID = faults.Kind(
    "mask that is void everywhere",
    "Training skips such images: label them, or remove image and mask.",
)
_NO_LABELS = faults.Kind(
    "split with masks, but without any labelled pixel",
    "Training and measuring need labels: check the masks.",
)
_MOSTLY_VOID = faults.Kind(
    "split of which more than half of the pixels are void",
    "Void pixels are neither trained on nor measured. If they should be, give them a class.",
)
_VOID_CLASS = faults.Kind(
    "class whose name means void, but which counts as a class",
    "Remove its line from classes.txt, and give its value as the argument void_value.",
)
_PALETTE = faults.Kind(
    "palette mask whose colors belong to other classes in the color table",
    "Masks are read by index, not by color. If the colors are right, save the masks as RGB "
    "(Pillow: convert('RGB')), which the color table decodes.",
)
_SMALL = faults.Kind(
    f"image with a side of less than {_SMALLEST_SIDE} pixels",
    "The networks shrink images 32 times: remove it, or use larger images.",
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A fault or a warning to consider before training.

    Attributes:
        is_error: whether `datasets.load` refuses the data set, or its figures would be worthless.
        kind: the problem and its fix.
        names: the files, classes or splits with the problem.
    """

    is_error: bool
    kind: faults.Kind
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image to show, uint8 [height, width, 3], and its class ids, uint8 [height, width]."""

    id: str
    pixels: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class SplitFacts:
    """The content of a split, counted over its images without faults.

    Attributes:
        name: the split's name.
        num_images: the number of its images, including images with faults.
        num_sound: the number of its images that were counted.
        has_masks: whether it has masks; a test split may have none.
        class_pixels: int64 [num_classes].
        class_images: int64 [num_classes], images with at least one pixel of the class.
        void_pixels: the number of pixels without a class.
        smallest: (height, width) of the image with the fewest pixels.
        largest: (height, width) of the image with the most pixels.
        pictures: some images, evenly spread over the split.
    """

    name: str
    num_images: int
    num_sound: int
    has_masks: bool
    class_pixels: np.ndarray
    class_images: np.ndarray
    void_pixels: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    pictures: tuple[Picture, ...]

    @property
    def void_share(self) -> float:
        """The share of void pixels, 0 to 1; 0 if there are no pixels."""
        return self.void_pixels / max(1, int(self.class_pixels.sum()) + self.void_pixels)


class Shrunk(NamedTuple):
    """What is left of the classes when training shrinks images, over the images that shrink.

    Attributes:
        shorter_side: the side in pixels to which images shrink.
        iou: float64 [num_classes], IoU of the masks with themselves, shrunk and enlarged again; see
            `shrinking.overlap`. NaN for a class without pixels.
    """

    shorter_side: int
    iou: np.ndarray


@dataclasses.dataclass(frozen=True)
class Audit:
    """What is known of a data set.

    Attributes:
        spec: its name and classes.
        splits: its splits.
        findings: faults and warnings, errors first.
        messages: of its plan.
        shrunk: what is left of the classes in shrunk masks; None if no image is shrunk.
    """

    spec: DatasetSpec
    splits: tuple[SplitFacts, ...]
    findings: tuple[Finding, ...]
    messages: tuple[str, ...]
    shrunk: Shrunk | None = None

    @property
    def num_errors(self) -> int:
        """The number of findings that are errors."""
        return sum(finding.is_error for finding in self.findings)


class _Facts(NamedTuple):
    """The facts kept of an image and its mask; `checked` has no arrays."""

    checked: inspection.CheckedImage
    is_sound: bool
    size: tuple[int, int] | None
    counts: np.ndarray | None  # int64 [256], pixels of each class id
    overlap: np.ndarray | None  # int64 [2, 256], see `shrinking.overlap`; None if nothing shrinks
    image_hash: bytes
    mask_hash: bytes

    @property
    def is_all_void(self) -> bool:
        return self.is_sound and self.counts[VOID] == self.counts.sum()


def examine(
    plan: records.Plan,
    *,
    max_unreadable: int = 0,
    num_pictures: int = 4,
    num_workers: int | None = None,
    shorter_side: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Audit:
    """Read all images and masks of a plan in threads and report all their faults.

    Args:
        plan: the plan from `datasets.plan`.
        max_unreadable: int, the largest number of damaged files that is no error.
        num_pictures: int, images to keep of each split.
        num_workers: int, number of threads. None means one per core.
        shorter_side: int, the side to which training will shrink larger images. None if it does
            not.
        progress: function that is called after each image.

    Example:
        >>> from pipelines import datasets
        >>> examine(datasets.plan("texture_scenes")).num_errors  # doctest: +SKIP
        0
    """
    num_workers = num_workers or os.cpu_count() or 1
    facts = _read_all(plan, num_workers, shorter_side, progress)
    inspected = _inspected(plan, facts)
    while (revised := plan.revised(inspected, _classes(facts))) is not None:
        plan = revised
        facts = _read_all(plan, num_workers, shorter_side, lambda: None)
        inspected = _inspected(plan, facts)
    shrunk = _shrunk(plan, facts, shorter_side)
    splits = tuple(_split_facts(plan, name, part, num_pictures) for name, part in facts.items())
    found = [
        *_refused(plan, facts, inspected, max_unreadable),
        *(Finding(False, kind, names) for kind, names in inspected.warnings()),
        *_image_findings(facts),
        *_class_findings(plan, facts),
        *_duplicates(plan, facts),
    ]
    # If the meaning of the masks is uncertain, counts of their classes are not reliable.
    if not any(_is_wrong(image.checked) for image in _all_images(facts)) and not any(
        finding.kind in (masks.BINARY, masks.PALETTES) for finding in found
    ):
        found += _frequency_findings(plan, splits)
        found += _thin(plan, shrunk)
    found.sort(key=lambda finding: not finding.is_error)
    messages = (*plan.messages, *plan.notes, *inspected.messages())
    return Audit(plan.spec, splits, tuple(found), tuple(map(printable, messages)), shrunk)


def _read_all(plan, num_workers, shorter_side, progress) -> dict[str, list[_Facts]]:
    facts = {}
    executor = concurrent.futures.ThreadPoolExecutor(num_workers)
    try:
        for split, items in plan.splits.items():
            facts[split] = []
            for image in executor.map(lambda item: _facts(plan.read(item), shorter_side), items):
                facts[split].append(image)
                progress()
    finally:
        executor.shutdown(cancel_futures=True)
    return facts


def _facts(checked: inspection.CheckedImage, shorter_side: int | None) -> _Facts:
    counts, overlap, mask_hash = None, None, b""
    if checked.sample is not None:
        label = checked.sample.label
        counts, mask_hash = masks.value_counts(label), _hash(label)
        if shorter_side is not None and shorter_side < min(label.shape):
            overlap = shrinking.overlap(label, shorter_side)
    light = dataclasses.replace(
        checked,
        sample=None,
        pixels=None,
        mask=checked.mask and dataclasses.replace(checked.mask, ids=np.empty([0, 0], np.uint8)),
    )
    size, image_hash = None, b""
    if checked.pixels is not None:
        size, image_hash = checked.pixels.shape[:2], _hash(checked.pixels)
    return _Facts(light, checked.sample is not None, size, counts, overlap, image_hash, mask_hash)


def _hash(array: np.ndarray) -> bytes:
    digest = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array))
    return digest.digest()


def _split_facts(plan, name: str, facts: Sequence[_Facts], num_pictures: int) -> SplitFacts:
    sound = [k for k, image in enumerate(facts) if image.is_sound]
    counts = np.array([facts[k].counts for k in sound], np.int64).reshape(-1, 256)
    num_classes = plan.spec.num_classes
    sizes = sorted((image.size for image in facts if image.size), key=np.prod) or [(0, 0)]
    shown = [sound[k * len(sound) // num_pictures] for k in range(num_pictures) if sound]
    return SplitFacts(
        name=name,
        num_images=len(facts),
        num_sound=len(sound),
        has_masks=any(image.checked.mask_file for image in facts),
        class_pixels=counts[:, :num_classes].sum(0),
        class_images=(counts[:, :num_classes] > 0).sum(0),
        void_pixels=int(counts[:, VOID].sum()),
        smallest=sizes[0],
        largest=sizes[-1],
        pictures=tuple(_picture(plan, plan.splits[name][k]) for k in dict.fromkeys(shown)),
    )


def _shrunk(plan, facts, shorter_side) -> Shrunk | None:
    overlaps = [image.overlap for image in _all_images(facts) if image.overlap is not None]
    if not overlaps:
        return None
    common, union = np.sum(overlaps, axis=0)[:, : plan.spec.num_classes]
    return Shrunk(shorter_side, np.where(union > 0, common / np.maximum(union, 1), np.nan))


def _picture(plan, item) -> Picture:
    checked = plan.read(item)
    return Picture(checked.id, checked.pixels, checked.sample.label)


def _inspected(plan, facts) -> inspection.Inspection:
    result = inspection.Inspection(plan.rule)
    for image in _all_images(facts):
        result.add(image.checked)
    return result


def _classes(facts) -> dict[str, frozenset[int]]:
    sound = (image for image in _all_images(facts) if image.is_sound)
    return {image.checked.id: records.present(image.counts) for image in sound}


def _refused(plan, facts, inspected, max_unreadable) -> Iterator[Finding]:
    """Yield the faults for which `datasets.load` raises an error."""
    for found in (plan.found, inspected.found()):
        for kind, names in found:
            yield Finding(True, kind, names)
    unreadable = inspected.unreadable
    if unreadable:
        kind = faults.Kind(
            "file that is damaged or cannot be read",
            "Restore or remove it (image and mask), or leave such files out with "
            f"max_unreadable={len(unreadable)}.",
        )
        yield Finding(len(unreadable) > max_unreadable, kind, tuple(unreadable))
    for split, images in facts.items():
        if _is_void(images):
            yield Finding(split == plan.train_split, _NO_LABELS, (f"'{split}'",))


def _is_void(images: Iterable[_Facts]) -> bool:
    """Return whether a split has sound masks and all of them are void everywhere."""
    sound = [image for image in images if image.is_sound and image.checked.mask_file]
    return bool(sound) and all(image.is_all_void for image in sound)


def _all_images(facts: dict[str, list[_Facts]]) -> Iterator[_Facts]:
    return (image for part in facts.values() for image in part)


def _image_findings(facts) -> Iterator[Finding]:
    """Yield findings on single images and masks."""
    small = [i for i in _all_images(facts) if i.size and min(i.size) < _SMALLEST_SIDE]
    yield from _warning(_SMALL, [image.checked.image_file for image in small])
    partly = [images for images in facts.values() if not _is_void(images)]
    void = [i.checked.mask_file for images in partly for i in images if i.is_all_void]
    yield from _warning(_ALL_VOID, [file for file in void if file])


def _class_findings(plan, facts) -> Iterator[Finding]:
    """Yield findings on the names and colors of classes."""
    names = plan.spec.class_names
    void = [f"'{name}'" for name in names if name.lower() in masks.VOID_NAMES]
    yield from _warning(_VOID_CLASS, void)
    odd = [i.checked.mask_file for i in _all_images(facts) if _is_palette_odd(plan.rule, i.checked)]
    yield from _warning(_PALETTE, odd)


def _is_wrong(checked: inspection.CheckedImage) -> bool:
    return checked.mask is not None and bool(checked.mask.wrong or checked.mask.unknown)


def _frequency_findings(plan, splits) -> Iterator[Finding]:
    """Yield findings on the numbers of pixels."""
    for split in splits:
        if split.has_masks and split.class_pixels.any():
            yield from _absent(plan, split, splits)
            if split.name == plan.train_split:
                yield from _rare(plan, split)
            if split.void_share > 0.5:
                share = f"'{split.name}' ({split.void_share:.0%} void)"
                yield from _warning(_MOSTLY_VOID, [share])


def _absent(plan, split: SplitFacts, splits) -> Iterator[Finding]:
    names = [plan.spec.class_names[k] for k in np.flatnonzero(split.class_images == 0)]
    template = ABSENT_IN_EVALUATION
    if split.name == plan.train_split:
        template = _ABSENT_IN_TRAINING
    kind = faults.Kind(template.problem.format(split=split.name), template.fix)
    first_is_absent = not any(other.class_images[0] for other in splits)
    if first_is_absent and plan.rule.takes_void_value and plan.rule.table[0] == 0:
        advice = " No mask holds 0: if 0 means void and ids start at 1, use void_value=0."
        kind = dataclasses.replace(kind, fix=kind.fix + advice)
    yield from _warning(kind, names)


def _rare(plan, split: SplitFacts) -> Iterator[Finding]:
    shares = split.class_pixels / split.class_pixels.sum()
    names = [
        f"{plan.spec.class_names[k]} ({shares[k]:.2%})"
        for k in np.flatnonzero((shares > 0) & (shares < _RARE_SHARE))
    ]
    kind = dataclasses.replace(_RARE, problem=_RARE.problem.format(split=split.name))
    yield from _warning(kind, names)


def _thin(plan, shrunk: Shrunk | None) -> Iterator[Finding]:
    if shrunk is not None:
        names = [
            f"{plan.spec.class_names[k]} (its masks shrunk and enlarged: IoU {shrunk.iou[k]:.0%})"
            for k in np.flatnonzero(shrunk.iou < _LEAST_KEPT)
        ]
        problem = _THIN.problem.format(side=shrunk.shorter_side)
        yield from _warning(dataclasses.replace(_THIN, problem=problem), names)


def _is_palette_odd(rule: masks.MaskRule, checked: inspection.CheckedImage) -> bool:
    """Return whether two or more values have colors of other classes; one may be chance."""
    palette = checked.mask.palette if checked.mask else {}
    labels = dict(rule.colors)
    odd = [
        value
        for value, color in palette.items()
        if rule.allows(value)
        and rule.table[value] != VOID
        and labels.get(color, rule.table[value]) != rule.table[value]
    ]
    return len(odd) > 1


def _duplicates(plan, facts) -> Iterator[Finding]:
    """Yield findings on images with equal pixels, also in files of different formats."""
    if plan.train_split == plan.eval_split:
        yield from _warning(_SAME_SPLIT, [f"'{plan.train_split}'"])
    seen = {split: _by_hash(part) for split, part in facts.items()}
    twice, twice_with_other_mask = [], []
    for images in (same for groups in seen.values() for same in groups.values() if len(same) > 1):
        masks_differ = len({image.mask_hash for image in images if image.is_sound}) > 1
        files = " = ".join(image.checked.image_file for image in images)
        (twice_with_other_mask if masks_differ else twice).append(files)
    yield from _warning(_TWICE, twice)
    yield from _warning(_TWICE_WITH_OTHER_MASK, twice_with_other_mask)
    if plan.train_split != plan.eval_split:
        train, eval_ = seen[plan.train_split], seen[plan.eval_split]
        shared = [
            f"{train[key][0].checked.image_file} = {eval_[key][0].checked.image_file}"
            for key in train
            if key in eval_
        ]
        if shared:
            yield Finding(True, _IN_BOTH_SPLITS, tuple(map(printable, shared)))


def _by_hash(facts: Iterable[_Facts]) -> dict[bytes, list[_Facts]]:
    groups: dict[bytes, list[_Facts]] = {}
    for image in facts:
        if image.image_hash:
            groups.setdefault(image.image_hash, []).append(image)
    return groups


def _warning(kind: faults.Kind, names: Sequence[str]) -> Iterator[Finding]:
    if names:
        yield Finding(False, kind, tuple(map(printable, names)))
