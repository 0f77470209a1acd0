import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from pipelines import datasets


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))


@pytest.fixture
def data_dir():
    """Returns the folder of the real data, which the project does not hold."""
    if "MM_TEST_DATA" not in os.environ:
        pytest.skip("MM_TEST_DATA names no folder with camvid/ and VOCdevkit/")
    return pathlib.Path(os.environ["MM_TEST_DATA"])


def test_names():
    assert datasets.names() == ("camvid", "cityscapes", "folder", "texture_scenes", "voc_sbd")


def test_unknown_name_gets_suggestions():
    with pytest.raises(datasets.DatasetError, match="'camvd'.*mean 'camvid'.*use 'folder'"):
        datasets.load("camvd")
    with pytest.raises(ValueError, match="There is no data set 'xyz'"):
        datasets.load("xyz")


def test_voc_colours():
    """The first and last entries of the table that VOC's development kit prints."""
    colours = datasets.voc_colours(256)
    assert colours[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert colours[15] == (192, 128, 128) and colours[20] == (0, 64, 128)
    assert colours[255] == (224, 224, 192)
    assert len(set(colours)) == 256


def count(split, class_names):
    """Counts images and pixels by class, in the words of the data's stats.json."""
    names = dict(enumerate(class_names)) | {datasets.VOID: "void(255)"}
    images, pixels = {}, {}
    for file in split.label_files:
        with Image.open(file) as label:
            counts = np.bincount(np.asarray(label).ravel(), minlength=256)
        for value in np.flatnonzero(counts):
            name = names[value]
            images[name] = images.get(name, 0) + 1
            pixels[name] = pixels.get(name, 0) + int(counts[value])
    return {"images": split.num_images, "images_with": images, "pixels": pixels}


def test_camvid_has_the_counts_of_its_statistics(data_dir):
    data = datasets.load("camvid", data_dir)
    stats = json.loads((data_dir / "camvid" / "stats.json").read_text())
    assert count(data.train, data.spec.class_names) == stats["train"]
    assert count(data.eval, data.spec.class_names) == stats["val"]
    assert data.train.shorter_side == 360
    listed = (data_dir / "camvid" / "train.txt").read_text().split()
    assert list(data.train.ids) == listed
    colours = (data_dir / "camvid" / "colours.txt").read_text().split()
    ours = zip(data.spec.class_names, data.spec.colours, strict=True)
    assert colours == [str(word) for name, colour in ours for word in (name, *colour)]


def test_voc_has_the_counts_of_its_statistics(data_dir):
    stats = json.loads((data_dir / "VOCdevkit" / "VOC2012" / "stats.json").read_text())
    data = datasets.load("voc_sbd", data_dir)
    names = data.spec.class_names
    assert count(data.eval, names) == stats["val"]
    train, extra = stats["train"], stats["aug-only"]  # which together are trainaug
    counted = count(data.train, names)
    assert counted["images"] == train["images"] + extra["images"]
    for kind in ("images_with", "pixels"):
        both = {n: train[kind].get(n, 0) + extra[kind].get(n, 0) for n in train[kind] | extra[kind]}
        assert counted[kind] == both
    assert not set(data.train.ids) & set(data.eval.ids)
    for example, file in zip(data.eval.examples().take(20), data.eval.label_files, strict=False):
        with Image.open(file) as label:
            np.testing.assert_array_equal(example["label"], np.asarray(label))
        assert example["id"].numpy().decode() == pathlib.Path(file).stem
        assert example["image"].shape[:2] == example["label"].shape
