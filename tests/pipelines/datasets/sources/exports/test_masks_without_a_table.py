"""Masks without a class table, layouts of folders, and the meaning of unlabelled pixels."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from pipelines import datasets
from pipelines.datasets.sources.exports import scan


def write(file, pixels, **options):
    file = pathlib.Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, **options)


def noise(seed, high=256, size=(24, 32)):
    return np.random.default_rng(seed).integers(0, high, size)


def palette_mask(file, pixels, palette):
    file = pathlib.Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, np.uint8)).convert("P")
    image = Image.frombytes("P", image.size, np.asarray(pixels, np.uint8).tobytes())
    image.putpalette(palette)
    image.save(file)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{}.jpg", "masks/{}.png"),
        ("images/train/{}.jpg", "masks/train/{}.png"),
        ("train/images/{}.jpg", "train/labels/{}.png"),
        ("img_dir/train/{}.jpg", "ann_dir/train/{}.png"),
        ("train/{}.png", "trainannot/{}.png"),
        ("train/{}.jpg", "train_masks/{}_mask.png"),
        ("{}.jpg", "{}_mask.png"),
        ("{}.jpg", "{}.png"),
        ("{}_sat.jpg", "{}_mask.png"),
        ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
        ("imgs/{}.png", "gts/gt_{}.png"),
    ],
)
def test_usual_layouts_are_paired(tmp_path, image, mask):
    for k, name in enumerate(("one", "two", "three", "four")):
        write(tmp_path / image.format(name), noise(k, size=(24, 32, 3)))
        write(tmp_path / mask.format(name), noise(k, 3))
    plan = datasets.plan("folder", tmp_path)
    pictures = [item for items in plan.splits.values() for item in items]
    assert len(pictures) == 4
    for picture in pictures:
        assert picture.image.stem.split("_")[0] in picture.masks[0].stem
    assert plan.spec.class_names == ("class_0", "class_1", "class_2")


def test_palettes_that_number_one_color_differently_are_decoded_by_color(tmp_path):
    red, green = [255, 0, 0], [0, 255, 0]
    for k in range(4):
        write(tmp_path / "images" / f"{k}.png", noise(k, size=(24, 32, 3)))
        order = [red, green] if k % 2 else [green, red]
        mask = np.full((24, 32), k % 2)
        mask[0, 0] = 1 - k % 2
        palette_mask(tmp_path / "masks" / f"{k}.png", mask, sum(order, []))
    data = datasets.load("folder", tmp_path)
    assert data.spec.class_names == ("0_255_0", "255_0_0")
    for file in data.train.label_files:
        assert np.bincount(np.asarray(Image.open(file)).ravel()).tolist() == [767, 1]


def test_palettes_of_random_colors_keep_their_indices(tmp_path):
    for k in range(4):
        write(tmp_path / "images" / f"{k}.png", noise(k, size=(24, 32, 3)))
        palette = [0, 0, 0, *noise(k, size=(6,)).tolist()]
        palette_mask(tmp_path / "masks" / f"{k}.png", noise(k, 3), palette)
    data = datasets.load("folder", tmp_path)
    assert data.spec.class_names == ("class_0", "class_1", "class_2")
    assert any("the values count" in line for line in data.messages)


def test_more_colors_than_classes_can_have_are_refused(tmp_path):
    for k in range(2):
        write(tmp_path / "images" / f"{k}.png", noise(k, size=(24, 32, 3)))
        write(tmp_path / "masks" / f"{k}.png", noise(k, size=(24, 32, 3)))
    with pytest.raises(datasets.DatasetError, match="more than 64 colors"):
        datasets.plan("folder", tmp_path)


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_lossy_masks_are_refused_whatever_the_container(tmp_path, ending):
    options = {"compression": "jpeg"} if ending == "tif" else {"format": "JPEG"}
    for k in range(2):
        write(tmp_path / "images" / f"{k}.png", noise(k, size=(24, 32, 3)))
        write(tmp_path / "masks" / f"{k}.{ending}", noise(k, 2), **options)
    with pytest.raises(datasets.DatasetError, match="lossy compression"):
        datasets.plan("folder", tmp_path)


def test_pieces_are_counted_with_eight_neighbors():
    labels = np.array([[1, 0, 2, 2], [0, 1, 0, 2], [3, 0, 3, 0], [3, 3, 3, 1]])
    assert scan.num_pieces(labels) == {1: 2, 2: 1, 3: 1}


@pytest.mark.parametrize(
    ("name", "usual", "names"),
    [
        ("labelstudio_brush_json", "background", ("leaf", "stem")),
        ("cvat_segmentation_mask", "background", ("leaf", "stem")),
        ("roboflow_masks", "background", None),
    ],
)
def test_unlabelled_pixels_can_be_void(samples, read, name, usual, names):
    export = read(samples / name / "export")
    assert export.unlabelled == usual and export.classes.background == 0
    other = read(samples / name / "export", unlabelled="void")
    assert other.unlabelled == "void" and other.classes.background is None
    assert names is None or other.classes.names == names
    plan = datasets.plan(
        "folder", samples / name / "export", reading=datasets.Reading(unlabelled="void")
    )
    image = plan.read(next(iter(plan.splits.values()))[0])
    assert (image.sample.label == 255).any()


@pytest.mark.parametrize("name", ["coco_panoptic", "ade_challenge", "ultralytics_semantic"])
def test_unlabelled_pixels_can_be_background(samples, read, name):
    export = read(samples / name / "export")
    other = read(samples / name / "export", unlabelled="background")
    assert other.classes.names[0] == "background" and other.classes.background == 0
    assert set(export.classes.names) <= set(other.classes.names)
    plan = datasets.plan(
        "folder", samples / name / "export", reading=datasets.Reading(unlabelled="background")
    )
    image = plan.read(next(iter(plan.splits.values()))[0])
    assert (image.sample.label == 0).any() and not (image.sample.label == 255).any()


def test_pictures_without_annotation_are_left_out_or_background(samples, read):
    export = read(samples / "coco_datumaro" / "export")
    assert (len(export.pictures), len(export.bare)) == (5, 1)
    export = read(samples / "coco_datumaro" / "export", unannotated="background")
    assert (len(export.pictures), len(export.bare)) == (6, 0)


def test_the_share_of_unlabelled_pixels_is_in_the_messages(samples):
    data = datasets.load("folder", samples / "coco_datumaro" / "export")
    assert "Recognized COCO instances: 5 images with annotation" in data.messages[0]
    assert "3 classes from the categories of instances_default.json" in data.messages[0]
    assert any("% of the pixels have no label" in line for line in data.messages)
    assert data.spec.class_names == ("background", "leaf", "stem")
    label = np.asarray(Image.open(data.train.label_files[0]))
    assert set(np.unique(label)) == {0, 1, 2}


def test_other_data_sets_refuse_choices_on_exports(tmp_path):
    with pytest.raises(datasets.DatasetError, match="is for data set 'folder'"):
        datasets.plan("camvid", tmp_path, reading=datasets.Reading(unlabelled="void"))


def test_drawings_on_a_transparent_ground_have_a_background(tmp_path):
    for k in range(4):
        write(tmp_path / "images" / f"{k}.png", noise(k, size=(24, 32, 3)))
        drawing = np.zeros((24, 32, 4), np.uint8)
        drawing[..., :3] = noise(k, size=(24, 32, 3))  # the color below transparent pixels
        drawing[4:9] = (255, 0, 0, 255)
        write(tmp_path / "masks" / f"{k}.png", drawing)
    data = datasets.load("folder", tmp_path)
    assert data.spec.class_names == ("0_0_0", "255_0_0")
    for file in data.train.label_files:
        label = np.asarray(Image.open(file))
        assert (label[4:9] == 1).all() and (label[:4] == 0).all() and (label[9:] == 0).all()
