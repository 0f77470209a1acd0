"""PASCAL VOC2012 with SBD's masks, on made files and on the official lists."""

import dataclasses
import hashlib
import io
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from pipelines import datasets
from pipelines.datasets.sources import voc_sbd


@pytest.fixture
def voc(tmp_path, write_pair):
    """Return a development kit with VOC's own masks a and b, and mask c of SBD only."""
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


def test_voc_is_found_in_each_place_with_its_lists_and_masks(voc):
    data = datasets.load("voc_sbd", voc)
    assert data.train.name == "trainaug" and data.train.ids == ("c", "a")
    assert data.eval.name == "val" and data.eval.ids == ("b",)
    assert data.spec.num_classes == 21 and data.spec.background_label == 0
    assert [data.spec.class_names[k] for k in (1, 11, 20)] == [
        "aeroplane",
        "diningtable",
        "tvmonitor",
    ]
    labels = [e["label"].numpy() for e in datasets.examples(data.train)]
    assert set(labels[0].flat) == set(labels[1].flat) == {0, 20, 255}  # VOC's own go first
    for place in (voc.parent, voc.parent.parent):
        assert datasets.load("voc_sbd", place) == data


def test_without_augmented_masks_only_own_splits_can_be_trained_on(voc, tmp_path):
    (voc / "SegmentationClassAug").rename(tmp_path / "elsewhere")
    with pytest.raises(datasets.DatasetError, match=r"without a mask.*c\.jpg"):
        datasets.load("voc_sbd", voc)
    assert datasets.load("voc_sbd", voc, train_split="train").train.ids == ("a",)


def test_images_in_both_splits_give_a_message(voc):
    data = datasets.load("voc_sbd", voc, train_split="trainval")
    assert data.messages[-1] == "1 images are in both 'trainval' and 'val'."


def test_splits_of_unofficial_size_give_a_message(voc):
    first, second = datasets.load("voc_sbd", voc).messages
    assert first.startswith("Split 'trainaug' has 2 images, the official one 10,582")
    assert second.startswith("Split 'val' has 1 images, the official one 1,449")


def test_missing_folders_and_lists_raise_an_error(voc):
    with pytest.raises(datasets.DatasetError, match="No VOC2012 in"):
        datasets.load("voc_sbd", voc / "ImageSets")
    with pytest.raises(datasets.DatasetError, match="there are train, trainaug, trainval, val"):
        datasets.load("voc_sbd", voc, train_split="trian")
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text("")
    with pytest.raises(datasets.DatasetError, match="split without any pair.*'train'"):
        datasets.load("voc_sbd", voc, train_split="train")


def sbd_file(folder, name, pixels):
    """Write a .mat file in SBD's layout, with boundaries next to the mask."""
    scipy_io = pytest.importorskip("scipy.io")
    folder.mkdir(parents=True, exist_ok=True)
    content = {"Boundaries": np.zeros((20, 1), object), "Segmentation": pixels}
    content["CategoriesPresent"] = np.array([[7.0]])
    scipy_io.savemat(folder / f"{name}.mat", {"GTcls": content}, do_compression=True)


@pytest.mark.parametrize("place", [".", "..", "../.."])
def test_trainaug_is_built_from_sbd_files_without_a_list(voc, tmp_path, place):
    (voc / "SegmentationClassAug").rename(tmp_path / "elsewhere")
    (voc / "ImageSets" / "Segmentation" / "trainaug.txt").unlink()
    with pytest.raises(datasets.DatasetError, match="needs SBD's masks.*train_split='train'"):
        datasets.load("voc_sbd", voc)
    masks = {name: np.full((24, 32), k, np.uint8) for k, name in enumerate("abc")}
    masks["c"][3, 5] = 20
    for name, pixels in masks.items():
        sbd_file(voc / place / "benchmark_RELEASE" / "dataset" / "cls", name, pixels)
    data = datasets.load("voc_sbd", voc)
    assert data.train.ids == ("a", "c") and data.eval.ids == ("b",)  # b is in val
    own, sbd = (example["label"].numpy() for example in datasets.examples(data.train))
    assert set(own.flat) == {0, 20, 255}
    np.testing.assert_array_equal(sbd, masks["c"])


