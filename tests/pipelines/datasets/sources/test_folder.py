"""The folder source: layouts, splits, lists, color tables, and wrong files."""

import hashlib
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from pipelines import datasets


def load(root, **kwargs):
    return datasets.load("folder", root, **kwargs)


def fails(root, *parts, **kwargs):
    """Check that loading fails with all of `parts` in the message, and return the message."""
    with pytest.raises(datasets.DatasetError) as caught:
        load(root, **kwargs)
    for part in parts:
        assert str(part) in str(caught.value)
    return str(caught.value)


def pixels(file):
    with Image.open(file) as image:
        assert image.mode == "L"
        return np.asarray(image)


def test_a_folder_gives_facts_and_sorted_images(folder):
    data = load(folder)
    assert data.spec.class_names == ("ground", "thing")
    assert data.spec.num_classes == len(data.spec.colors) == 2
    assert data.spec.background_label is None
    assert data.train.ids == ("a", "b", "c") and data.eval.ids == ("d", "e")
    assert data.train.shorter_side == 24
    assert data.messages == ()


def test_palette_indices_and_void_are_kept(folder, write_pair):
    _, _, expected = write_pair(folder, "a", "train", seed=5)
    split = load(folder).train
    np.testing.assert_array_equal(pixels(split.label_files[0]), expected)


def test_records_hold_the_same_as_the_files(folder, write_pair):
    write_pair(folder, "cc", "train", size=(40, 20), ending=".PNG")
    write_pair(folder, "cd", "train", ending=".bmp")
    split = load(folder).train
    examples = list(datasets.examples(split))
    assert (
        [e["id"].numpy().decode() for e in examples]
        == list(split.ids)
        == ["a", "b", "c", "cc", "cd"]
    )
    for example, image, label in zip(examples, split.image_files, split.label_files, strict=True):
        decoded = tf.io.decode_image(tf.io.read_file(image), channels=3)
        np.testing.assert_array_equal(example["image"], decoded)
        np.testing.assert_array_equal(example["label"], pixels(label))
        assert example["label"].dtype == tf.uint8 and example["label"].shape.rank == 2


def test_original_bytes_are_in_the_records(folder):
    split = load(folder).train
    skip = {"image": tfds.decode.SkipDecoding()}
    builder = tfds.builder_from_directory(split.records)
    raw = next(iter(builder.as_dataset(split="train", decoders=skip)))["image"].numpy()
    assert raw == (folder / "images" / "train" / "a.jpg").read_bytes()
    assert split.image_files[0] == str(folder / "images" / "train" / "a.jpg")


def test_images_that_tensorflow_cannot_decode_become_png(folder, write_pair):
    for name, ending in (("x", ".tif"), ("y", ".BMP")):
        file, _, _ = write_pair(folder, name, "train", ending=ending)
        split = load(folder).train
        image = split.image_files[split.ids.index(name)]
        assert image.endswith(".png")
        with Image.open(file) as original:
            np.testing.assert_array_equal(tf.io.decode_png(tf.io.read_file(image)), original)


@pytest.mark.parametrize("values", [(0, 1), (0, 1, 255)])
def test_gray_images_and_gray_masks(folder, write_pair, values):
    file, _, expected = write_pair(folder, "Z", "train", ending=".png", mode="L", values=values)
    Image.open(file).convert("L").save(file)
    split = load(folder).train
    example = next(iter(datasets.examples(split)))
    assert example["image"].shape == (24, 32, 3)
    np.testing.assert_array_equal(example["image"][..., 0], example["image"][..., 2])
    np.testing.assert_array_equal(example["label"], expected)


def test_one_bit_masks_hold_classes_0_and_1(folder, write_pair):
    _, mask, expected = write_pair(folder, "a", "train", values=(0, 1), mode="L")
    Image.fromarray(expected.astype(bool)).save(mask)
    np.testing.assert_array_equal(pixels(load(folder).train.label_files[0]), expected)


def test_background_class_and_colors(folder):
    (folder / "classes.txt").write_text("thing\nBackGround\n\n")
    (folder / "colors.txt").write_text("thing 1 2 3\nbackground 4 5 6\n")
    spec = load(folder).spec
    assert spec.background_label == 1
    assert spec.colors == ((1, 2, 3), (4, 5, 6))
    (folder / "colors.txt").write_text("thing 1 2 3\nbackground 4 5 256\n")
    fails(folder, "colors.txt", "2 lines", "0 to 255")


def test_the_parent_of_a_single_data_set_is_accepted(folder, tmp_path):
    outer = tmp_path / "outer"
    shutil.move(folder, outer / "mine")
    assert load(outer).train.num_images == 3
    shutil.copytree(outer / "mine", outer / "other")
    fails(outer, "several folders", "mine", "other")


