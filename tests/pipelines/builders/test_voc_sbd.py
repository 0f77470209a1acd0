import numpy as np
import pytest
from PIL import Image

from pipelines import datasets


@pytest.fixture
def voc(tmp_path, write_pair):
    """Returns a development kit with masks a, b of VOC's own and c of SBD alone."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name in "abc":
        write_pair(root, name, values=(0, 20, 255))
    (root / "images").rename(root / "JPEGImages")
    (root / "masks").rename(root / "SegmentationClass")
    augmented = root / "SegmentationClassAug"
    augmented.mkdir()
    (root / "SegmentationClass" / "c.png").rename(augmented / "c.png")
    Image.fromarray(np.full((24, 32), 7, np.uint8)).save(augmented / "a.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name, ids in (("train", "a"), ("val", "b"), ("trainaug", "ca"), ("trainval", "ab")):
        (lists / f"{name}.txt").write_text("".join(f"{i}\n" for i in ids))
    return root


def test_lists_places_and_masks(voc):
    data = datasets.load("voc_sbd", voc)
    assert data.train.name == "trainaug" and data.train.ids == ("c", "a")
    assert data.eval.name == "val" and data.eval.ids == ("b",)
    assert data.spec.num_classes == 21 and data.spec.background_label == 0
    assert [data.spec.class_names[k] for k in (1, 11, 20)] == [
        "aeroplane",
        "diningtable",
        "tvmonitor",
    ]
    labels = [e["label"].numpy() for e in data.train.examples()]
    assert set(labels[0].flat) == {0, 20, 255} and set(labels[1].flat) == {
        7
    }  # augmented goes first
    for place in (voc.parent, voc.parent.parent):
        assert datasets.load("voc_sbd", place) == data


def test_own_masks_where_there_are_no_augmented_ones(voc, tmp_path):
    (voc / "SegmentationClassAug").rename(tmp_path / "elsewhere")
    with pytest.raises(datasets.DatasetError, match=r"without a mask.*c\.jpg"):
        datasets.load("voc_sbd", voc)
    assert datasets.load("voc_sbd", voc, train_split="train").train.ids == ("a",)


def test_shared_images_are_told(voc):
    data = datasets.load("voc_sbd", voc, train_split="trainval")
    assert data.messages == ("1 images are in both 'trainval' and 'val'.",)


def test_missing_things(voc, tmp_path):
    with pytest.raises(datasets.DatasetError, match="needs --data_dir"):
        datasets.load("voc_sbd")
    with pytest.raises(datasets.DatasetError, match="No VOC2012 in"):
        datasets.load("voc_sbd", voc / "ImageSets")
    (voc / "ImageSets" / "Segmentation" / "trainaug.txt").unlink()
    with pytest.raises(datasets.DatasetError, match="there are train, trainval, val"):
        datasets.load("voc_sbd", voc)
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text("")
    with pytest.raises(datasets.DatasetError, match="No images"):
        datasets.load("voc_sbd", voc, train_split="train")
