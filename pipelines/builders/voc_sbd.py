"""PASCAL VOC2012 with SBD's masks, from an existing VOC development kit; nothing is downloaded."""

import os
import pathlib

from pipelines import datasets
from pipelines.builders import paired, records

DatasetError = datasets.DatasetError

# The order of the development kit: class 0 is background, the others follow the alphabet.
_CLASS_NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
SPEC = datasets.DatasetSpec(
    name="voc_sbd",
    class_names=_CLASS_NAMES,
    colours=datasets.voc_colours(len(_CLASS_NAMES)),
    background_label=0,
    source=(
        "PASCAL VOC2012 (Everingham et al.) with the masks of SBD (Hariharan et al., ICCV 2011); "
        "photographs under Flickr's terms of use, for research."
    ),
)
# Where VOC2012 may lie below --data_dir: it is the folder itself, in the kit, or the kit's parent.
_PLACES = ("", "VOC2012", "VOCdevkit/VOC2012")


class VocSbd(paired.PairedBuilder, skip_registration=True):
    """VOC2012's photographs with VOC's and SBD's masks."""


def plan(
    data_dir: str | os.PathLike | None, train_split: str | None, eval_split: str | None
) -> records.Plan:
    """Finds VOC2012; the usual splits are trainaug (train and SBD) and val; see `datasets.load`."""
    root = _find(data_dir)
    train, eval_ = train_split or "trainaug", eval_split or "val"
    images, masks = _files(root)
    splits = {split: _pairs(root, split, images, masks) for split in dict.fromkeys((train, eval_))}
    return records.Plan(
        spec=SPEC,
        builder=VocSbd,
        splits=splits,
        train_split=train,
        eval_split=eval_,
        fingerprint=paired.fingerprint(splits),
    )


def _find(data_dir: str | os.PathLike | None) -> pathlib.Path:
    given = paired.data_folder(data_dir, "voc_sbd", "Give the VOCdevkit folder or its parent.")
    for place in _PLACES:
        if (given / place / "JPEGImages").is_dir():
            return given / place
    raise DatasetError(
        f"No VOC2012 in {given}: there is no JPEGImages in it, in VOC2012 or in VOCdevkit/VOC2012. "
        "Give the folder that holds VOCdevkit."
    )


def _files(root: pathlib.Path) -> tuple[dict, dict]:
    """Returns image and mask files by name; an augmented mask goes before VOC's own."""
    faults = paired.Faults()
    images = paired.files_by_stem(root / "JPEGImages", paired.IMAGE_ENDINGS, faults)
    masks: dict[str, pathlib.Path] = {}
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        if (root / folder).is_dir():
            masks |= paired.files_by_stem(root / folder, paired.MASK_ENDINGS, faults)
    faults.check(f"Data set 'voc_sbd', {root}")
    return images, masks


def _pairs(root: pathlib.Path, split: str, images: dict, masks: dict) -> tuple[paired.Pair, ...]:
    lists = root / "ImageSets" / "Segmentation"
    file = lists / f"{split}.txt"
    if not file.exists():
        known = tuple(sorted(path.stem for path in lists.glob("*.txt")))
        raise records.unknown_split(split, known, f"in {lists}")
    faults = paired.Faults()
    pairs = paired.pair_listed(paired.read_list(file), images, masks, faults)
    faults.check(f"Data set 'voc_sbd', list {file}")
    if not pairs:
        raise DatasetError(
            f"No images: {file} names none. Write one image name a line, without ending."
        )
    return pairs
