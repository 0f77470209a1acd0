"""Cityscapes from an existing tree of leftImg8bit and gtFine, without downloads."""

import pathlib

from pipelines.datasets import faults, files, image_mask_pairs, masks, records
from pipelines.datasets.spec import VOID, DatasetError, DatasetSpec, Request

# Cordts et al., CVPR 2016: the 19 classes of the benchmark, by train id, with their colors and
# ids in *_labelIds.png (cityscapesScripts, helpers/labels.py).
_CLASSES = (
    ("road", (128, 64, 128), 7),
    ("sidewalk", (244, 35, 232), 8),
    ("building", (70, 70, 70), 11),
    ("wall", (102, 102, 156), 12),
    ("fence", (190, 153, 153), 13),
    ("pole", (153, 153, 153), 17),
    ("traffic light", (250, 170, 30), 19),
    ("traffic sign", (220, 220, 0), 20),
    ("vegetation", (107, 142, 35), 21),
    ("terrain", (152, 251, 152), 22),
    ("sky", (70, 130, 180), 23),
    ("person", (220, 20, 60), 24),
    ("rider", (255, 0, 0), 25),
    ("car", (0, 0, 142), 26),
    ("truck", (0, 0, 70), 27),
    ("bus", (0, 60, 100), 28),
    ("train", (0, 80, 100), 31),
    ("motorcycle", (0, 0, 230), 32),
    ("bicycle", (119, 11, 32), 33),
)
_NUM_LABEL_IDS = 34  # 0 to 33; ids without a class above are void
SPEC = DatasetSpec(
    name="cityscapes",
    class_names=tuple(name for name, _, _ in _CLASSES),
    colors=tuple(color for _, color, _ in _CLASSES),
    background_label=None,
    source=(
        "Cityscapes (Cordts et al., CVPR 2016), fine annotations; its own terms: "
        "non-commercial use, after registration at www.cityscapes-dataset.com."
    ),
    label_ids=tuple(label_id for _, _, label_id in _CLASSES),
)

# The list of the M&M release has one image fewer than the official train split.
_PAPER_SPLIT = "train_paper"
_NOT_IN_PAPER = "strasbourg_000001_052297"
_NUM_IMAGES = {"train": 2975, _PAPER_SPLIT: 2974, "val": 500, "test": 1525}
_IMAGE_ENDING = "_leftImg8bit.png"
_MASK_ENDINGS = ("_gtFine_labelTrainIds.png", "_gtFine_labelIds.png")
_LAYOUT = (
    "Expected: leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png"
    " or *_gtFine_labelTrainIds.png, as in leftImg8bit_trainvaltest.zip and "
    "gtFine_trainvaltest.zip of www.cityscapes-dataset.com, unpacked into one folder."
)


class Cityscapes(records.RecordsBuilder, skip_registration=True):
    """Cityscapes' street scenes with their fine annotations."""


def plan(request: Request) -> records.Plan:
    """Find Cityscapes in `data_dir` or its folder "cityscapes"; see `datasets.load`.

    The splits are train, train_paper (the 2,974 images of the M&M release's list), val, and test
    (without labels).
    """
    root = _find(image_mask_pairs.data_folder(request.data_dir, "cityscapes", _LAYOUT))
    wanted = request.splits("train", "val")
    for split in wanted:
        if split not in _NUM_IMAGES:
            raise records.unknown_split(split, tuple(_NUM_IMAGES), "in Cityscapes")
    names = tuple(dict.fromkeys(wanted))
    images = {split: _images(root, split) for split in names}
    ending = _mask_ending(root, images)
    found = faults.Faults()
    splits = {split: _pairs(root, split, images[split], ending, found) for split in names}
    return image_mask_pairs.plan(
        SPEC, Cityscapes, _rule(ending), splits, *wanted, found, _messages(splits, ending)
    )


def _find(given: pathlib.Path) -> pathlib.Path:
    for root in (given, given / "cityscapes"):
        if (root / "leftImg8bit").is_dir():
            return root
    raise DatasetError(f"No Cityscapes in {given}: there is no folder leftImg8bit. {_LAYOUT}")


def _images(root: pathlib.Path, split: str) -> dict[str, pathlib.Path]:
    """Return the images of a split by name, CITY_SEQUENCE_FRAME, sorted by name."""
    folder = root / "leftImg8bit" / split.removesuffix("_paper")
    found = sorted(folder.glob(f"*/*{_IMAGE_ENDING}"), key=lambda file: file.name)
    images = {
        file.name.removesuffix(_IMAGE_ENDING): file
        for file in found
        if not files.is_system(file.name) and not files.is_system(file.parent.name)
    }
    if split == _PAPER_SPLIT:
        images.pop(_NOT_IN_PAPER, None)
    return images


def _mask_file(root: pathlib.Path, image: pathlib.Path, ending: str) -> pathlib.Path:
    name = image.name.removesuffix(_IMAGE_ENDING)
    return root / "gtFine" / image.parent.parent.name / image.parent.name / f"{name}{ending}"


def _mask_ending(root: pathlib.Path, images: dict[str, dict]) -> str:
    """Choose one kind of mask for all images: train ids, unless more images have label ids."""
    labelled = [
        file
        for split, files in images.items()
        if split != image_mask_pairs.UNLABELLED_SPLIT
        for file in files.values()
    ]
    counts = {
        ending: sum(_mask_file(root, image, ending).is_file() for image in labelled)
        for ending in _MASK_ENDINGS
    }
    return max(_MASK_ENDINGS, key=counts.get)


def _pairs(root, split, images, ending, found) -> tuple[image_mask_pairs.Pair, ...]:
    """Return the pairs of a split; the void masks of the test split are not read."""
    if split == image_mask_pairs.UNLABELLED_SPLIT:
        return tuple(image_mask_pairs.Pair(name, image, None) for name, image in images.items())
    mask_files = {name: _mask_file(root, image, ending) for name, image in images.items()}
    mask_files = {name: file for name, file in mask_files.items() if file.is_file()}
    return image_mask_pairs.pair_listed(images, images, mask_files, found, split)


def _rule(ending: str) -> masks.MaskRule:
    if ending == _MASK_ENDINGS[0]:
        return masks.consecutive(SPEC.class_names)
    table = [VOID] * _NUM_LABEL_IDS + [masks.NOT_ALLOWED] * (256 - _NUM_LABEL_IDS)
    table[VOID] = VOID
    for label, label_id in enumerate(SPEC.label_ids):
        table[label_id] = label
    return masks.MaskRule(SPEC.class_names, tuple(table))


def _messages(splits: dict, ending: str) -> tuple[str, ...]:
    lines = [
        image_mask_pairs.size_message(split, len(splits[split]), _NUM_IMAGES[split])
        for split in splits
    ]
    if ending == _MASK_ENDINGS[1]:
        lines.append("Masks *_labelIds.png are converted with the official table of train ids.")
    return tuple(line for line in lines if line)
