"""The examples of an evaluation: best, worst and worst of a class, kept in bounded memory."""

import numpy as np

from trainers.runs import examples


def _example(number, num_right, size=(10, 10)):
    """An image of class 0 whose first `num_right` pixels are right, and the others class 1."""
    truth = np.zeros(size, np.uint8)
    prediction = np.ones(size, np.int32)
    prediction.flat[:num_right] = 0
    image = np.zeros((*size, 3), np.uint8)
    matrix = np.array([[num_right, truth.size - num_right, 0], [0, 0, 0], [0, 0, 0]])
    return examples.Example(f"im{number}", image, truth, prediction), matrix


def test_the_best_and_the_worst_images_are_kept_in_order():
    kept = examples.Examples(3, limit=2)
    for number, num_right in enumerate([50, 90, 10, 70, 30]):
        kept.update(*_example(number, num_right))
    assert [example.id for example in kept.best] == ["im1", "im3"]
    assert [example.id for example in kept.worst] == ["im2", "im4"]
    assert {k: example.id for k, example in kept.of_class.items()} == {0: "im2", 1: "im2"}
    assert kept.of_class[0].score == 90 and kept.worst[0].score == 0.05


def test_an_image_that_is_void_everywhere_is_no_example():
    kept = examples.Examples(3)
    example, _ = _example(0, 5)
    kept.update(example, np.zeros((3, 3), int))
    assert not kept.best and not kept.worst and not kept.of_class


def test_examples_survive_the_file_and_are_small(tmp_path):
    kept = examples.Examples(3)
    kept.update(*_example(0, 50, size=(640, 20)))
    kept.save(tmp_path / "examples.npz")
    loaded = examples.load(tmp_path / "examples.npz")
    assert set(loaded) == {"best", "worst", "class0", "class1"}
    (best,) = loaded["best"]
    assert best.id == "im0" and best.score == kept.best[0].score
    assert best.image.shape == (320, 10, 3) and best.truth.shape == (320, 10)
    assert set(np.unique(best.prediction)) <= {0, 1}


def test_a_missing_file_gives_no_examples(tmp_path):
    assert examples.load(tmp_path / "examples.npz") == {}
