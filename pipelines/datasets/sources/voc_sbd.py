"""PASCAL VOC2012 with SBD's masks, from an existing development kit or from the official addresses.

SBD's masks are read from SegmentationClassAug, a folder of PNGs that many projects redistribute, or
from SBD's own .mat files.
"""

import pathlib

from pipelines.datasets import faults, image_mask_pairs, masks, records
from pipelines.datasets.sources import downloads
from pipelines.datasets.spec import VOID, DatasetError, DatasetSpec, Request, voc_colors

# The order of the development kit: class 0 is background, the others are alphabetical.
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
SPEC = DatasetSpec(
    name="voc_sbd",
    class_names=_CLASS_NAMES,
    colors=voc_colors(len(_CLASS_NAMES)),
    background_label=0,
    source=(
        "PASCAL VOC2012 (Everingham et al.) with the masks of SBD (Hariharan et al., ICCV 2011); "
        "photographs under Flickr's terms of use, for research."
    ),
)
_ARCHIVES = (
    # Checksums as in torchvision, datasets/voc.py and datasets/sbd.py: the sites publish none.
    downloads.Archive(
        url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        md5="6cd6e144f989b92b3379bac3b3de84fd",
        keep=(
            "VOCdevkit/VOC2012/ImageSets/Segmentation/",
            "VOCdevkit/VOC2012/JPEGImages/",
            "VOCdevkit/VOC2012/SegmentationClass/",
        ),
        num_bytes=4_000_000_000,
    ),
    downloads.Archive(
        url=(
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
            "semantic_contours/benchmark.tgz"
        ),
        md5="82b4d87ceb2ed10f6038a1cba92111cb",
        keep=("benchmark_RELEASE/dataset/cls/",),
        num_bytes=1_600_000_000,
    ),
)
# Places of VOC2012 below data_dir, which is VOC2012 itself, the kit, or the kit's parent.
_PLACES = ("", "VOC2012", "VOCdevkit/VOC2012")
_SBD = "benchmark_RELEASE/dataset/cls"
_AUGMENTED = "SegmentationClassAug"
_OWN = "SegmentationClass"
# VOC2012's own splits, and trainaug: train and all of SBD's images that are not in val.
_NUM_IMAGES = {"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582, "test": 1456}
_ADVICE = "Give the VOCdevkit folder or its parent."


class VocSbd(records.RecordsBuilder, skip_registration=True):
    """VOC2012's photographs with VOC's and SBD's masks."""


def plan(request: Request) -> records.Plan:
    """Find VOC2012; the usual splits are trainaug (train and SBD) and val; see `datasets.load`.

    Without data_dir, the archives are downloaded once from the official addresses. The split test
    has no labels; its images come from VOC's evaluation server.
    """
    given = _given(request.data_dir)
    root = _find(given)
    wanted = request.splits("trainaug", "val")
    found = faults.Faults()
    images = image_mask_pairs.files_by_stem(
        root / "JPEGImages", image_mask_pairs.IMAGE_ENDINGS, found
    )
    own, sbd = _masks_of(root / _OWN, found), _masks_of(_sbd_folder(root, given), found)
    # VOC's own masks take precedence, because figures are measured on them. SegmentationClassAug
    # contains the same masks for VOC's images. SBD's own masks differ and have no borders.
    mask_files = sbd | own
    splits = {
        split: image_mask_pairs.pair_listed(
            _ids(root, split, sbd), images, mask_files, found, split
        )
        for split in dict.fromkeys(wanted)
    }
    lines = [
        image_mask_pairs.size_message(s, len(splits[s]), _NUM_IMAGES.get(s, len(splits[s])))
        for s in splits
    ]
    messages = tuple(line for line in lines if line)
    return image_mask_pairs.plan(SPEC, VocSbd, _rule(), splits, *wanted, found, messages)


def _given(data_dir) -> pathlib.Path:
    if data_dir is not None:
        return image_mask_pairs.data_folder(data_dir, "voc_sbd", _ADVICE)
    folder = downloads.default_folder("voc_sbd")
    downloads.provide(_ARCHIVES, folder)
    return folder


def _find(given: pathlib.Path) -> pathlib.Path:
    for place in _PLACES:
        if (given / place / "JPEGImages").is_dir():
            return given / place
    raise DatasetError(
        f"No VOC2012 in {given}: there is no JPEGImages in it, in VOC2012 or in VOCdevkit/VOC2012. "
        "Give the folder that holds VOCdevkit."
    )


def _rule() -> masks.MaskRule:
    """Return the rule: values are ids, and colors are decoded by VOC's color map."""
    void_color = voc_colors(256)[VOID]
    colors = (*((c, k) for k, c in enumerate(SPEC.colors)), (void_color, VOID))
    return masks.consecutive(SPEC.class_names, colors=colors)


def _sbd_folder(root: pathlib.Path, given: pathlib.Path) -> pathlib.Path | None:
    """Return the folder of SBD's masks: PNGs if they exist, otherwise .mat files."""
    bases = (given, root, *root.parents[:2])
    places = (root / _AUGMENTED, *(base / _SBD for base in bases))
    return next((place for place in places if place.is_dir()), None)


def _masks_of(folder: pathlib.Path | None, found: faults.Faults) -> dict[str, pathlib.Path]:
    if folder is None or not folder.is_dir():
        return {}
    return image_mask_pairs.files_by_stem(folder, (*masks.ENDINGS, ".mat"), found)


def _ids(root: pathlib.Path, split: str, sbd: dict[str, pathlib.Path]) -> tuple[str, ...]:
    """Return a split's names from its list; the list of trainaug may be missing."""
    lists = root / "ImageSets" / "Segmentation"
    file = lists / f"{split}.txt"
    if file.exists():
        return image_mask_pairs.read_list(file)
    if split != "trainaug":
        known = sorted({path.stem for path in lists.glob("*.txt")} | {"trainaug"})
        raise records.unknown_split(split, tuple(known), f"in {lists}")
    train, val = (_ids(root, part, sbd) for part in ("train", "val"))
    if not sbd:
        raise DatasetError(
            f"Split 'trainaug' needs SBD's masks, but neither {root / _AUGMENTED} nor "
            f"{root.parent.parent / _SBD} exists. Unpack {_ARCHIVES[1].url} beside VOCdevkit, or "
            "train on VOC's own masks with train_split='train'."
        )
    return (*train, *sorted(sbd.keys() - {*train, *val}))
