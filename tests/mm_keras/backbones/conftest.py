"""Checks that the tests of several backbones share."""

import numpy as np
import pytest
import tensorflow as tf

import mm_keras


def _images(height, width, batch=1):
    shape = (batch, height, width, 3)
    return np.random.default_rng(0).integers(0, 256, shape).astype("uint8")


@pytest.fixture
def assert_tuned_fine_tuned_and_exported(tmp_path):
    """A function (backbone, function backbone -> segmenter): M&M, a step, and the SavedModel."""

    def check(backbone, segmenter_of):
        model = mm_keras.MixAndMatch(backbone)
        model.compile(optimizer=mm_keras.optimizers.LayerwiseAdamW(1e-3))
        figures = model.train_step((_images(30, 30, batch=4), np.array([0, 0, 1, 1], "int32")))
        assert np.isfinite(figures["loss"]) and figures["gradient_norm"] > 0
        segmenter = segmenter_of(backbone)
        segmenter.compile(optimizer=mm_keras.optimizers.LayerwiseAdamW(1e-3))
        figures = segmenter.train_step((_images(33, 47), np.zeros((1, 33, 47), "uint8")))
        assert np.isfinite(figures["loss"]) and figures["non_finite"] == 0
        predictor = mm_keras.Predictor(segmenter)
        predictor.export(tmp_path / "model")
        served = tf.saved_model.load(str(tmp_path / "model")).signatures["serve_probabilities"]
        for size in ((1, 5), (33, 47)):
            expected = predictor.probabilities(_images(*size))
            result = served(images=tf.constant(_images(*size)))["probabilities"]
            np.testing.assert_allclose(result, expected, atol=1e-5)

    return check
