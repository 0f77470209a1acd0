"""Loading by name, real data against its statistics, and parts of a split."""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from pipelines import datasets
from pipelines.datasets.sources import texture_scenes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))


@pytest.fixture
def data_dir():
    """Return the folder of the real data, which is not part of the project."""
    if "MM_TEST_DATA" not in os.environ:
        pytest.skip("MM_TEST_DATA names no folder with camvid/ and VOCdevkit/")
    return pathlib.Path(os.environ["MM_TEST_DATA"])


def test_names_are_sorted():
    assert datasets.names() == ("camvid", "cityscapes", "folder", "texture_scenes", "voc_sbd")


def test_an_unknown_name_raises_an_error_with_suggestions():
    with pytest.raises(datasets.DatasetError, match="'camvd'.*mean 'camvid'.*use 'folder'"):
        datasets.load("camvd")
    with pytest.raises(ValueError, match="There is no data set 'xyz'"):
        datasets.load("xyz")


def test_voc_colors_equal_the_table_of_the_development_kit():
    """The first and last entries of the table that VOC's development kit prints."""
    colors = datasets.voc_colors(256)
    assert colors[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert colors[15] == (192, 128, 128) and colors[20] == (0, 64, 128)
    assert colors[255] == (224, 224, 192)
    assert len(set(colors)) == 256


def count(split, class_names):
    """Count images and pixels by class, in the format of the data's stats.json."""
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
    colors = (data_dir / "camvid" / "colours.txt").read_text().split()
    ours = zip(data.spec.class_names, data.spec.colors, strict=True)
    assert colors == [str(word) for name, color in ours for word in (name, *color)]


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
    for example, file in zip(
        datasets.examples(data.eval).take(20), data.eval.label_files, strict=False
    ):
        with Image.open(file) as label:
            np.testing.assert_array_equal(example["label"], np.asarray(label))
        assert example["id"].numpy().decode() == pathlib.Path(file).stem
        assert example["image"].shape[:2] == example["label"].shape


def made_split(num_images, unlabelled=()):
    numbers = range(num_images)
    return datasets.Split(
        name="train",
        ids=tuple(f"id{k}" for k in numbers),
        image_files=tuple(f"{k}.jpg" for k in numbers),
        label_files=tuple(f"{k}.png" for k in numbers),
        has_labels=tuple(k not in unlabelled for k in numbers),
        shorter_side=90,
        records="folder",
        positions=tuple(numbers),
    )


def made_dataset(num_images=10, unlabelled=()):
    spec = datasets.DatasetSpec("made", ("a",), ((0, 0, 0),), None, "here")
    evaluated = datasets.Split("val", ("v",), ("v.jpg",), ("v.png",), (True,), 90)
    return datasets.Dataset(spec, made_split(num_images, unlabelled), evaluated, ("first",))


def test_spread_chooses_evenly_spaced_indices():
    assert datasets.spread(4, 10) == (0, 2, 5, 7)  # floor of 0, 2.5, 5, 7.5
    assert datasets.spread(3, 3) == (0, 1, 2) and datasets.spread(0, 3) == ()
    for num_all in range(1, 40):
        for num_chosen in range(1, num_all + 1):
            indices = datasets.spread(num_chosen, num_all)
            gaps = np.diff((*indices, num_all))
            assert len(indices) == num_chosen and indices[0] == 0
            assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1
    with pytest.raises(ValueError, match=r"num_chosen must lie in 0\.\.3 .* got 4"):
        datasets.spread(4, 3)


def test_take_selects_the_same_images_in_all_fields():
    part = made_split(5, unlabelled=(3,)).take([4, 1], "two")
    assert part.ids == ("id1", "id4") and part.positions == (1, 4)
    assert part.image_files == ("1.jpg", "4.jpg") and part.label_files == ("1.png", "4.png")
    assert part.num_images == 2 and part.shorter_side == 90 and part.records == "folder"
    assert part.title == "train, two" and made_split(1).title == "train"
    by_hand = datasets.Split("s", ("a", "b"), ("a", "b"), ("a", "b"), (True, True), 1)
    assert by_hand.take([1]).ids == ("b",) and by_hand.take([1]).positions == ()
    for wrong in ([5], [-1], [1, 1]):
        with pytest.raises(ValueError, match=r"must be in 0\.\.4, each at most once"):
            made_split(5).take(wrong)


def test_training_images_do_not_depend_on_the_holdout():
    data = made_dataset()
    assert datasets.select(data) is data
    few, held = datasets.select(data, 4), datasets.select(data, 4, 3)
    assert few.train.positions == held.train.positions == (0, 2, 5, 7)
    assert held.eval.positions == (1, 4, 8)  # of the rest 1, 3, 4, 6, 8, 9: numbers 0, 2, 4
    assert few.eval == data.eval and held.eval.name == "train"
    assert held.eval.title == "train, 3 held out"
    assert few.messages[0] == "first" and "4 of the 10 labelled images" in few.messages[1]
    assert "report on 'val', with holdout=0" in held.messages[1]


def test_without_a_number_all_images_not_held_out_are_trained_on():
    data = datasets.select(made_dataset(), holdout=2)
    assert data.eval.positions == (0, 5) and data.train.positions == (1, 2, 3, 4, 6, 7, 8, 9)


def test_only_images_with_labels_are_chosen():
    data = datasets.select(made_dataset(unlabelled=(0, 1, 5)), 3, 4)
    assert sorted(data.train.positions + data.eval.positions) == [2, 3, 4, 6, 7, 8, 9]
    with pytest.raises(datasets.DatasetError, match="7 images with labels, too few for 5 to train"):
        datasets.select(made_dataset(unlabelled=(0, 1, 5)), 5, 3)
    with pytest.raises(datasets.DatasetError, match="too few for 0 to train on and 10 to hold out"):
        datasets.select(made_dataset(), holdout=10)


def test_held_out_examples_are_read_from_the_train_records(prepared_records, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared_records))
    data = datasets.select(datasets.load("texture_scenes"), 5, 3)
    read = [example["id"].numpy().decode() for example in datasets.examples(data.eval)]
    assert read == list(data.eval.ids) and not set(read) & set(data.train.ids)


