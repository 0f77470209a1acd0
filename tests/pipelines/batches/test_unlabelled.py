"""Find image files, leave out unusable ones, and hold out a share."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines import datasets
from pipelines.batches import unlabelled, views


def noise(*size):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, size, np.uint8))


@pytest.fixture
def folder(tmp_path):
    """Write usable, gray and unreadable files of several kinds, named by kind."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    noise(20, 30, 3).save(tmp_path / "b_color.png")
    noise(20, 30, 3).save(tmp_path / "deep" / "er" / "a_color.JPEG")
    noise(20, 30, 3).save(tmp_path / "c_color.bmp")
    noise(20, 30, 4).save(tmp_path / "d_color.png")  # with alpha
    noise(1, 1, 3).save(tmp_path / "one_pixel_color.png")
    noise(20, 30).save(tmp_path / "e_gray_mode.jpg")
    noise(20, 30).save(tmp_path / "f_gray_mode.png")
    noise(20, 30).convert("RGB").save(tmp_path / "g_gray_pixels.png")
    noise(20, 30).convert("RGB").save(tmp_path / "h_gray_pixels.jpg")
    noise(20, 30).convert("P").save(tmp_path / "i_gray_pixels.png")
    (tmp_path / "j_unreadable.jpg").write_bytes(b"no image")
    (tmp_path / "k_unreadable.png").write_bytes(b"")
    whole = (tmp_path / "deep" / "er" / "a_color.JPEG").read_bytes()
    (tmp_path / "l_unreadable.jpg").write_bytes(whole[: len(whole) // 2])
    noise(20, 30, 3).save(tmp_path / ".hidden.png")
    noise(20, 30, 3).save(tmp_path / ".hidden" / "a.png")
    (tmp_path / "list.txt").write_text("b_color")
    return tmp_path


def names(files):
    return [pathlib.Path(file).name for file in files]


def test_unusable_files_are_left_out(folder):
    files = unlabelled.find(folder, need_color=True)
    assert len(files.image_files) == 5 and all("_color" in name for name in files.image_files)
    assert names(files.gray_mode) == ["e_gray_mode.jpg", "f_gray_mode.png"]
    gray_pixels = ["g_gray_pixels.png", "h_gray_pixels.jpg", "i_gray_pixels.png"]
    assert names(files.gray_pixels) == gray_pixels and files.num_gray == 5
    assert len(files.unreadable) == 3 and all("_unreadable" in name for name in files.unreadable)
    assert "5 of 13" in files.messages[0]
    assert "5 gray" in files.messages[1] and "2 stored as gray, 3 stored" in files.messages[1]
    assert "3 unreadable" in files.messages[2] and "j_unreadable.jpg (" in files.messages[2]
    for file in files.image_files:
        assert views.read_image(file).shape[-1] == 3


def test_gray_files_are_used_if_no_color_is_needed(folder):
    files = unlabelled.find(str(folder))
    assert len(files.image_files) == 10 and files.num_gray == 0
    assert len(files.messages) == 2 and "gray" not in "".join(files.messages[:1])
    # In the order of the paths, whatever the file system's.
    relative = [pathlib.Path(f).relative_to(folder.resolve()).as_posix() for f in files.image_files]
    assert relative == sorted(relative) and "deep/er/a_color.JPEG" in relative


@pytest.mark.parametrize("spread, is_gray", [(3, True), (4, False)])
def test_images_above_the_gray_tolerance_have_color(tmp_path, spread, is_gray):
    image = np.full((40, 40, 3), 100, np.uint8)
    image[13, 17, 2] += spread  # one pixel, not on the coarse grid that is looked at first
    Image.fromarray(image).save(tmp_path / "a.png")
    noise(8, 8, 3).save(tmp_path / "b.png")
    files = unlabelled.find(tmp_path, need_color=True)
    assert (len(files.gray_pixels) == 1) == is_gray


def test_folders_without_usable_images_raise_an_error(tmp_path):
    with pytest.raises(datasets.DatasetError, match="nowhere is not a folder"):
        unlabelled.find(tmp_path / "nowhere")
    with pytest.raises(datasets.DatasetError, match=r"No images in .*\.jpg"):
        unlabelled.find(tmp_path)
    noise(8, 8).save(tmp_path / "a.png")
    with pytest.raises(datasets.DatasetError, match="None of 1 .* 1 stored as gray"):
        unlabelled.find(tmp_path, need_color=True)
    with pytest.raises(datasets.DatasetError, match="no image files"):
        unlabelled.check([])


@pytest.mark.parametrize("num, share, expected", [(50, 0.1, 5), (50, 0.3, 15), (2, 0.9, 1)])
def test_divide_holds_out_the_given_share(num, share, expected):
    files = [f"/data/{i % 7}/{i}.jpg" for i in range(num)]
    train, held_out = unlabelled.divide(files, share)
    assert len(held_out) == expected
    assert sorted(train + held_out) == sorted(files)
    assert list(train) == [file for file in files if file in train]


def test_the_division_depends_only_on_the_names():
    first = [f"/data/{i % 7}/{i}.jpg" for i in range(40)]
    second = [file.replace("/data/", "/elsewhere/below/") for file in reversed(first)]
    _, held_out = unlabelled.divide(first)
    _, same = unlabelled.divide(second)
    assert sorted(same) == sorted(f.replace("/data/", "/elsewhere/below/") for f in held_out)


@pytest.mark.parametrize("files, share", [(["a.jpg"], 0.1), ([], 0.1), (["a", "b"], 0), (["a"], 1)])
def test_too_few_files_and_wrong_shares_raise_an_error(files, share):
    with pytest.raises(ValueError, match="got"):
        unlabelled.divide(files, share)


def test_at_least_the_given_number_of_files_is_held_out():
    train, held_out = unlabelled.divide(["a.jpg", "b.jpg", "c.jpg"], 0.1, least=2)
    assert (len(train), len(held_out)) == (1, 2)
    with pytest.raises(ValueError, match="At least 3 images are needed, 1 to train on and 2 to"):
        unlabelled.divide(["a.jpg", "b.jpg"], 0.1, least=2)


def test_tiny_imagenet_has_105_gray_files(real_data):
    """105 are stored as gray (the data's own count); ten more hold three equal channels."""
    files = unlabelled.find(real_data / "unlabelled" / "tiny_imagenet64", need_color=True)
    assert len(files.gray_mode) == 105 and len(files.gray_pixels) == 10
    assert len(files.image_files) == 4935 and not files.unreadable


def test_masks_and_records_of_data_sets_are_left_out_and_counted(tmp_path):
    for name in ("set/images", "set/masks/train", "SegNet/train", "SegNet/trainannot", "tfds/1"):
        (tmp_path / name).mkdir(parents=True)
        noise(8, 8, 3).save(tmp_path / name / "a.png")
    (tmp_path / "tfds" / "1" / "dataset_info.json").write_text("{}")
    (tmp_path / "masks").mkdir()  # photographs of masks: no folder of images is beside it
    noise(8, 8, 3).save(tmp_path / "masks" / "b.png")
    files = unlabelled.find(tmp_path)
    used = [pathlib.Path(f).relative_to(tmp_path).as_posix() for f in files.image_files]
    assert used == ["SegNet/train/a.png", "masks/b.png", "set/images/a.png"]
    assert len(files.masks) == 3
    assert "Left out 3 files in folders of masks" in files.messages[-1]
    assert "set/masks/train" in files.messages[-1]


def test_system_files_special_files_and_deep_images_are_left_out(tmp_path):
    noise(8, 8, 3).save(tmp_path / "a.png")
    (tmp_path / "@eaDir").mkdir()
    noise(8, 8, 3).save(tmp_path / "@eaDir" / "thumb.png")
    (tmp_path / "._a.png").write_bytes(b"no")
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "link.png").symlink_to("nowhere")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    deep = tf.io.encode_png(tf.fill([8, 8, 3], tf.constant(3000, tf.uint16))).numpy()
    (tmp_path / "deep.png").write_bytes(deep)
    files = unlabelled.find(tmp_path)
    assert names(files.image_files) == ["a.png"] and len(files.unreadable) == 5
    text = "; ".join(files.unreadable)
    assert "more than 8 bits" in text and "3 bands of uint16" in text
    assert text.count("not a regular file") == 2 and "link to a missing file" in text
