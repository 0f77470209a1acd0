"""The LiteRT model: built-in operators, classes of the predictor, its table of classes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones, inference
from mm_keras.inference import ClassTable, litert_export

TABLE = ClassTable(tuple("abcd"), tuple((k, k, k) for k in range(4)), (0, 1, 2, 9))


def _segmenter():
    keras.utils.set_random_seed(0)
    model = mm_keras.HypercolumnSegmenter(backbones.build("testing"), 4, output_stride=2)
    rng = np.random.default_rng(0)
    for variable in (*model.hypercolumn.weights, *model.score.weights):
        variable.assign(rng.normal(scale=0.1, size=variable.shape))
    return model


def _pictures(number, seed=1):
    """Return random images, uint8 [1, 40, 56, 3], of areas of one color."""
    rng = np.random.default_rng(seed)
    areas = rng.integers(0, 256, (number, 1, 5, 7, 3)).astype("uint8")
    return list(areas.repeat(8, axis=2).repeat(8, axis=3))


def _agreement(path, predictor):
    interpret, num_equal, found = litert_export.interpreter(path), 0, set()
    for images in _pictures(20):
        expected = predictor.predict(images).class_ids.numpy()
        found |= set(np.unique(expected))
        num_equal += np.sum(interpret(images) == expected)
    assert len(found) > 1  # otherwise any model agrees
    return num_equal / (20 * 40 * 56)


@pytest.mark.slow  # the conversion takes ten seconds
def test_the_interpreter_gives_the_classes_of_the_predictor(tmp_path):
    predictor = mm_keras.Predictor(_segmenter(), shorter_side=30, flip=True)
    litert_export.save(predictor, tmp_path / "model.tflite", (40, 56), TABLE)
    assert _agreement(tmp_path / "model.tflite", predictor) >= 0.999
    assert litert_export.read_classes(tmp_path / "model.tflite") == TABLE


@pytest.mark.slow  # the conversion takes ten seconds
def test_an_int8_model_is_smaller_and_gives_most_of_the_classes(tmp_path):
    """Random weights decide many pixels by small margins; a trained network agreed at 96.7 %."""
    predictor = mm_keras.Predictor(_segmenter())
    for name, images in (("float", None), ("int8", _pictures(10, seed=2))):
        litert_export.save(predictor, tmp_path / f"{name}.tflite", (40, 56), TABLE, images)
    sizes = {name: (tmp_path / f"{name}.tflite").stat().st_size for name in ("float", "int8")}
    assert sizes["int8"] < 0.6 * sizes["float"]
    assert _agreement(tmp_path / "int8.tflite", predictor) > 0.6
    assert litert_export.read_classes(tmp_path / "int8.tflite") == TABLE


def test_a_failed_conversion_names_the_reason(tmp_path):
    class Unsupported:
        models, num_bands = (), 3

        def portable(self, images):
            pixels = tf.cast(images[0], tf.float32)[..., 0]
            class_ids = tf.cast(tf.linalg.det(pixels)[None], tf.int32)
            return inference.predictor.Prediction(class_ids, pixels)

    with pytest.raises(litert_export.ConversionError, match="no built-in operator for MatrixDet"):
        litert_export.save(Unsupported(), tmp_path / "model.tflite", (8, 8))
    assert not list(tmp_path.iterdir())


def test_a_file_without_a_table_is_named(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"TFL3")
    with pytest.raises(ValueError, match="model.tflite holds no classes.json"):
        litert_export.read_classes(tmp_path / "model.tflite")
