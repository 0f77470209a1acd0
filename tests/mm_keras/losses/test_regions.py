"""Dice and Lovasz-softmax against golden values and the published loops. Runs on any backend."""

import json
import pathlib

import keras
import numpy as np
import pytest

from mm_keras import losses

GOLDEN = json.loads((pathlib.Path(__file__).parents[2] / "golden/fine_tuning.json").read_text())
REGIONS = [losses.soft_dice, losses.lovasz_softmax]


def random_batch(seed=0, shape=(2, 5, 6), num_classes=4):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(*shape, num_classes)).astype("float32") * 3
    labels = rng.choice([0, 1, 3, 255], size=shape).astype("uint8")  # class 2 is absent
    return labels, logits


def softmax(logits):
    exponentials = np.exp(logits.astype("float64") - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def test_dice_equals_the_golden_value():
    golden = GOLDEN["cross_entropy_and_dice"]
    labels = np.array(golden["labels"], "uint8")
    logits = np.array(golden["logits_BHWC"], "float32")
    dice = float(losses.soft_dice(labels, logits))
    np.testing.assert_allclose(dice, golden["ultralytics_dice_all_classes_batch"], rtol=1e-5)
    total = losses.PIXEL_LOSSES["cross_entropy+dice"](labels, logits)
    np.testing.assert_allclose(float(total), golden["ultralytics_total"], rtol=1e-5)


def test_dice_is_the_mean_over_the_classes_present():
    labels, logits = random_batch()
    p, is_labelled, terms = softmax(logits), labels != 255, []
    for k in (0, 1, 3):
        truth, predicted = (labels == k)[is_labelled], p[..., k][is_labelled]
        terms.append(1 - (2 * (truth * predicted).sum() + 1) / (truth.sum() + predicted.sum() + 1))
    np.testing.assert_allclose(losses.soft_dice(labels, logits), np.mean(terms), rtol=1e-5)
    weights = np.array([1.0, 3.0, 9.0, 0.0])
    weighted = losses.soft_dice(labels, logits, weights)
    np.testing.assert_allclose(weighted, (terms[0] + 3 * terms[1]) / 4, rtol=1e-5)


def published_lovasz(labels, logits):
    """The loop of Berman et al. 2018, classes present, one image after flattening."""
    p, terms = softmax(logits)[labels != 255], []
    truths = labels[labels != 255]
    for k in np.unique(truths):
        truth = (truths == k).astype("float64")
        errors = abs(truth - p[:, k])
        order = np.argsort(-errors, kind="stable")
        truth, errors = truth[order], errors[order]
        intersection = truth.sum() - truth.cumsum()
        union = truth.sum() + (1 - truth).cumsum()
        jaccard = 1 - intersection / union
        jaccard[1:] -= jaccard[:-1].copy()
        terms.append(errors @ jaccard)
    return np.mean(terms)


@pytest.mark.parametrize("seed", range(3))
def test_lovasz_equals_the_published_loop(seed):
    labels, logits = random_batch(seed)
    loss = float(losses.lovasz_softmax(labels, logits))
    np.testing.assert_allclose(loss, published_lovasz(labels, logits), rtol=1e-5)


def test_lovasz_of_certain_predictions_is_one_minus_the_mean_iou():
    labels = np.array([0, 0, 0, 1, 1, 255], "uint8")
    predicted = np.array([0, 0, 1, 1, 0, 1])
    loss = float(losses.lovasz_softmax(labels, 60 * np.eye(2, dtype="float32")[predicted]))
    np.testing.assert_allclose(loss, 1 - (2 / 4 + 1 / 3) / 2, rtol=1e-5)


@pytest.mark.parametrize("loss", losses.PIXEL_LOSSES.values(), ids=losses.PIXEL_LOSSES)
def test_void_pixels_change_nothing(loss):
    labels, logits = random_batch()
    changed = np.where((labels == 255)[..., None], -logits - 50, logits)
    np.testing.assert_allclose(loss(labels, logits), loss(labels, changed), rtol=1e-6)
    kept = labels != 255
    np.testing.assert_allclose(loss(labels, logits), loss(labels[kept], logits[kept]), rtol=1e-5)


@pytest.mark.parametrize("loss", losses.PIXEL_LOSSES.values(), ids=losses.PIXEL_LOSSES)
def test_a_batch_of_void_pixels_or_of_weight_zero_has_loss_zero(loss):
    labels, logits = random_batch()
    assert float(loss(np.full_like(labels, 255), logits)) == 0.0
    assert float(loss(labels, logits, np.zeros(4))) == 0.0


@pytest.mark.parametrize("loss", losses.PIXEL_LOSSES.values(), ids=losses.PIXEL_LOSSES)
def test_weights_of_one_change_nothing(loss):
    labels, logits = random_batch()
    np.testing.assert_allclose(loss(labels, logits, np.ones(4)), loss(labels, logits), rtol=1e-6)


@pytest.mark.parametrize("loss", losses.PIXEL_LOSSES.values(), ids=losses.PIXEL_LOSSES)
def test_right_predictions_cost_less_than_wrong_ones(loss):
    labels = np.array([0, 1, 2, 255], "uint8")
    right = 20 * np.eye(4, dtype="float32")[[0, 1, 2, 3]]
    wrong = 20 * np.eye(4, dtype="float32")[[1, 2, 0, 3]]
    assert float(loss(labels, right)) < 0.01 < 0.5 < float(loss(labels, wrong))


@pytest.mark.parametrize("loss", losses.PIXEL_LOSSES.values(), ids=losses.PIXEL_LOSSES)
def test_gradients_are_finite_and_zero_on_void(loss):
    if keras.config.backend() != "tensorflow":
        pytest.skip("gradients are taken by TensorFlow's tape")
    tf = pytest.importorskip("tensorflow")
    labels, logits = random_batch()
    variable = tf.Variable(np.concatenate([logits, logits * 1e4]))
    with tf.GradientTape() as tape:
        value = loss(np.concatenate([labels, labels]), variable)
    gradient = tape.gradient(value, variable).numpy()
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    assert (gradient[np.concatenate([labels, labels]) == 255] == 0).all()
