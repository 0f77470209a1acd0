"""Distances and losses against golden values and plain loops. Runs on any backend but for the
gradients.
"""

import keras
import numpy as np
import pytest
from keras import ops

from mm_keras import losses, matching

CASES = range(4)


def _triplets(rows):
    anchor, positive, negative = np.array(rows, "int32").T
    return matching.Triplets(
        anchor, positive, np.maximum(negative, 0), ops.convert_to_tensor(negative >= 0)
    )


@pytest.fixture(params=CASES)
def case(golden, request):
    cases = golden("triplet_loss")
    if request.param >= len(cases):
        pytest.skip("fewer golden cases than parameters")
    return cases[request.param]


def test_distances_and_release_loss(case):
    embeddings = losses.embed(np.array(case["embeddings"], "float32"))
    triplets = _triplets(case["triplets_anchor_pos_neg"])
    np.testing.assert_allclose(embeddings, case["normalized"], atol=1e-6)
    positive, negative = losses.edge_distances(embeddings, triplets)
    np.testing.assert_allclose(positive, case["d_pos"], atol=1e-6)
    np.testing.assert_allclose(negative, case["d_neg"], atol=1e-6)
    loss = losses.triplet_margin(embeddings, triplets, case["margin"], scale="release")
    np.testing.assert_allclose(loss, case["loss_code"], atol=1e-6)


def test_paper_loss_is_the_mean_over_valid_triplets(case):
    embeddings = losses.embed(np.array(case["embeddings"], "float32"))
    rows = case["triplets_anchor_pos_neg"]
    hinges = [h for h, row in zip(case["per_triplet"], rows, strict=True) if row[2] >= 0]
    expected = sum(hinges) / len(hinges) if hinges else 0.0
    loss = losses.triplet_margin(embeddings, _triplets(rows), case["margin"])
    np.testing.assert_allclose(loss, expected, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="takes a GradientTape")
def test_gradients(case):
    import tensorflow as tf

    raw = tf.Variable(np.array(case["embeddings"], "float32"))
    triplets = _triplets(case["triplets_anchor_pos_neg"])
    with tf.GradientTape() as tape:
        loss = losses.triplet_margin(losses.embed(raw), triplets, case["margin"], "release")
    gradient = tf.convert_to_tensor(tape.gradient(loss, raw))
    np.testing.assert_allclose(gradient, case["grad_wrt_raw_embeddings"], atol=1e-6)


def test_hinge_clips_beyond_the_margin():
    embeddings = np.array([[1, 0], [1, 0], [-1, 0]], "float32")
    loss = losses.triplet_margin(embeddings, _triplets([[0, 1, 2]]), margin=2.1)
    assert float(loss) == 0.0  # 2.1 + 0 - 4 < 0


def test_zero_features_have_zero_embedding_and_finite_distance():
    zero, one = np.zeros((1, 2, 2, 3), "float32"), np.ones((1, 2, 2, 3), "float32")
    np.testing.assert_array_equal(losses.embed(zero), np.zeros((1, 12)))
    np.testing.assert_allclose(losses.perceptual_distance(zero, one), [1.0], atol=1e-6)


def test_perceptual_distance_ignores_scale():
    features = np.random.default_rng(0).uniform(size=(3, 4, 4, 8)).astype("float32")
    np.testing.assert_allclose(losses.perceptual_distance(features, 5 * features), 0, atol=1e-6)


def test_float16_features_are_measured_in_float32():
    features = np.random.default_rng(0).uniform(size=(2, 8192)).astype("float16")
    assert keras.backend.standardize_dtype(losses.embed(features).dtype) == "float32"
    np.testing.assert_allclose(ops.sum(ops.square(losses.embed(features)), -1), 1, atol=1e-5)


def test_unknown_scale():
    with pytest.raises(ValueError, match="'sum'.*paper.*release"):
        losses.triplet_margin(np.eye(3, dtype="float32"), _triplets([[0, 1, 2]]), scale="sum")


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


def test_all_void_gives_zero():
    loss = losses.pixel_cross_entropy(np.full((2, 3), 255, "uint8"), np.ones((2, 3, 4), "float32"))
    assert float(loss) == 0.0