def test_masks_saved_as_colors_are_decoded(voc):
    file = voc / "SegmentationClass" / "a.png"
    with Image.open(file) as mask:
        indices = np.asarray(mask)
    Image.fromarray(np.array(datasets.voc_colors(256), np.uint8)[indices]).save(file)
    data = datasets.load("voc_sbd", voc, train_split="train")
    np.testing.assert_array_equal(next(iter(datasets.examples(data.train)))["label"], indices)


def test_the_test_split_has_no_labels(voc):
    (voc / "ImageSets" / "Segmentation" / "test.txt").write_text("t\nu\n")
    for name in "tu":
        Image.new("RGB", (20, 30)).save(voc / "JPEGImages" / f"{name}.jpg")
    data = datasets.load("voc_sbd", voc, eval_split="test")
    assert data.eval.ids == ("t", "u") and data.eval.has_labels == (False, False)
    assert not data.eval.is_labelled and data.train.is_labelled
    assert "Split 'test' has no labels: it can be predicted, not measured." in data.messages
    assert set(next(iter(datasets.examples(data.eval)))["label"].numpy().flat) == {255}
    Image.new("L", (20, 30)).save(voc / "SegmentationClass" / "t.png")  # some, but not all
    with pytest.raises(datasets.DatasetError, match=r"without a mask.*u\.jpg"):
        datasets.load("voc_sbd", voc, eval_split="test")


def test_the_computed_trainaug_split_equals_the_official_list(real_data, tmp_path):
    """The test uses only VOC's lists and the names of SBD's masks, no photographs."""
    lists = {
        name: (real_data / "VOCdevkit" / "full_lists" / f"{name}.txt").read_text().split()
        for name in ("train", "val", "trainaug")
    }
    folder = tmp_path / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True)
    for name in ("train", "val"):
        (folder / f"{name}.txt").write_text("\n".join(lists[name]))
    # SBD covers some of VOC's own images, too.
    sbd = dict.fromkeys({*lists["trainaug"], *lists["val"][:700]} - set(lists["train"][:300]))
    names = voc_sbd._ids(tmp_path, "trainaug", sbd)
    assert len(names) == len(set(names)) == 10582
    assert set(names) == set(lists["trainaug"])


# Downloads


def tar(file, members):
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return hashlib.md5(file.read_bytes()).hexdigest()


def test_missing_archives_are_downloaded_once(voc, tmp_path, cache, monkeypatch):
    (voc / "SegmentationClassAug").rename(tmp_path / "elsewhere")
    (voc / "ImageSets" / "Segmentation" / "trainaug.txt").unlink()
    cls = tmp_path / "benchmark_RELEASE" / "dataset" / "cls"
    sbd_file(cls, "c", np.full((24, 32), 7, np.uint8))
    fetched, archives = [], []
    tops = ("VOCdevkit", "benchmark_RELEASE")
    for top, original in zip(tops, voc_sbd._ARCHIVES, strict=True):
        files = [path for path in (tmp_path / top).rglob("*") if path.is_file()]
        members = {str(path.relative_to(tmp_path)): path.read_bytes() for path in files}
        md5 = tar(tmp_path / original.filename, members)
        archives.append(dataclasses.replace(original, md5=md5, num_bytes=0))

    def get_file(fname, origin, cache_dir, cache_subdir):
        fetched.append(origin)
        shutil.copy(tmp_path / fname, cache_dir)

    monkeypatch.setattr("keras.utils.get_file", get_file)
    monkeypatch.setattr(voc_sbd, "_ARCHIVES", tuple(archives))
    data = datasets.load("voc_sbd")
    assert data.train.ids == ("a", "c") and data.eval.ids == ("b",)
    assert data.train.image_files[0].startswith(str(cache / "downloads" / "voc_sbd"))
    assert fetched == [archive.url for archive in archives]
    assert datasets.load("voc_sbd").train == data.train
    assert len(fetched) == 2


def test_archives_have_the_official_addresses():
    voc, sbd = voc_sbd._ARCHIVES
    assert voc.filename == "VOCtrainval_11-May-2012.tar" and sbd.filename == "benchmark.tgz"
    assert "host.robots.ox.ac.uk" in voc.url and "eecs.berkeley.edu" in sbd.url
