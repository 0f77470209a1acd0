"""The loss over labelled pixels against a plain loop. Runs on any backend."""

import numpy as np
import pytest

from mm_keras import losses


def test_pixel_cross_entropy_equals_a_loop():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 5, 4)).astype("float32") * 30
    labels = rng.choice([0, 1, 2, 3, 255], size=(2, 5)).astype("uint8")
    terms = []
    for image in range(2):
        for point in range(5):
            if labels[image, point] != 255:
                z = logits[image, point].astype("float64")
                terms.append(
                    np.log(np.sum(np.exp(z - z.max()))) + z.max() - z[labels[image, point]]
                )
    loss = losses.pixel_cross_entropy(labels, logits)
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-5)


def test_a_batch_of_void_pixels_has_loss_zero():
    loss = losses.pixel_cross_entropy(np.full((2, 3), 255, "uint8"), np.ones((2, 3, 4), "float32"))
    assert float(loss) == 0.0


@pytest.mark.parametrize("num_labelled", [1, 2])
def test_the_loss_is_the_mean_over_few_labelled_pixels(num_labelled):
    logits = np.log(np.array([[1.0, 3.0], [1.0, 1.0], [5.0, 1.0]], "float32"))
    labels = np.array([1, 0, 255], "uint8")
    labels[num_labelled:] = 255
    expected = np.mean([-np.log(0.75), -np.log(0.5)][:num_labelled])
    np.testing.assert_allclose(losses.pixel_cross_entropy(labels, logits), expected, rtol=1e-6)


def test_another_void_label_may_be_given():
    logits = np.log(np.array([[1.0, 3.0], [1.0, 1.0]], "float32"))
    loss = losses.pixel_cross_entropy(np.array([1, 0]), logits, void=0)
    np.testing.assert_allclose(loss, -np.log(0.75), rtol=1e-6)


def test_class_weights_give_a_weighted_mean():
    logits = np.log(np.array([[1.0, 3.0], [1.0, 1.0], [5.0, 1.0]], "float32"))
    loss = losses.pixel_cross_entropy(np.array([1, 0, 255]), logits, np.array([1.0, 4.0]))
    np.testing.assert_allclose(loss, (-4 * np.log(0.75) - np.log(0.5)) / 5, rtol=1e-6)


def test_the_focal_loss_weighs_each_pixel_by_its_error():
    logits = np.log(np.array([[1.0, 3.0], [1.0, 1.0], [5.0, 1.0]], "float32"))
    labels = np.array([1, 0, 255])
    expected = np.mean([-(0.25**2) * np.log(0.75), -(0.5**2) * np.log(0.5)])
    np.testing.assert_allclose(losses.focal(labels, logits), expected, rtol=1e-5)
    plain = losses.pixel_cross_entropy(labels, logits)
    np.testing.assert_allclose(losses.focal(labels, logits, focusing=0.0), plain, rtol=1e-5)