def test_images_without_labels_are_counted_and_left_out_on_request(folder, write_pair):
    write_pair(folder, "b", "train", values=(255,))
    data = load(folder)
    assert data.train.has_labels == (True, False, True)
    assert data.messages[0].startswith("1 of 3 images of split 'train' have no labelled pixel")
    labelled = data.train.labelled()
    assert labelled.ids == ("a", "c") and labelled.num_images == 2
    assert [e["id"].numpy() for e in datasets.examples(labelled)] == [b"a", b"c"]
    assert labelled.labelled() == labelled


def test_a_train_split_of_void_masks_raises_an_error(folder, write_pair):
    for name in "abc":
        write_pair(folder, name, "train", values=(255,))
    fails(folder, "no mask of split 'train' has a labelled pixel")


# Splits


def flat(root, write_pair, names):
    for name in names:
        write_pair(root, name)
    (root / "classes.txt").write_text("ground\nthing\n")


def test_a_folder_without_splits_is_divided_by_a_hash(tmp_path, write_pair):
    names = [f"n{k}" for k in range(10)]
    flat(tmp_path, write_pair, names)
    data = load(tmp_path)
    by_hash = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert data.eval.ids == tuple(sorted(by_hash[:2])) == ("n2", "n8")  # the same for ever
    assert set(data.train.ids) == set(by_hash[2:])
    assert "no splits: its 10 images were divided" in data.messages[0]
    assert "8 for training and 2 for evaluation" in data.messages[0]


def test_two_images_are_divided_and_a_single_image_is_used_twice(tmp_path, write_pair):
    flat(tmp_path, write_pair, "ab")
    data = load(tmp_path)
    assert data.train.num_images == data.eval.num_images == 1
    (tmp_path / "images" / "a.jpg").unlink()
    (tmp_path / "masks" / "a.png").unlink()
    data = load(tmp_path)
    assert data.train.ids == data.eval.ids == ("b",)
    assert "Warning: there is one image only" in data.messages[0] and "b.jpg" in data.messages[0]


def test_one_split_of_any_name_is_divided(folder):
    shutil.rmtree(folder / "images" / "val")
    (folder / "images" / "train").rename(folder / "images" / "everything")
    (folder / "masks" / "train").rename(folder / "masks" / "everything")
    data = load(folder)
    assert {*data.train.ids, *data.eval.ids} == {"a", "b", "c"}
    assert "only one split, 'everything'" in data.messages[0]


def test_lists_select_and_order_images(folder, tmp_path, write_pair):
    flat(tmp_path / "flat", write_pair, "abcd")
    (tmp_path / "flat" / "train.txt").write_text("c\na\n\n")
    (tmp_path / "flat" / "val.txt").write_text("d\r\n")
    (tmp_path / "flat" / "README.txt").write_text("nothing of interest")
    data = load(tmp_path / "flat")
    assert data.train.ids == ("c", "a") and data.eval.ids == ("d",)
    assert [e["id"].numpy() for e in datasets.examples(data.train)] == [b"c", b"a"]
    (folder / "train.txt").write_text("b\n")  # within images/train
    assert load(folder).train.ids == ("b",)


def test_a_list_with_a_missing_image_raises_an_error(folder):
    (folder / "train.txt").write_text("a\nnowhere\n")
    fails(folder, "list without an image file: nowhere", "from the list")


def test_an_unknown_split_raises_an_error_with_the_existing_splits(folder):
    fails(folder, "No split 'trian'", "there are train, val", "mean 'train'", train_split="trian")
    (folder / "images" / "val").rename(folder / "images" / "test")
    (folder / "masks" / "val").rename(folder / "masks" / "test")
    fails(folder, "No split 'val'", "test, train", "eval_split")
    assert load(folder, eval_split="test").eval.ids == ("d", "e")


def test_one_split_for_training_and_evaluation_gives_a_message(folder):
    data = load(folder, eval_split="train")
    assert data.train == data.eval
    assert "both use split 'train'" in data.messages[0]


# Bad input


def test_missing_folders_and_classes_raise_an_error(folder, tmp_path):
    fails(None, "needs data_dir")
    fails(tmp_path / "nowhere", "is not a folder")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "there is no folder images/", "classes.txt")
    (folder / "classes.txt").write_text("one\none\n")
    fails(folder, "none twice")
    (folder / "classes.txt").unlink()
    shutil.rmtree(folder / "masks")
    fails(folder, "classes.txt is missing", "one class name per line")


def test_without_classes_the_values_of_the_masks_name_the_classes(folder):
    (folder / "classes.txt").unlink()
    data = load(folder)
    assert data.spec.class_names == ("class_0", "class_1")
    assert any("classes.txt with one name a line" in line for line in data.messages)


def test_a_split_without_images_raises_an_error(folder):
    for kind in ("images", "masks"):
        shutil.rmtree(folder / kind / "val")
        (folder / kind / "val").mkdir()
    fails(folder, "split without any pair of image and mask: 'val'", "eval_split")


