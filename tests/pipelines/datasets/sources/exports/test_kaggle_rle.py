"""Kaggle's run-length tables, by hand-computed masks, and their damaged forms."""

import numpy as np
import pytest
from PIL import Image

from pipelines import datasets
from pipelines.datasets.sources.exports import run_lengths

# An image of 3 rows and 4 columns: pixel 1 is (0, 0), pixel 2 is (1, 0), pixel 4 is (0, 1).
SIZE = (3, 4)


@pytest.fixture
def pictures(tmp_path):
    """Four pictures a.jpg to d.jpg of 3 rows and 4 columns, in train_images/."""
    (tmp_path / "train_images").mkdir()
    for name in "abcd":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "train_images" / f"{name}.png")
    return tmp_path


def labels(root, text, name="train.csv", **reading):
    """Write a table, load the data set, and return {name: label map as a list} and the names."""
    (root / name).write_text(text)
    data = datasets.load("folder", root, reading=datasets.Reading(**reading))
    found = {}
    for split in (data.train, data.eval):
        for image_id, file in zip(split.ids, split.label_files, strict=True):
            found[image_id[-1]] = np.asarray(Image.open(file)).tolist()
    return found, data


def test_runs_go_down_the_columns_and_count_from_one(pictures):
    found, data = labels(
        pictures,
        "ImageId,ClassId,EncodedPixels\na.png,2,1 2 12 1\na.png,10,4 3\nb.png,2,6 2\n"
        "c.png,10,\nd.png,2,1 12\n",
    )
    assert data.spec.class_names == ("background", "class_2", "class_10")
    assert found == {
        "a": [[1, 2, 0, 0], [1, 2, 0, 0], [0, 2, 0, 1]],
        "b": [[0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]],
        "c": [[0] * 4] * 3,
        "d": [[1] * 4] * 3,
    }
    assert any("Kaggle run-length CSV" in line for line in data.messages)
    assert any("train.csv" in line for line in data.messages)


@pytest.mark.parametrize("head", ["ImageId,EncodedPixels", "img,rle_mask", "id, rle_mask"])
@pytest.mark.parametrize("nothing", ["", "-1", "nan"])
def test_a_table_without_classes_has_one_object_class(pictures, head, nothing):
    text = f"{head}\na.png,1 1\na.png,3 1\nb,2 1\nc.png,{nothing}\nd.png,4 1\n"
    found, data = labels(pictures, text)
    assert data.spec.class_names == ("background", "object")
    assert found["a"] == [[1, 0, 0, 0], [0] * 4, [1, 0, 0, 0]]
    assert found["b"][1][0] == 1 and found["c"] == [[0] * 4] * 3


@pytest.mark.parametrize("head", ["Image_Label,EncodedPixels", "ImageId_ClassId,EncodedPixels"])
def test_image_and_class_in_one_column_are_separated(pictures, head):
    rows = "".join(f"{name}.png_Fish,1 1\n{name}.png_Sugar,\n" for name in "abcd")
    found, data = labels(pictures, f"{head}\n{rows}")
    assert data.spec.class_names == ("background", "Fish", "Sugar")
    assert found["a"][0] == [1, 0, 0, 0]


def test_the_smaller_object_is_on_top(pictures):
    rows = "".join(f"{name}.png,1,1 3\n{name}.png,2,1 12\n" for name in "abcd")
    found, _ = labels(pictures, f"ImageId,ClassId,EncodedPixels\n{rows}")
    assert found["a"] == [[1, 2, 2, 2]] * 3


def test_unlabelled_pixels_can_be_void(pictures):
    rows = "".join(f"{name}.png,ox,1 1\n{name}.png,cow,4 1\n" for name in "abcd")
    found, data = labels(pictures, f"ImageId,Class,EncodedPixels\n{rows}", unlabelled="void")
    assert data.spec.class_names == ("cow", "ox") and found["a"][0] == [1, 0, 255, 255]


def test_pictures_that_are_not_here_are_counted(pictures):
    rows = "".join(f"{name}.png,1 1\n" for name in "abcdefg")
    found, data = labels(pictures, f"ImageId,EncodedPixels\n{rows}")
    assert sorted(found) == list("abcd")
    assert any("image that is not here" in line and "3 x" in line for line in data.messages)


def test_an_example_of_a_submission_is_no_table(pictures):
    (pictures / "sample_submission.csv").write_text("ImageId,EncodedPixels\nx.png,1 1\n")
    rows = "".join(f"{name}.png,1 1\n" for name in "abcd")
    found, _ = labels(pictures, f"ImageId,EncodedPixels\n{rows}")
    assert sorted(found) == list("abcd")


@pytest.mark.parametrize(
    "pixels, problem",
    [
        ("1 2 3", "no pairs of start and length"),
        ("0 2", "no pairs of start and length"),
        ("5 -2", "no pairs of start and length"),
        ("12 2", "beyond an image of 3x4"),
        ("1 99999999999999999999", "no whole numbers"),
        ("1 9223372036854775807", "beyond an image of 3x4"),
        ("abc", "no whole numbers"),
        ("4 3 5 2", "relative starts are not read"),
    ],
)
def test_damaged_runs_are_named(pictures, pixels, problem):
    with pytest.raises(datasets.DatasetError, match=problem):
        labels(pictures, f"ImageId,EncodedPixels\na.png,{pixels}\nb.png,1 1\nc.png,1 1\n")
    with pytest.raises(ValueError, match=problem):
        run_lengths.kaggle(pixels, SIZE)


def test_a_row_that_is_cut_short_is_named(pictures):
    with pytest.raises(datasets.DatasetError, match="1 cells in row 3, and 2 in the first row"):
        labels(pictures, "ImageId,EncodedPixels\na.png,1 1\nb.png\n")


def test_a_table_without_rows_is_refused(pictures):
    with pytest.raises(datasets.DatasetError):
        labels(pictures, "ImageId,EncodedPixels\n")


def test_a_mask_of_one_long_run_is_read():
    found = run_lengths.kaggle("2 999998", (1000, 1000))
    assert found.sum() == 999_998 and not found[0, 0] and not found[-1, -1]