def _by_hand(*names):
    """Return a data set whose training images are only names; the last one has no labels."""
    files = tuple(f"{name}.png" for name in names)
    has_labels = (*[True] * (len(names) - 1), False)
    train = datasets.Split("train", names, files, files, has_labels, 90)
    return datasets.Dataset(texture_scenes.SPEC, train, dataclasses.replace(train, name="val"), ())


@pytest.mark.parametrize("has_validation", [False, True])
def test_images_without_use_are_left_out(has_validation):
    whole = _by_hand(*map(str, range(30)))
    dataset = datasets.select(whole, 20, holdout=4)
    if has_validation:
        dataset = datasets.hold_out_validation(dataset, 2)
    found = datasets.with_left_out(dataset, whole).left_out
    used = {*dataset.train.ids, *dataset.eval.ids}
    used |= set(dataset.validation.ids) if dataset.validation else set()
    assert len(used) == 24 and found.num_images == 6 and "29" in found.ids
    assert used.isdisjoint(found.ids) and used | set(found.ids) == set(whole.train.ids)


def test_copies_of_pictures_to_measure_on_are_not_left_out():
    whole = _by_hand("a_jpg.rf.1", "b_jpg.rf.1", "a_jpg.rf.2", "c_jpg.rf.1", "d")
    held_out = dataclasses.replace(whole, train=whole.train.take([1]), eval=whole.train.take([0]))
    assert datasets.with_left_out(held_out, whole).left_out.ids == ("c_jpg.rf.1", "d")


def test_an_evaluation_on_the_training_split_leaves_the_same_images_out():
    whole = _by_hand("a", "b", "c", "d")
    same = dataclasses.replace(whole, eval=whole.train)
    expected = datasets.with_left_out(datasets.select(whole, 2), whole).left_out
    assert datasets.with_left_out(datasets.select(same, 2), same).left_out == expected
    assert expected.ids == ("c", "d")
