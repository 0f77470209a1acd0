"""Distances and losses against golden values and plain loops.

The tests run on any backend. Only TensorFlow runs the tests of gradients.
"""

import json
import pathlib

import keras
import numpy as np
import pytest
from keras import ops

from mm_keras import losses, matching

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"

tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="uses a GradientTape"
)


def _triplets(rows):
    anchor, positive, negative = np.array(rows, "int32").T
    return matching.Triplets(
        anchor, positive, np.maximum(negative, 0), ops.convert_to_tensor(negative >= 0)
    )


def pytest_generate_tests(metafunc):
    """Run tests with a `case` on every entry of the golden file."""
    if "case" in metafunc.fixturenames:
        cases = json.loads((GOLDEN / "triplet_loss.json").read_text())
        metafunc.parametrize("case", cases, ids=[case["name"] for case in cases])


def _is_valid(case):
    return [row[2] >= 0 for row in case["triplets_anchor_pos_neg"]]


def test_distances_and_release_loss_equal_the_golden_values(case):
    embeddings = losses.embed(np.array(case["embeddings"], "float32"))
    triplets = _triplets(case["triplets_anchor_pos_neg"])
    np.testing.assert_allclose(embeddings, case["normalised"], atol=1e-6)
    positive, negative = losses.edge_distances(embeddings, triplets)
    np.testing.assert_allclose(positive, case["d_pos"], atol=1e-6)
    np.testing.assert_allclose(negative, case["d_neg"], atol=1e-6)
    loss = losses.triplet_margin(embeddings, triplets, case["margin"], scale="release")
    np.testing.assert_allclose(loss, case["loss_code"], atol=1e-6)


def test_paper_loss_equals_the_golden_value_where_all_triplets_are_valid(case):
    """The golden loss counts triplets without a negative. Scale "paper" leaves them out."""
    embeddings = losses.embed(np.array(case["embeddings"], "float32"))
    triplets = _triplets(case["triplets_anchor_pos_neg"])
    hinges = [h for h, valid in zip(case["per_triplet"], _is_valid(case), strict=True) if valid]
    expected = case["loss_paper"] if all(_is_valid(case)) else sum(hinges) / max(len(hinges), 1)
    loss = losses.triplet_margin(embeddings, triplets, case["margin"], scale="paper")
    np.testing.assert_allclose(loss, expected, atol=1e-6)


@tensorflow_only
def test_gradients_equal_the_golden_values_but_for_zero_vectors(case):
    """The release passes the gradient of the embedding to a zero vector. Here it gets none."""
    raw = tf_variable(case["embeddings"])
    _, gradient = _gradients(case, raw)
    is_zero = np.all(np.array(case["embeddings"]) == 0, axis=-1, keepdims=True)
    expected = np.where(is_zero, 0.0, case["grad_wrt_raw_embeddings"])
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@tensorflow_only
def test_the_release_gives_a_zero_vector_the_gradient_of_its_embedding(golden):
    (case,) = [c for c in golden("triplet_loss") if c["name"] == "zero_vector_node"]
    by_embedding, _ = _gradients(case, tf_variable(case["embeddings"]))
    np.testing.assert_allclose(by_embedding[0], case["grad_wrt_raw_embeddings"][0], atol=1e-6)
    assert np.any(by_embedding[0] != 0)


def tf_variable(values):
    import tensorflow as tf

    return tf.Variable(np.array(values, "float32"))


def _gradients(case, raw):
    """Return the gradients of the release's loss: by the embeddings and by the raw features."""
    import tensorflow as tf

    triplets = _triplets(case["triplets_anchor_pos_neg"])
    with tf.GradientTape() as tape:
        embeddings = losses.embed(raw)
        tape.watch(embeddings)
        loss = losses.triplet_margin(embeddings, triplets, case["margin"], "release")
    gradients = tape.gradient(loss, [embeddings, raw])
    return [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]


@pytest.mark.parametrize("num_valid", [1, 2, 3])
def test_paper_loss_divides_by_the_number_of_valid_triplets(num_valid):
    embeddings = np.eye(4, dtype="float32")
    rows = [[0, 1, 2], [1, 2, 3], [2, 2, 3]]
    hinges = [2.1, 2.1, 0.1]
    triplets = _triplets(
        [[*row[:2], row[2] if k < num_valid else -1] for k, row in enumerate(rows)]
    )
    loss = losses.triplet_margin(embeddings, triplets, margin=2.1)
    np.testing.assert_allclose(loss, sum(hinges[:num_valid]) / num_valid, rtol=1e-5)


def test_paper_loss_without_a_valid_triplet_is_zero():
    loss = losses.triplet_margin(np.eye(2, dtype="float32"), _triplets([[0, 1, -1], [1, 0, -1]]))
    assert float(loss) == 0.0


def test_the_hinge_is_zero_beyond_the_margin():
    embeddings = np.array([[1, 0], [1, 0], [-1, 0]], "float32")
    loss = losses.triplet_margin(embeddings, _triplets([[0, 1, 2]]), margin=2.1)
    assert float(loss) == 0.0  # 2.1 + 0 - 4 < 0


def test_zero_features_have_zero_embedding_and_finite_distance():
    zero, one = np.zeros((1, 2, 2, 3), "float32"), np.ones((1, 2, 2, 3), "float32")
    np.testing.assert_array_equal(losses.embed(zero), np.zeros((1, 12)))
    np.testing.assert_allclose(losses.perceptual_distance(zero, one), [1.0], atol=1e-6)


def test_perceptual_distance_ignores_the_scale_of_features():
    features = np.random.default_rng(0).uniform(size=(3, 4, 4, 8)).astype("float32")
    np.testing.assert_allclose(losses.perceptual_distance(features, 5 * features), 0, atol=1e-6)


@pytest.mark.parametrize("length", [1e-6, 0.5, 1e6])
def test_features_of_any_length_get_unit_length(length):
    features = length * np.array([[0.6, 0.8]], "float32")
    np.testing.assert_allclose(losses.embed(features), [[0.6, 0.8]], rtol=1e-5)


def test_the_default_margin_is_the_papers():
    embeddings, triplets = np.eye(3, dtype="float32"), _triplets([[0, 1, 2]])
    assert float(losses.triplet_margin(embeddings, triplets)) == pytest.approx(2.1)
    distances = np.zeros(1, "float32"), np.zeros(1, "float32"), triplets.valid
    assert float(losses.triplet_loss(*distances)) == pytest.approx(2.1)


def test_float16_features_are_measured_in_float32():
    features = np.random.default_rng(0).uniform(size=(2, 8192)).astype("float16")
    assert keras.backend.standardize_dtype(losses.embed(features).dtype) == "float32"
    np.testing.assert_allclose(ops.sum(ops.square(losses.embed(features)), -1), 1, atol=1e-5)


def test_an_unknown_scale_is_rejected():
    with pytest.raises(ValueError, match="'sum'.*paper.*release"):
        losses.triplet_margin(np.eye(3, dtype="float32"), _triplets([[0, 1, 2]]), scale="sum")
