"""The signature `serve_raw` of a SavedModel maps stored values to 8 bits as the data set does."""

import numpy as np
import pytest
import tensorflow as tf

from mm_keras import FcnSegmenter, Predictor, backbones
from mm_keras.inference.export import PixelWindow, signatures
from pipelines.datasets import raw_images, spec


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_the_exported_window_equals_the_window_of_the_data_set(dtype):
    facts = {
        "num_bands": 4,
        "bands": (3, 1, 0),
        "low": (10.0, 113.5, -20.0),
        "high": (900.0, 2412.0, 7777.0),
    }
    values = np.random.default_rng(0).integers(0, 9000, [2, 300, 40, 4]).astype(dtype)
    expected = [raw_images.apply(spec.PixelWindow(**facts), image) for image in values]
    found = PixelWindow(**facts).apply(tf.cast(values, tf.float32))
    np.testing.assert_array_equal(found, expected)


def test_serve_raw_returns_the_prediction_of_the_mapped_image():
    predictor = Predictor(FcnSegmenter(backbones.build("testing"), num_classes=3))
    window = PixelWindow(4, (0, 1, 2), (0.0,) * 3, (4000.0,) * 3)
    found = signatures(predictor, window)
    values = tf.random.stateless_uniform([1, 40, 50, 4], [1, 2], 0, 4000)
    raw = found["serve_raw"](values)
    mapped = found["serving_default"](window.apply(values))
    np.testing.assert_array_equal(raw["class_ids"], mapped["class_ids"])
    assert "serve_raw" not in signatures(predictor)


def test_a_network_of_four_bands_takes_raw_values_and_no_files():
    body = backbones.build("testing", num_bands=4)
    predictor = Predictor(FcnSegmenter(body, num_classes=3), flip=True)
    found = signatures(predictor, PixelWindow(5, (4, 0, 1, 2), (0.0,) * 4, (4000.0,) * 4))
    assert set(found) == {"serving_default", "serve_probabilities", "serve_raw"}
    values = tf.random.stateless_uniform([1, 40, 50, 5], [1, 2], 0, 4000)
    chosen = tf.gather(values, [4, 0, 1, 2], axis=-1)
    expected = predictor.predict(tf.cast(tf.round(chosen * (255 / 4000)), tf.uint8))
    raw = found["serve_raw"](values)["class_ids"]
    assert np.mean(raw == expected.class_ids) > 0.99  # halves are rounded in two ways


def test_models_of_other_bands_are_refused():
    models = [FcnSegmenter(backbones.build("testing", num_bands=k), num_classes=3) for k in (3, 4)]
    with pytest.raises(ValueError, match=r"take equal bands. Received \[3, 4\]"):
        Predictor(models)
