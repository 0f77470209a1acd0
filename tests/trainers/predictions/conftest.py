"""A saved model that classifies by the red value, so that every prediction is known."""

import dataclasses
import functools

import pytest
import tensorflow as tf

import mm_keras
from mm_keras.inference import ClassTable, export

TABLE = ClassTable(
    ("background", "dark", "bright"), ((0, 0, 0), (0, 0, 200), (250, 0, 0)), (0, 7, 9), background=0
)
MIN_SIDE = 4


WINDOW = {"num_bands": 1, "bands": (0, 0, 0), "low": (0.0,) * 3, "high": (1000.0,) * 3}


def save_threshold_model(folder, classes=TABLE):
    """Save a model: red 0 is class 0, red below 100 class 1, all other pixels class 2."""

    @tf.function(input_signature=[export.images()])
    def probabilities(images):
        tf.debugging.assert_greater_equal(
            tf.reduce_min(tf.shape(images)[1:3]),
            MIN_SIDE,
            f"threshold takes images of at least {MIN_SIDE} pixels per side.",
        )
        red = images[..., 0]
        class_ids = tf.where(red == 0, 0, tf.where(red < 100, 1, 2))
        return {"probabilities": 0.05 + 0.85 * tf.one_hot(class_ids, 3)}

    @tf.function(input_signature=[export.images()])
    def predict(images):
        shares = probabilities(images)["probabilities"]
        class_ids = tf.argmax(shares, -1, tf.int32)
        return {"class_ids": class_ids, "probability": tf.reduce_max(shares, -1)}

    module = tf.Module()
    signatures = {"serving_default": predict, "serve_probabilities": probabilities}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    if classes is not None:
        export.write_classes(folder, classes)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Working folder with the model in export/saved_model."""
    workdir = tmp_path_factory.mktemp("workdir")
    save_threshold_model(workdir / "export" / "saved_model")
    return workdir


@pytest.fixture(scope="session")
def deep_model(tmp_path_factory):
    """SavedModel of images whose values 0 to 1000 were mapped to 8 bits."""
    folder = tmp_path_factory.mktemp("deep") / "model"
    return save_threshold_model(folder, dataclasses.replace(TABLE, window=WINDOW))


@pytest.fixture(autouse=True, scope="session")
def models_are_loaded_once():
    """Loading takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mm_keras, "load_predictor", functools.cache(mm_keras.load_predictor), False)
        yield