def test_images_and_masks_without_a_partner_raise_an_error(folder):
    (folder / "masks" / "train" / "b.png").unlink()
    (folder / "images" / "train" / "c.jpg").unlink()
    fails(folder, "1 x image without a mask", "b.jpg", "1 x mask without an image", "c.png")


def test_unknown_endings_and_repeated_names_raise_an_error(folder, write_pair):
    (folder / "images" / "train" / "notes.gif").write_bytes(b"")
    (folder / "images" / "train" / ".DS_Store").write_bytes(b"")
    write_pair(folder, "a", "train", ending=".png")
    message = fails(folder, "notes.gif", ".jpg .jpeg .png", "two files of one name", "a.jpg")
    assert "DS_Store" not in message


def test_up_to_ten_pairs_of_different_sizes_are_listed(folder, write_pair):
    for k in range(12):
        _, mask, _ = write_pair(folder, f"z{k:02d}", "train")
        Image.fromarray(np.zeros((32, 24), np.uint8)).save(mask)
    message = fails(
        folder, "12 x image and mask of different size", "(24x32 and 32x24)", "and 2 more"
    )
    assert "z09" in message and "z10" not in message


@pytest.mark.parametrize(
    ("num_classes", "values", "message"),
    [
        (19, (0, 19, 33), "19 to 33 seen where 0 to 18 and 255 (void) are allowed"),
        (19, (0, 19, 33), "labelIds. Use masks with trainIds"),
        (2, (1, 2), "2 seen where 0 to 1"),
        (2, (1, 2, 255), "start at 1"),
        (2, (0, 2), "Correct the masks or the list of classes"),
    ],
)
def test_values_outside_the_classes_raise_an_error(
    tmp_path, write_pair, num_classes, values, message
):
    for split in ("train", "val"):
        write_pair(tmp_path, split + "_image", split, values=values)
    (tmp_path / "classes.txt").write_text("\n".join(f"class{k}" for k in range(num_classes)))
    fails(tmp_path, message, "train_image.png", "val_image.png")


@pytest.fixture
def binary(folder, write_pair):
    """Return a data set whose masks hold 0 and 255 only."""
    for split, names in (("train", "abc"), ("val", "de")):
        for name in names:
            write_pair(folder, name, split, values=(0, 255), mode="L")
    return folder


