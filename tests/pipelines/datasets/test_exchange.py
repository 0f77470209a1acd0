"""Images change sides until each class of the evaluation is trained on."""

import numpy as np
import pytest
from PIL import Image

from pipelines import datasets
from pipelines.datasets import audit, exchange


def classes_of(names, classes):
    return {k for name in names for k in classes[name]}


def apply(train, evaluation, found):
    train = ({*train} | {*found.to_train}) - {*found.to_evaluation}
    return train, ({*evaluation} | {*found.to_evaluation}) - {*found.to_train}


def test_no_class_is_left_to_the_evaluation_on_random_images():
    rng = np.random.default_rng(0)
    num_moved = 0
    for _ in range(200):
        names = [f"image{k}" for k in range(rng.integers(2, 20))]
        classes = {name: set(rng.integers(0, 12, rng.integers(0, 4)).tolist()) for name in names}
        split = rng.integers(1, len(names))
        found = exchange.moves(names[:split], names[split:], classes)
        train, evaluation = apply(names[:split], names[split:], found)
        assert train | evaluation == {*names} and not train & evaluation and evaluation
        left = classes_of(evaluation, classes) - classes_of(train, classes)
        assert not left or len(evaluation) == 1
        assert classes_of(names[:split], classes) <= classes_of(train, classes)
        assert len(evaluation) <= len(names) - split
        num_moved += len(found.to_train)
    assert num_moved > 100


@pytest.mark.parametrize(
    ("train", "evaluation", "classes", "expected"),
    [
        ("a", "b", {"a": [0], "b": [0]}, ((), ())),
        ("a", "b", {"a": [0], "b": [1]}, ((), ())),  # no image can come in return
        ("ab", "c", {"a": [], "b": [], "c": [1]}, ((), ())),  # nor one without labels
        ("a", "bc", {"a": [0], "b": [1], "c": [2]}, (("b",), ())),
        ("", "a", {"a": [1]}, ((), ())),
    ],
)
def test_the_evaluation_is_never_empty(train, evaluation, classes, expected):
    found = exchange.moves(train, evaluation, classes)
    assert found.to_evaluation == expected[1] and len(found.to_train) == len(expected[0])


@pytest.fixture
def undivided(tmp_path, write_pair):
    """Ten images without splits; the hash puts the only two of class 2 into the evaluation."""
    root = tmp_path / "data"
    for name in "abcdefghij":
        write_pair(root, name, values=(0, 1))
    (root / "classes.txt").write_text("ground\nwall\nsky\n")
    for name in datasets.load("folder", root).eval.ids:
        file = root / "masks" / f"{name}.png"
        pixels = np.array(Image.open(file))
        pixels[0] = 2
        Image.fromarray(pixels).save(file)
    return root


def test_a_class_of_the_evaluation_alone_is_trained_on(undivided):
    data = datasets.load("folder", undivided)
    num_with_sky = sum((e["label"].numpy() == 2).any() for e in datasets.examples(data.train))
    assert num_with_sky == 1 and (data.train.num_images, data.eval.num_images) == (8, 2)
    (line,) = [line for line in data.messages if "changed sides" in line]
    assert line.startswith("2 images changed sides, so that each class of split 'val' is in split")
    assert datasets.load("folder", undivided) == data


def test_the_data_check_divides_as_the_loader_does(undivided):
    data = datasets.load("folder", undivided)
    result = audit.examine(datasets.plan("folder", undivided))
    train, evaluation = result.splits
    assert (train.num_sound, evaluation.num_sound) == (8, 2) and train.class_images.all()
    assert [line for line in result.messages if "changed sides" in line]
    assert not [f for f in result.findings if "without any pixel" in f.kind.problem]
    assert data.train.num_images == 8


def test_the_training_images_are_the_same_beside_a_test_split(undivided, write_pair):
    for name in ("x", "y"):
        write_pair(undivided, name, "test")
    for file in (undivided / "masks" / "test").iterdir():
        file.unlink()
    (undivided / "masks" / "test").rmdir()
    usual = datasets.load("folder", undivided)
    tested = datasets.load("folder", undivided, eval_split="test")
    assert tested.train.ids == usual.train.ids and tested.eval.ids == ("x", "y")
