"""Cityscapes, on made files in its real layout."""

import numpy as np
import pytest
from PIL import Image

from pipelines import datasets
from pipelines.datasets.sources import cityscapes

# cityscapesScripts, helpers/labels.py: the train id of each label id; all others are void.
TRAIN_IDS = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11}
TRAIN_IDS |= {25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}

TRAIN = ("aachen_000000_000019", "strasbourg_000001_052297", "aachen_000001_000019")
VAL = ("frankfurt_000000_000294",)
TEST = ("berlin_000000_000019",)


def label_ids():
    """All label ids, 0 to 33."""
    return np.resize(np.arange(34), (16, 32)).astype(np.uint8)


def train_ids():
    return np.vectorize(lambda v: TRAIN_IDS.get(v, 255))(label_ids()).astype(np.uint8)


def write(root, split, name, kinds=("labelIds",)):
    city = name.split("_")[0]
    for folder in ("leftImg8bit", "gtFine"):
        (root / folder / split / city).mkdir(parents=True, exist_ok=True)
    image = root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
    Image.fromarray(np.full((16, 32, 3), len(name), np.uint8)).save(image)
    masks = root / "gtFine" / split / city
    pixels = {"labelIds": label_ids(), "labelTrainIds": train_ids()}
    for kind in kinds:
        Image.fromarray(pixels[kind]).save(masks / f"{name}_gtFine_{kind}.png")
    (masks / f"{name}_gtFine_polygons.json").write_text("{}")
    Image.new("RGBA", (32, 16)).save(masks / f"{name}_gtFine_color.png")


@pytest.fixture
def root(tmp_path):
    for split, names in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        for name in names:
            write(tmp_path / "cityscapes", split, name)
    return tmp_path / "cityscapes"


def labels(split):
    return [example["label"].numpy() for example in datasets.examples(split)]


def test_cityscapes_is_found_with_its_facts_in_sorted_order(root):
    data = datasets.load("cityscapes", root)
    assert data == datasets.load("cityscapes", root.parent)
    assert data.train.ids == tuple(sorted(TRAIN)) and data.eval.ids == VAL
    spec = data.spec
    assert spec.num_classes == 19 and spec.background_label is None
    assert [spec.class_names[k] for k in (0, 6, 18)] == ["road", "traffic light", "bicycle"]
    assert spec.colors[0] == (128, 64, 128) and spec.colors[13] == (0, 0, 142)
    assert len(set(spec.colors)) == 19
    assert data.messages[0].startswith("Split 'train' has 3 images, the official one 2,975")
    assert "*_labelIds.png are converted with the official table" in data.messages[-1]


def test_label_ids_become_train_ids(root):
    assert dict(zip(cityscapes.SPEC.label_ids, range(19), strict=True)) == TRAIN_IDS
    for label in labels(datasets.load("cityscapes", root).train):
        np.testing.assert_array_equal(label, train_ids())


def test_train_ids_are_used_unchanged(root):
    by_label_ids = labels(datasets.load("cityscapes", root).train)
    for split, names in (("train", TRAIN), ("val", VAL)):
        for name in names:
            write(root, split, name, ("labelTrainIds", "labelIds"))
    data = datasets.load("cityscapes", root)
    assert not any("labelIds" in message for message in data.messages)
    np.testing.assert_array_equal(labels(data.train), by_label_ids)


def test_incomplete_train_ids_are_not_used(root):
    write(root, "train", TRAIN[0], ("labelTrainIds",))
    plan = datasets.plan("cityscapes", root)
    assert all(pair.mask.name.endswith("labelIds.png") for pair in plan.splits["train"])


def test_the_split_of_the_paper_leaves_one_image_out(root):
    data = datasets.load("cityscapes", root, train_split="train_paper")
    assert data.train.ids == ("aachen_000000_000019", "aachen_000001_000019")
    assert "the official one 2,974" in data.messages[0]
    assert cityscapes._NUM_IMAGES["train"] - cityscapes._NUM_IMAGES["train_paper"] == 1


def test_masks_of_the_test_split_are_not_read(root):
    data = datasets.load("cityscapes", root, eval_split="test")
    assert data.eval.ids == TEST and not data.eval.is_labelled
    assert set(labels(data.eval)[0].flat) == {255}


def test_wrong_files_raise_an_error(root, tmp_path):
    with pytest.raises(datasets.DatasetError, match="no folder leftImg8bit.*zip"):
        datasets.load("cityscapes", root / "gtFine")
    with pytest.raises(datasets.DatasetError, match="No split 'trian'.*mean 'train'"):
        datasets.load("cityscapes", root, train_split="trian")
    masks = root / "gtFine" / "train" / "strasbourg"
    file = masks / f"{TRAIN[1]}_gtFine_labelIds.png"
    file.unlink()
    with pytest.raises(datasets.DatasetError, match="without a mask.*strasbourg"):
        datasets.load("cityscapes", root)
    Image.fromarray(np.full((16, 32), 34, np.uint8)).save(file)
    with pytest.raises(datasets.DatasetError, match="34 seen where 7 to 8, .*31 to 33 and 0 to 6"):
        datasets.load("cityscapes", root)
    for split in ("train", "val"):
        for path in (root / "leftImg8bit" / split).rglob("*.png"):
            path.unlink()
    with pytest.raises(datasets.DatasetError, match="2 x split without any pair"):
        datasets.load("cityscapes", root)