def test_masks_of_0_and_255_of_two_classes_are_read_as_these_classes(binary, write_pair):
    for _ in range(2):  # the second load reads the cache
        data = load(binary)
        assert "0 = 'ground' and 255 = 'thing'" in data.messages[0]
        for split in (data.train, data.eval):
            for name, label in zip(split.ids, split.label_files, strict=True):
                with Image.open(binary / "masks" / split.name / f"{name}.png") as mask:
                    np.testing.assert_array_equal(pixels(label), np.asarray(mask) // 255)
    _, _, expected = write_pair(binary, "a", "train", values=(0, 1, 255))
    data = load(binary)  # a pixel of value 1 shows that 255 is void
    assert len(data.messages) == 1 and "older copies" in data.messages[0]
    np.testing.assert_array_equal(pixels(data.train.label_files[0]), expected)


def test_masks_of_0_and_255_of_three_classes_are_refused_as_binary(binary):
    (binary / "classes.txt").write_text("ground\nthing\nstuff\n")
    fails(binary, "0 and 255 only: a binary mask?", "Write 1 instead of 255")


@pytest.mark.parametrize("values", [(0, 1), (0, 255)])
def test_one_class_is_refused_and_the_advice_works(folder, write_pair, values):
    for split, names in (("train", "abc"), ("val", "de")):
        for name in names:
            write_pair(folder, name, split, values=values, mode="L")
    (folder / "classes.txt").write_text("building\n")
    fails(folder, "holds one class, 'building'", "'background' as line 1")
    (folder / "classes.txt").write_text("background\nbuilding\n")
    data = load(folder)
    assert data.spec.background_label == 0
    assert {*pixels(data.train.label_files[0]).flat} == {0, 1}


def test_binary_masks_of_another_white_get_advice_on_the_second_class(folder):
    for file in folder.glob("masks/*/*"):
        Image.fromarray(np.full((24, 32), 0, np.uint8)).save(file)
        rewrite(file, lambda v: np.where(np.eye(24, 32), 200, v).astype(np.uint8))
    fails(folder, "If 200 means 'thing': write 1 instead", "void_value=200")


def test_color_masks_and_jpeg_masks_are_refused(folder):
    Image.new("RGB", (32, 24), (0, 0, 1)).save(folder / "masks" / "train" / "a.png")
    Image.new("L", (32, 24)).save(folder / "masks" / "train" / "b.png", format="JPEG")
    fails(folder, "holds colors", "color table", "a.png", "lossy compression", "b.png")


def test_deep_gray_images_are_refused(folder, write_pair):
    file, _, _ = write_pair(folder, "dd", "train", ending=".png")
    Image.fromarray(np.full((24, 32), 3000, np.uint16)).save(file)
    fails(folder, "more than 8 bits per value", "dd.png", "save it as 8 bits")


def test_deep_colors_are_refused(folder, write_pair):
    file, _, _ = write_pair(folder, "dd", "train", ending=".png")
    deep = tf.io.encode_png(tf.fill([24, 32, 3], tf.constant(3000, tf.uint16)))
    file.write_bytes(deep.numpy())
    fails(folder, "more than 8 bits per value", "dd.png")


@pytest.mark.parametrize("damage", ["half", "tail", "text", "empty"])
def test_unreadable_images_are_listed_counted_and_left_out_on_request(folder, cache, damage):
    file = folder / "images" / "train" / "b.jpg"
    content = file.read_bytes()
    new = {"half": content[: len(content) // 2], "tail": content[:-20], "text": b"no", "empty": b""}
    file.write_bytes(new[damage])
    fails(folder, "1 unreadable, 0 tolerated", file, "max_unreadable")
    assert not list(cache.glob("folder/*/*"))  # nothing is left behind
    data = load(folder, max_unreadable=1)
    assert data.train.ids == ("a", "c")
    assert "Left out 1 unreadable" in data.messages[0] and str(file) in data.messages[0]
    fails(
        folder, "1 unreadable, 0 tolerated", file
    )  # the records that are there now do not hide it


def test_a_png_that_only_tensorflow_finds_truncated_is_unreadable(folder, write_pair):
    file, _, _ = write_pair(folder, "f", "train", ending=".png")
    file.write_bytes(file.read_bytes()[:-8])
    Image.open(file).load()
    fails(folder, "1 unreadable", "f.png", "TensorFlow cannot decode it")


def test_a_split_of_unreadable_masks_raises_an_error(folder):
    for name in "de":
        (folder / "masks" / "val" / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    fails(folder, "2 unreadable, 0 tolerated", "d.png", "e.png")
    fails(folder, "'val' has no readable image", max_unreadable=2)


def test_split_names_with_special_characters_are_refused(folder):
    for kind in ("images", "masks"):
        (folder / kind / "train").rename(folder / kind / "my-train")
    fails(folder, "cannot be called 'my-train'", train_split="my-train")


# CamVid, a config of it


def test_camvid_is_found_in_its_parent_and_keeps_its_facts(tmp_path, write_pair):
    for split in ("train", "val"):
        write_pair(tmp_path / "camvid", "one_" + split, split, values=(0, 10, 255))
    data = datasets.load("camvid", tmp_path)
    assert data == datasets.load("camvid", tmp_path / "camvid")
    assert data.spec.num_classes == 11 and data.spec.background_label is None
    assert data.spec.colors[data.spec.class_names.index("car")] == (64, 0, 128)
    (tmp_path / "camvid" / "classes.txt").write_text("car\nsky\n")
    with pytest.raises(datasets.DatasetError, match="CamVid's 11 classes"):
        datasets.load("camvid", tmp_path)
    with pytest.raises(datasets.DatasetError, match="No CamVid in"):
        datasets.load("camvid", tmp_path / "camvid" / "masks")


# Void, colors, lists and layouts


def rewrite(file, change):
    """Replace a mask by `change` of its values; return the old values."""
    with Image.open(file) as mask:
        values = np.asarray(mask).copy()
    Image.fromarray(change(values)).save(file)
    return values


def test_with_void_value_0_the_classes_start_at_1(folder):
    shift = np.array([1, 2] + [0] * 254, np.uint8)  # 0, 1, 255 -> 1, 2, 0
    expected = [rewrite(file, shift.take) for file in sorted(folder.glob("masks/train/*"))]
    for file in folder.glob("masks/val/*"):
        rewrite(file, shift.take)
    fails(folder, "2 seen where 0 to 1 and 255", "If 0 means void")
    split = load(folder, void_value=0).train
    for label, pixels_ in zip(split.label_files, expected, strict=True):
        np.testing.assert_array_equal(pixels(label), pixels_)


def test_void_value_is_part_of_the_cache_key(folder):
    first = load(folder, void_value=254)
    second = load(folder, void_value=1)  # class 1 becomes void: every class moves
    assert first.train.records != second.train.records
    assert {0, 255} == set(pixels(second.train.label_files[0]).flat)


def test_a_class_called_void_and_void_value_cannot_be_combined(folder):
    (folder / "classes.txt").write_text("Void\nground\nthing\n")
    with pytest.raises(datasets.DatasetError, match="names 'Void', but void_value=0"):
        load(folder, void_value=0)
    assert load(folder).spec.num_classes == 3
    with pytest.raises(datasets.DatasetError, match="void_value=0 is for data set 'folder'"):
        datasets.load("camvid", folder, void_value=0)


def test_color_masks_are_decoded_with_a_table(folder):
    (folder / "colors.txt").write_text("thing 9 0 0\nvoid 0 0 0\nground 0 9 0\n")
    table = np.zeros((256, 3), np.uint8)
    table[0], table[1] = (0, 9, 0), (9, 0, 0)
    expected = [rewrite(f, lambda v: table[v]) for f in sorted(folder.glob("masks/train/*"))]
    split = load(folder).train
    assert load(folder).spec.colors == ((0, 9, 0), (9, 0, 0))
    for label, pixels_ in zip(split.label_files, expected, strict=True):
        np.testing.assert_array_equal(pixels(label), pixels_)
    table[0] = (0, 10, 0)
    rewrite(folder / "masks" / "val" / "d.png", lambda v: table[v])
    fails(folder, "not in the color table", "closest is 'ground' (0, 9, 0)", "d.png")


@pytest.mark.parametrize(
    ("values", "message"), [((0, 1), "saved as colors"), ((0, 255), "a line 'void red green blue'")]
)
def test_gray_colors_without_a_line_get_matching_advice(folder, values, message):
    (folder / "colors.txt").write_text("thing 9 0 0\nground 0 9 0\n")
    for file in folder.glob("masks/*/*"):
        rewrite(file, lambda v: np.repeat(np.array(values, np.uint8)[v % 2][..., None], 3, axis=2))
    fails(folder, "not in the color table", message)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("ground 1 2 3\nthing 1 2 3\n", "the color (1, 2, 3) twice"),
        ("ground 1 2 3\nstuff 4 5 6\n", "one for each name in classes.txt"),
        ("ground 1 2 3\nthing 4 5 6\nstuff 7 8 9\n", "such lines of 3"),
        ("ground 1 2 3\nthing 4 5\n", "such lines of 2"),
    ],
)
def test_wrong_color_tables_raise_an_error(folder, lines, message):
    (folder / "colors.txt").write_text(lines)
    fails(folder, "colors.txt", message)


@pytest.mark.parametrize("name", ["colors.txt", "colours.txt"])
def test_both_spellings_of_the_color_table_are_read(folder, name):
    (folder / name).write_text("thing 9 0 0\nground 0 9 0\n")
    data = load(folder)
    assert data.spec.colors == ((0, 9, 0), (9, 0, 0))
    assert {data.train.name, data.eval.name} == {"train", "val"}  # the table is no list of a split


def test_two_color_tables_are_refused(folder):
    for name in ("colors.txt", "colours.txt"):
        (folder / name).write_text("thing 9 0 0\nground 0 9 0\n")
    fails(folder, "holds colors.txt and colours.txt", "remove one")


@pytest.mark.parametrize("place", [".", "ImageSets", "ImageSets/Segmentation"])
def test_the_layout_of_the_voc_kit_is_accepted(tmp_path, write_pair, place):
    flat(tmp_path, write_pair, "abcd")
    (tmp_path / "images").rename(tmp_path / "JPEGImages")
    (tmp_path / "masks").rename(tmp_path / "SegmentationClass")
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "train.txt").write_text("c.jpg\na\n")  # an ending is no harm
    (tmp_path / place / "val.txt").write_text("b\n")
    data = load(tmp_path)
    assert data.train.ids == ("c", "a") and data.eval.ids == ("b",)


def test_lists_of_image_and_mask_paths_are_read(tmp_path, write_pair):
    for folder, names in (("one", "ab"), ("two", "ac")):
        for name in names:
            write_pair(tmp_path / folder, name, seed=len(folder + name))
    (tmp_path / "classes.txt").write_text("ground\nthing\n")
    (tmp_path / "train.txt").write_text(
        "/one/images/b.jpg /one/masks/b.png\none/images/a.jpg  one/masks/a.png\n\n"
    )
    (tmp_path / "val.txt").write_text(
        "two/images/a.jpg two/masks/a.png\none/images/a.jpg one/masks/a.png\n"
    )
    data = load(tmp_path)
    assert data.train.ids == ("b", "a")
    assert data.eval.ids == ("two_images_a", "one_images_a")  # two of one name
    with Image.open(tmp_path / "two" / "masks" / "a.png") as mask:
        np.testing.assert_array_equal(pixels(data.eval.label_files[0]), mask)
    (tmp_path / "val.txt").write_text("two/images/a.jpg two/masks/x.png\nb.jpg b.png\n")
    fails(tmp_path, "3 x line 'image mask' of a list that names a missing file", "x.png")
    (tmp_path / "val.txt").write_text("two/images/a.jpg two/masks/a.png\nb\n")
    fails(tmp_path, "1 lines 'image mask' and others: b.")
    line = "two/images/a.jpg two/masks/{}.png\n"
    (tmp_path / "val.txt").write_text(line.format("a") + line.format("c"))
    fails(tmp_path, "two files of one name", "two/images/a.jpg")


def test_a_line_of_two_words_that_are_no_files_is_a_name(folder):
    (folder / "train.txt").write_text("b  1\na -1\n")  # as in the lists of VOC's other tasks
    assert load(folder).train.ids == ("b", "a")


def test_only_the_test_split_may_have_no_masks(folder):
    shutil.copytree(folder / "images" / "val", folder / "images" / "test")
    data = load(folder, eval_split="test")
    assert data.train.ids == ("a", "b", "c")
    assert data.eval.ids == ("d", "e") and not data.eval.is_labelled
    assert data.eval.labelled().num_images == 0
    (folder / "images" / "test").rename(folder / "images" / "other")
    fails(folder, "masks/other is missing", eval_split="other")


@pytest.mark.parametrize("has_train_folder", [False, True])
def test_unlabelled_test_images_do_not_change_the_training_images(
    tmp_path, write_pair, has_train_folder
):
    """Images to predict do not change the training split."""
    for name in "abcdefg":
        write_pair(tmp_path, name, "train" if has_train_folder else "")
    (tmp_path / "classes.txt").write_text("ground\nthing\n")
    before = load(tmp_path)
    write_pair(tmp_path / "other", "new", "test")
    (tmp_path / "other" / "images" / "test").rename(tmp_path / "images" / "test")
    after, predicted = load(tmp_path), load(tmp_path, eval_split="test")
    assert before.train.ids == after.train.ids == predicted.train.ids
    assert before.eval.ids == after.eval.ids and len(after.eval.ids) == 1
    assert before.train.checksums == predicted.train.checksums
    assert predicted.eval.ids == ("new",) and not predicted.eval.is_labelled
    fails(tmp_path, "No split 'nowhere'", "test, train, val", eval_split="nowhere")


def test_a_labelled_test_split_keeps_the_whole_train_split(folder):
    for kind in ("images", "masks"):
        (folder / kind / "val").rename(folder / kind / "test")
    fails(folder, "No split 'val'")
    assert load(folder, eval_split="test").train.ids == ("a", "b", "c")


def test_checksums_change_with_the_files(folder, write_pair):
    before = load(folder)
    again = load(folder)
    assert before.train.checksums == again.train.checksums and len(set(again.train.checksums)) == 3
    rewrite(folder / "masks" / "train" / "b.png", lambda v: 1 - v % 2)
    after = load(folder)
    same = [a == b for a, b in zip(before.train.checksums, after.train.checksums, strict=True)]
    assert same == [True, False, True] and before.eval.checksums == after.eval.checksums
    assert after.train.take([1]).checksums == after.train.checksums[1:2]


def test_a_test_split_cannot_be_trained_on(folder):
    (folder / "images" / "train").rename(folder / "images" / "test")
    fails(folder, "no mask of split 'test' has a labelled pixel", train_split="test")


def test_an_image_rotated_by_its_exif_data_is_turned_to_fit_its_mask(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = folder / "images" / "train" / "a.jpg"
    Image.new("RGB", (24, 32)).save(file, exif=exif)  # its mask is 24 high and 32 wide
    data = load(folder)
    assert (
        "1 images were turned by their EXIF data" in data.messages[0]
        and "a.jpg" in (data.messages[0])
    )
    assert tf.io.decode_png(tf.io.read_file(data.train.image_files[0])).shape == (24, 32, 3)


def test_faults_of_a_mask_are_reported_if_its_image_is_damaged(folder):
    (folder / "images" / "train" / "a.jpg").write_bytes(b"no")
    Image.new("L", (32, 24), 9).save(folder / "masks" / "train" / "a.png")
    fails(folder, "outside the classes, 9 seen", "masks/train/a.png")


def test_value_11_is_void_in_camvid_masks_of_segnet(tmp_path, write_pair):
    for split in ("train", "val"):
        write_pair(tmp_path, "one_" + split, split, values=(0, 10, 11))
    label = next(iter(datasets.examples(datasets.load("camvid", tmp_path).train)))["label"].numpy()
    assert set(label.flat) == {0, 10, 255}


# Files and folders beside the data


def test_images_beside_a_single_split_folder_are_the_training_images(folder, write_pair):
    shutil.rmtree(folder / "images" / "train")
    shutil.rmtree(folder / "masks" / "train")
    for name in "wxyz":
        write_pair(folder, name)
    data = load(folder)
    assert data.train.ids == ("w", "x", "y", "z") and data.eval.ids == ("d", "e")
    assert "4 images lie beside the split folders" in data.messages[0]
    assert "split 'train'" in data.messages[0]


def test_images_beside_both_split_folders_are_counted_and_named(folder, write_pair):
    write_pair(folder, "x")
    data = load(folder)
    assert data.train.ids == ("a", "b", "c")
    assert "1 images lie beside" in data.messages[0] and "not used: x.jpg" in data.messages[0]


@pytest.mark.parametrize(
    "name", ["@eaDir", ".ipynb_checkpoints", "__MACOSX", ".git", "empty", "notes"]
)
def test_system_folders_and_folders_without_images_are_no_splits(tmp_path, write_pair, name):
    flat(tmp_path / "flat", write_pair, "abcde")
    expected = load(tmp_path / "flat")
    inner = tmp_path / "flat" / "images" / name
    inner.mkdir()
    if name == "@eaDir":
        shutil.copy(tmp_path / "flat" / "images" / "a.jpg", inner)
    if name == "notes":
        (inner / "a.md").write_text("")
    (tmp_path / "flat" / "images" / "Thumbs.db").write_bytes(b"\0")
    (tmp_path / "flat" / "masks" / "desktop.ini").write_bytes(b"\0")
    (tmp_path / "flat" / "masks" / "._a.png").write_bytes(b"\0")
    data = load(tmp_path / "flat")
    assert data.train.ids == expected.train.ids and "no splits" in data.messages[0]


def test_images_of_nested_folders_are_named_and_the_advice_works(folder):
    for kind in ("images", "masks"):
        (folder / kind / "train" / "city").mkdir()
        for file in (folder / kind / "train").glob("[ab].*"):
            file.rename(file.parent / "city" / file.name)
    data = load(folder)
    assert data.train.ids == ("c",)
    assert "2 images in folders below" in data.messages[0] and "city" in data.messages[0]
    for file in (folder / "images/train/c.jpg", folder / "masks/train/c.png"):
        file.unlink()
    fails(folder, "split without any pair", "below the folder of a split", "train/city")
    lines = [f"images/train/city/{n}.jpg masks/train/city/{n}.png\n" for n in "ab"]
    (folder / "train.txt").write_text("".join(lines))
    assert load(folder).train.ids == ("a", "b")


@pytest.mark.parametrize("has_classes", [False, True])
def test_outer_split_folders_are_splits(folder, tmp_path, has_classes):
    root = tmp_path / "outer"
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            shutil.copytree(folder / kind / split, root / split / kind)
    if has_classes:
        shutil.copy(folder / "classes.txt", root)
    data = load(root)
    assert data.train.ids == ("a", "b", "c") and data.eval.ids == ("d", "e")
    expected = ("ground", "thing") if has_classes else ("class_0", "class_1")
    assert data.spec.class_names == expected


# Text files


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1252"])
def test_classes_and_lists_are_read_in_usual_encodings(folder, encoding):
    (folder / "classes.txt").write_bytes("Straße\r\nWälder\r\n".encode(encoding))
    (folder / "colors.txt").write_bytes("Straße 1 2 3\r\nwälder 3 4 5\r\n".encode(encoding))
    (folder / "train.txt").write_bytes("b\r\na\r\n".encode(encoding))
    data = load(folder)
    assert data.spec.class_names == ("Straße", "Wälder") and data.train.ids == ("b", "a")
    messages = [line for line in data.messages if "cp1252" in line]
    assert len(messages) == (encoding == "cp1252")
    assert not messages or ("classes.txt" in messages[0] and "'Straße'" in messages[0])


@pytest.mark.parametrize("content", [b"a\0b\n", b"\xff\xfea", b"\x81\x8d\n"])
def test_a_list_of_classes_that_is_no_text_is_named(folder, content):
    (folder / "classes.txt").write_bytes(content)
    fails(folder, folder / "classes.txt", "not a text in UTF-8 or UTF-16")


@pytest.mark.parametrize("make", ["bytes", "folder", "link", "fifo", "device"])
def test_unrelated_text_files_never_stop_a_run(folder, make):
    file = folder / "notes.txt"
    if make == "bytes":
        file.write_bytes(b"\xff\xfe\x81\x8d\0")
    elif make == "folder":
        file.mkdir()
    elif make == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero" if make == "device" else "nowhere")
    assert load(folder).messages == ()
    if make != "bytes":
        file.rename(folder / "train.txt")
        fails(folder, "train.txt", "cannot be read", "link to a missing" if make == "link" else "")


def test_a_folder_in_place_of_the_classes_gives_one_sentence(folder):
    (folder / "classes.txt").unlink()
    (folder / "classes.txt").mkdir()
    fails(folder, "classes.txt cannot be read: not a regular file")


def test_names_of_labelme_are_recognized(folder):
    expected = pixels(load(folder).train.label_files[0])
    (folder / "classes.txt").write_text("__ignore__\n_background_\nthing\n")
    data = load(folder)
    assert data.spec.class_names == ("_background_", "thing")
    assert data.spec.background_label == 0
    assert "means void (255), as in labelme" in data.messages[0]
    np.testing.assert_array_equal(pixels(data.train.label_files[0]), expected)
    (folder / "classes.txt").write_text("_background_\nthing\n__ignore__\n")
    fails(folder, "'__ignore__' in another line than the first")


def test_names_of_classes_with_control_characters_are_refused(folder):
    (folder / "classes.txt").write_text("ground\nthing\x1b[2J\n")
    assert "\x1b" not in fails(folder, "control characters", "\\x1b[2J")


# Names


def test_lists_may_hold_blanks_folders_and_endings(tmp_path, write_pair):
    flat(tmp_path, write_pair, ["my photo", "my", "b", "c 1"])
    (tmp_path / "train.txt").write_text("my photo.jpg\nimages/b.jpg 1\n")
    (tmp_path / "val.txt").write_text("c 1\nmy -1\n")
    data = load(tmp_path)
    assert data.train.ids == ("my photo", "b") and data.eval.ids == ("c 1", "my")


def test_lists_of_paths_may_hold_blanks(tmp_path, write_pair):
    for name in ("my photo", "b"):
        write_pair(tmp_path / "one more", name)
    (tmp_path / "classes.txt").write_text("ground\nthing\n")
    for split, name in (("train", "my photo"), ("val", "b")):
        line = f"one more/images/{name}.jpg one more/masks/{name}.png\n"
        (tmp_path / f"{split}.txt").write_text(line)
    data = load(tmp_path)
    assert data.train.ids == ("my photo",) and data.eval.ids == ("b",)


def test_a_list_that_names_files_outside_of_the_folder_is_refused(folder, tmp_path, write_pair):
    write_pair(tmp_path / "other", "x")
    (folder / "train.txt").write_text("../other/images/x.jpg ../other/masks/x.png\n")
    fails(folder, "2 x line 'image mask' of a list that names a file outside", "other/masks/x.png")


def test_names_in_both_unicode_forms_are_pairs(folder, write_pair):
    image, mask, _ = write_pair(folder, "caf\u00e9", "train")
    image.rename(image.with_name("cafe\u0301.jpg"))
    data = load(folder)
    assert data.train.ids == ("a", "b", "c", "cafe\u0301")
    (folder / "train.txt").write_text("caf\u00e9\na\n")
    assert load(folder).train.ids == ("cafe\u0301", "a")
    (folder / "train.txt").unlink()
    mask.with_name("cafe\u0301.png").write_bytes(mask.read_bytes())
    fails(folder, "two files of one name")


@pytest.mark.parametrize("name", ["a[1]", "*", "100%", "{0}", "a b", "#x"])
def test_names_with_special_characters_are_read(folder, write_pair, name):
    _, _, expected = write_pair(folder, name, "train")
    split = load(folder).train
    label = split.label_files[split.ids.index(name)]
    np.testing.assert_array_equal(pixels(label), expected)
    assert len(list(datasets.examples(split))) == 4


def test_a_name_that_is_not_utf8_is_refused_with_its_bytes(folder, write_pair):
    image, _, _ = write_pair(folder, "x", "train")
    image.rename(image.with_name(os.fsdecode(b"caf\xe9.jpg")))
    fails(folder, "name is not valid UTF-8", r"caf\udce9.jpg", "convmv")


def test_control_characters_of_names_are_escaped_in_messages(folder):
    (folder / "images" / "train" / "x\x1b[2J\ny.jpg").write_bytes(b"no")
    message = fails(folder, r"x\x1b[2J\ny.jpg")
    assert "\x1b" not in message


def test_an_unreadable_folder_gives_one_sentence(folder, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(pathlib.Path, "iterdir", refuse)
    fails(folder, "data cannot be read: Permission denied")


@pytest.mark.parametrize(
    ("void_value", "stored", "expected"),
    [(255, (0, 1), (0, 1)), (0, (1, 2), (1, 2)), (1, (0, 2), (0, 2))],
)
def test_the_values_of_the_masks_are_kept_for_predictions(
    tmp_path, monkeypatch, void_value, stored, expected
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "records"))
    root = tmp_path / "data"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    (root / "classes.txt").write_text("thing\nstuff\n")
    rng = np.random.default_rng(0)
    for k in range(2):
        Image.fromarray(rng.integers(0, 256, (8, 9, 3), "uint8")).save(root / f"images/{k}.png")
        mask = rng.choice([*stored, void_value], (8, 9)).astype("uint8")
        Image.fromarray(mask).save(root / f"masks/{k}.png")
    spec = datasets.load("folder", data_dir=root, void_value=void_value).spec
    assert spec.mask_values == expected


def test_pictures_of_an_export_are_refused_beside_our_own_layout(folder):
    with pytest.raises(datasets.DatasetError, match="images=pictures names the pictures"):
        datasets.load("folder", folder, reading=datasets.Reading(images="pictures"))
