"""Each sample of MM_TEST_DATA/exports gives its expected masks, and each lookalike is refused."""

import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from pipelines import datasets
from pipelines.datasets import inspection

FOLDER = pathlib.Path(os.environ.get("MM_TEST_DATA", "none"), "exports")
INDEX = json.loads((FOLDER / "index.json").read_text()) if FOLDER.is_dir() else []
REFUSED = {
    "jpeg_masks": "lossy compression",
    "labelstudio_brush_png": "Export the project as JSON",
}
LOOKALIKES = {
    "cvat_voc_boxes": "Pascal VOC with boxes only",
    "coco_boxes": "COCO file with boxes only",
    "yolo_boxes": "YOLO detection with boxes only",
    "roboflow_classification": "Roboflow classification",
    "coco_results.json": "COCO results, which are predictions",
}
pytestmark = pytest.mark.skipif(not INDEX, reason="MM_TEST_DATA has no folder exports")


def checked_images(export):
    """Return (class names, {image path relative to the export: checked image}) of all splits."""
    plans = [datasets.plan("folder", export)]
    if "test" in {p.name.lower() for p in export.rglob("*") if p.is_dir()}:
        plans.append(datasets.plan("folder", export, eval_split="test"))
    found = {}
    for plan in plans:
        images = [plan.read(item) for items in plan.splits.values() for item in items]
        inspected = inspection.Inspection(plan.rule)
        for image in images:
            inspected.add(image)
        if (revised := plan.revised(inspected, {})) is not None:
            images = [revised.read(item) for items in plan.splits.values() for item in items]
        found |= {(image.image_file, image.id): image for image in images}
    return plans[0].spec.class_names, list(found.values())


def image_of(images, export, entry):
    """Return the checked image of an entry of expected.json."""
    stem = pathlib.Path(entry["mask"]).stem
    if stem.startswith("page"):
        return next(image for image in images if image.id.endswith(f"_{int(stem[4:]):04d}"))
    path = str((export / entry["image"]).resolve())
    named = [image for image in images if image.image_file == path]
    return named[0] if named else next(image for image in images if image.id == stem)


def near_a_border(ids, reach):
    """Return whether a pixel of another id is at most `reach` pixels away (chessboard distance)."""
    height, width = ids.shape
    padded = np.pad(ids, reach, mode="edge")
    found = np.zeros(ids.shape, bool)
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            found |= padded[dy : dy + height, dx : dx + width] != ids
    return found


def translated(labels, class_names, expected_names):
    """Return the labels with the ids of the expected names; 254 for a name that is not expected."""
    ids = {name: k for k, name in enumerate(expected_names)}
    table = np.full(256, 254, np.uint8)
    table[255] = 255
    for k, name in enumerate(class_names):
        table[k] = ids.get(name, 254)
    return table[labels]


@pytest.mark.parametrize("name", [entry["name"] for entry in INDEX if entry["name"] not in REFUSED])
def test_a_sample_gives_its_expected_masks(name):
    export, folder = FOLDER / name / "export", FOLDER / name / "expected"
    facts = json.loads((folder / "expected.json").read_text())
    class_names, images = checked_images(export)
    expected_names = (folder / "classes.txt").read_text().splitlines()
    for entry in (entry for entry in facts["images"] if entry["mask"]):
        image = image_of(images, export, entry)
        assert image.sample is not None, (image.found, image.unreadable)
        labels = translated(image.sample.label, class_names, expected_names)
        # lines and points, which have no area, are left out of labelme's shapes
        left_out = folder / "lines_left_out.png"
        expected = np.asarray(Image.open(left_out if left_out.exists() else folder / entry["mask"]))
        wrong = labels != expected
        if not facts["exact"]:
            wrong &= ~near_a_border(expected, facts["border_band_px"])
            edge = facts.get("image_edge_px", 0)
            wrong = wrong[edge : wrong.shape[0] - edge, edge : wrong.shape[1] - edge]
        assert not wrong.any(), f"{image.id}: {wrong.sum()} pixels"


@pytest.mark.parametrize("name", REFUSED)
def test_a_sample_without_exact_labels_is_refused_by_name(name):
    with pytest.raises(datasets.DatasetError, match=REFUSED[name]):
        datasets.plan("folder", FOLDER / name / "export")


@pytest.mark.parametrize("name", LOOKALIKES)
def test_a_lookalike_is_refused_by_name(name):
    with pytest.raises(datasets.DatasetError, match=LOOKALIKES[name]):
        datasets.plan("folder", FOLDER / "not_segmentation" / name)


def test_the_other_forms_of_via_give_the_same_masks(tmp_path):
    for form in ("export_csv", "export_project", "export_via1"):
        source = next(file for file in (FOLDER / "via" / form).iterdir())
        reading = datasets.Reading(images=FOLDER / "via" / "export" / "images")
        plan = datasets.plan("folder", source, reading=reading)
        assert plan.spec.class_names == ("background", "bird", "cup", "human")
        assert sum(map(len, plan.splits.values())) == 2
