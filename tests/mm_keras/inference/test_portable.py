"""Operations of prediction for other runtimes: equal to TensorFlow's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from mm_keras.inference import portable
from mm_keras.models import dense


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
    ("size", "target"),
    [((40, 56), (20, 28)), ((33, 70), (21, 41)), ((20, 30), (45, 61)), ((1, 5), (7, 3))],
)
def test_resizing_equals_the_resizing_of_tensorflow(size, target, antialias):
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype("uint8")
    found = portable.resized(tf.constant(pixels), target, antialias)
    expected = tf.image.resize(pixels, target, antialias=antialias)
    np.testing.assert_allclose(found, expected, atol=1e-3)  # of 255


def test_an_image_of_the_same_size_is_not_changed():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 17, 9, 3)).astype("uint8")
    np.testing.assert_array_equal(portable.resized(tf.constant(pixels), (17, 9), True), pixels)


def _predictor(**options):
    keras.utils.set_random_seed(0)
    model = mm_keras.HypercolumnSegmenter(backbones.build("testing"), 4, output_stride=2)
    rng = np.random.default_rng(0)
    for variable in (*model.hypercolumn.weights, *model.score.weights):
        variable.assign(rng.normal(scale=0.1, size=variable.shape))
    return mm_keras.Predictor(model, **options)


def test_the_portable_form_equals_the_predictor():
    predictor = _predictor(shorter_side=30, flip=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 45, 60, 3)).astype("uint8")
    found, expected = predictor.portable(tf.constant(images)), predictor.predict(images)
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-5)


def test_the_portable_form_has_no_loop():
    predictor = _predictor()
    function = tf.function(predictor.portable).get_concrete_function(
        tf.TensorSpec([None, None, None, 3], tf.uint8)
    )
    graphs = [function.graph, *(f.graph for f in function.graph._functions.values())]
    operations = {op.type for graph in graphs for op in graph.get_operations()}
    assert not operations & {"While", "StatelessWhile", "TensorListReserve", "ScaleAndTranslate"}
    assert "MatMul" in operations or "BatchMatMulV2" in operations


def test_the_portable_form_has_no_windows():
    with pytest.raises(ValueError, match="has no windows"):
        _predictor(window=64, overlap=32).portable(tf.zeros([1, 40, 40, 3], tf.uint8))


def test_dense_maps_have_bands_again_after_the_block():
    with pytest.raises(KeyError), dense.at_once():
        assert dense.is_at_once()
        raise KeyError
    assert not dense.is_at_once()
