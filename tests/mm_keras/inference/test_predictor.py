"""Whole images: probabilities at their own size, ensembles, the SavedModel in a bare process."""

import subprocess
import sys

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones


def _model(num_classes=4, pixels="bgr", seed=0, **arguments):
    keras.utils.set_random_seed(seed)
    model = mm_keras.HypercolumnSegmenter(
        backbones.build("testing", pixels), num_classes, **arguments
    )
    rng = np.random.default_rng(seed)
    for variable in (*model.hypercolumn.weights, *model.score.weights):
        variable.assign(rng.normal(scale=0.1, size=variable.shape))
    return model


def _images(height, width, batch=1):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (batch, height // 8 + 1, width // 8 + 1, 3))
    return coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width].astype("uint8")


@pytest.mark.parametrize("size", [(1, 1), (30, 41), (64, 48)])
def test_native_gives_probabilities_at_the_own_size(size):
    predictor = mm_keras.Predictor(_model())
    probabilities = predictor.probabilities(_images(*size, batch=2)).numpy()
    assert probabilities.shape == (2, *size, 4)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    prediction = predictor.predict(_images(*size, batch=2))
    np.testing.assert_array_equal(prediction.class_ids, probabilities.argmax(-1))
    np.testing.assert_allclose(prediction.probability, probabilities.max(-1), atol=1e-6)


def test_native_keeps_the_cells_of_the_network():
    model, images = _model(), _images(30, 41)
    probabilities = mm_keras.Predictor(model).probabilities(images)
    np.testing.assert_allclose(
        probabilities[:, ::2, ::2], keras.ops.softmax(model(images)), atol=2e-4
    )


def test_ensemble_is_the_mean_of_probabilities():
    models = [_model(seed=0), _model(pixels="gray", seed=1)]
    images = _images(24, 24)
    single = [mm_keras.Predictor(model).probabilities(images).numpy() for model in models]
    both = mm_keras.Predictor(models).probabilities(images)
    np.testing.assert_allclose(both, np.mean(single, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("class_counts", "message"), [([], "at least one"), ([3, 4], r"equal num_classes.*\[3, 4\]")]
)
def test_models_that_cannot_be_averaged_are_rejected(class_counts, message):
    with pytest.raises(ValueError, match=message):
        mm_keras.Predictor([_model(num_classes) for num_classes in class_counts])


def _answers_as_saved(predictor, images, path):
    predictor.export(path)
    saved = tf.saved_model.load(str(path))
    served = saved.signatures["serve_probabilities"](images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(served, predictor.probabilities(images), atol=1e-5)


@pytest.mark.slow
def test_the_saved_ensemble_predicts_like_the_live_one(tmp_path):
    models = [_model(output_stride=1), _model(pixels="gray", seed=1, output_stride=2)]
    predictor = mm_keras.Predictor(models, flip=True, scales=(1, 1.5), shorter_side=(20, None))
    _answers_as_saved(predictor, _images(30, 37, batch=2), tmp_path / "model")


@pytest.mark.slow  # twenty seconds of windows; test_protocols.py has it with a faster network
def test_saved_windows_predict_like_live_windows(tmp_path):
    predictor = mm_keras.Predictor(_model(), "cityscapes")
    _answers_as_saved(predictor, _images(530, 700), tmp_path / "model")


_SERVE = """
import sys
for name in ("keras", "mm_keras", "pipelines", "trainers"):
    sys.modules[name] = None
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
images, encoded = np.load(sys.argv[2]), tf.constant([open(sys.argv[3], "rb").read()])
out = model.signatures["serving_default"](images=tf.constant(images))
coded = model.signatures["serve_encoded"](encoded=encoded)
probabilities = model.signatures["serve_probabilities"](images=tf.constant(images))["probabilities"]
answers = {"ids": out["class_ids"], "p": out["probability"], "coded": coded["class_ids"]}
np.savez(sys.argv[4], **answers, all=probabilities)
other = model.signatures["serving_default"](images=tf.zeros([3, 17, 90, 3], tf.uint8))
assert other["class_ids"].shape == (3, 17, 90)
"""


def test_the_saved_model_runs_with_tensorflow_alone(tmp_path):
    predictor, images = mm_keras.Predictor(_model(), shorter_side=32), _images(40, 56)
    predictor.export(tmp_path / "model")
    np.save(tmp_path / "images.npy", images)
    PIL.Image.fromarray(images[0]).save(tmp_path / "image.png")
    paths = [str(tmp_path / name) for name in ("model", "images.npy", "image.png", "out.npz")]
    subprocess.run([sys.executable, "-c", _SERVE, *paths], check=True)
    served, prediction = np.load(tmp_path / "out.npz"), predictor.predict(images)
    assert np.mean(served["ids"] == prediction.class_ids) >= 0.999
    np.testing.assert_array_equal(served["coded"], served["ids"])
    np.testing.assert_allclose(served["p"], prediction.probability, atol=1e-4)
    np.testing.assert_allclose(served["all"], predictor.probabilities(images), atol=1e-4)
