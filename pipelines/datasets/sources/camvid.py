"""CamVid in the layout of `sources.folder`: a folder of images and masks."""

from pipelines.datasets import files, image_mask_pairs, masks, records
from pipelines.datasets.sources import folder
from pipelines.datasets.spec import DatasetError, DatasetSpec, Request

# Brostow et al., "Semantic object classes in video", 2009; classes and colors as in SegNet.
_COLORS = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "signsymbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
SPEC = DatasetSpec(
    name="camvid",
    class_names=tuple(_COLORS),
    colors=tuple(_COLORS.values()),
    background_label=None,
    source=(
        "CamVid (Brostow, Fauqueur, Cipolla, 2009) as prepared for SegNet (Kendall), 11 classes, "
        "CC BY-NC 4.0: personal and research use."
    ),
)


class Camvid(records.RecordsBuilder, skip_registration=True):
    """CamVid, laid out as a folder of images and masks."""


def plan(request: Request) -> records.Plan:
    """Find CamVid in `data_dir` or its folder "camvid"; see `datasets.load`."""
    given = image_mask_pairs.data_folder(request.data_dir, "camvid", folder.LAYOUT)
    root = given / "camvid" if (given / "camvid" / "images").is_dir() else given
    if not (root / "images").is_dir():
        raise DatasetError(
            f"No CamVid in {given}: neither images/ nor camvid/images/ exists. {folder.LAYOUT}"
        )
    classes = root / "classes.txt"
    if classes.exists() and files.read_lines(classes) != SPEC.class_names:
        raise DatasetError(
            f"{classes} does not name CamVid's 11 classes ({', '.join(SPEC.class_names)}), in "
            "this order. Correct it, or use data set 'folder' for other classes."
        )
    # In SegNet's own masks the value after the last class, 11, is "Unlabelled".
    rule = masks.consecutive(SPEC.class_names, void_value=SPEC.num_classes)
    return folder.plan_layout(Camvid, SPEC, rule, root, request)
