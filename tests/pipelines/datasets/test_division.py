"""Usual names of splits, and the division of images that keeps augmented copies together."""

import pytest

from pipelines import datasets
from pipelines.datasets import division


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Train", "train"),
        ("training", "train"),
        ("valid", "val"),
        ("Validation", "val"),
        ("val2017", "val"),
        ("testing", "test"),
        ("default", None),
        ("trainer", None),
        (None, None),
    ],
)
def test_usual_names_of_splits(name, expected):
    assert division.usual_split(name) == expected


def test_a_fifth_of_the_pictures_is_for_evaluation_and_the_choice_depends_on_names_only():
    names = [f"picture{k}" for k in range(50)]
    train, evaluation = division.divided(names, names)
    assert len(train) == 40 and len(evaluation) == 10
    again = division.divided(names[::-1], names[::-1])
    assert set(again[1]) == set(evaluation)


def test_augmented_copies_of_a_picture_fall_into_one_part():
    names = [f"picture{k}_jpg.rf.{copy:032x}" for k in range(20) for copy in range(3)]
    train, evaluation = (
        {division.source_picture(name) for name in part} for part in division.divided(names, names)
    )
    assert len(evaluation) == 4 and not train & evaluation


def test_copies_of_one_picture_cannot_be_divided():
    names = ["a_jpg.rf.01", "a_jpg.rf.02"]
    with pytest.raises(datasets.DatasetError, match="one image only"):
        division.divided(names, names)


def test_a_copy_of_a_held_out_picture_is_not_trained_on():
    ids = tuple(f"p{k}_jpg.rf.{copy}" for k in range(4) for copy in "ab")
    files = tuple(f"{name}.jpg" for name in ids)
    split = datasets.Split("train", ids, files, files, (True,) * 8, 90)
    spec = datasets.DatasetSpec("folder", ("a", "b"), ((0, 0, 0), (1, 1, 1)), None, "ours")
    data = datasets.select(datasets.Dataset(spec, split, split, ()), holdout=2)
    trained, held = (
        {division.source_picture(name) for name in part.ids} for part in (data.train, data.eval)
    )
    assert data.eval.num_images == 2 and trained and not trained & held
