"""The 313 colors: golden values of the list, the encoding, the weights and the decoding."""

import numpy as np
import tensorflow as tf

from mm_keras.models.proxies import color_bins


def test_the_list_of_bins_equals_the_golden_one(golden):
    expected = golden("starts")["bins"]
    assert color_bins.BINS.shape == (expected["count"], 2)
    for index, color in expected["members"].items():
        assert color_bins.BINS[int(index)].tolist() == color
    nearest = {
        tuple(map(float, key.split(","))): k for key, k in expected["bin_of_nearest"].items()
    }
    bins, _ = color_bins.soft_encoding(np.array(list(nearest)), 1)
    assert bins[:, 0].numpy().tolist() == list(nearest.values())


def test_the_soft_encoding_equals_the_golden_values(golden):
    for case in golden("starts")["soft_encoding"]:
        for number in (5, 10):
            bins, weights = (x.numpy() for x in color_bins.soft_encoding(case["ab"], number))
            expected = dict(zip(case[f"K{number}_bins"], case[f"K{number}_weights"], strict=True))
            np.testing.assert_allclose(
                sorted(weights), sorted(expected.values()), atol=1e-5
            )  # ties are in any order
            mean = weights @ color_bins.BINS[bins]
            assert set(bins) == set(expected) or number == 5
            if set(bins) == set(expected):
                np.testing.assert_allclose(mean, case[f"K{number}_mean_ab"], atol=1e-3)


def test_a_color_far_from_all_bins_has_finite_weights():
    bins, weights = color_bins.soft_encoding(np.array([[500.0, 500.0], [0.0, -128.0]]))
    np.testing.assert_allclose(np.sum(weights, axis=-1), 1, rtol=1e-6)


def test_rebalancing_weights_equal_the_golden_values(golden):
    expected = golden("starts")["rebalancing"]
    counts = np.array(expected["paper_rule"]["counts"])
    found = color_bins.rebalancing_weights(counts / counts.sum())
    np.testing.assert_allclose(found, expected["paper_rule"]["weights"], rtol=1e-5)
    prior = counts[:-1] / counts.sum()
    np.testing.assert_allclose(
        color_bins.rebalancing_weights(prior, 0.0), expected["lambda_0"], rtol=1e-5
    )
    np.testing.assert_allclose(color_bins.rebalancing_weights(prior, 1.0), 1, rtol=1e-5)


def test_the_weighted_cross_entropy_and_its_gradient_equal_the_golden_values(golden):
    expected = golden("starts")["weighted_soft_cross_entropy"]
    logits = tf.constant(expected["logits"])
    weights = np.array(expected["targets"], "float32")
    bins = np.tile(np.arange(4, dtype="int32"), (2, 1))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        entropies = color_bins.cross_entropy(logits, bins, weights)
        loss = tf.reduce_mean(np.array(expected["pixel_weights"], "float32") * entropies)
    np.testing.assert_allclose(entropies, expected["cross_entropy"], rtol=1e-5)
    np.testing.assert_allclose(loss, expected["mean_weighted"], rtol=1e-5)
    gradient = tape.gradient(loss, logits)
    np.testing.assert_allclose(gradient, expected["gradient_of_the_logits"], atol=1e-6)


def test_the_annealed_mean_and_the_area_equal_the_golden_values(golden):
    expected = golden("starts")["annealed_mean"]
    logits = np.log(expected["probabilities"])
    for temperature, case in expected["T"].items():
        found = color_bins.annealed_mean(logits, float(temperature), np.array(expected["bins"]))
        np.testing.assert_allclose(found, case["ab"], atol=1e-4)
    expected = golden("starts")["auc"]
    assert abs(color_bins.area_under_errors(expected["errors"]) - expected["auc"]) < 1e-9
