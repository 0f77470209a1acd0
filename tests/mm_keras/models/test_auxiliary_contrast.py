"""Contrast of pixels beside fine-tuning: its loss, its heads, and inference without it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones, losses
from mm_keras.models import points
from mm_keras.models.auxiliary_contrast import AuxiliaryContrast, ContrastSettings
from mm_keras.models.segmenter import WithMaps

SIZES = ContrastSettings(weight=0.5, num_points=24, head=(16, 8))
SEGMENTERS = [mm_keras.HypercolumnSegmenter, mm_keras.FcnSegmenter, mm_keras.UnetSegmenter]


def _model(segmenter):
    keras.utils.set_random_seed(0)
    backbone = backbones.build("testing")
    contrast = AuxiliaryContrast(backbone.spec, 3, SIZES, seed=4)
    model = segmenter(backbone, 3, dropout=0.0, contrast=contrast)
    model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01), jit_compile=False)
    return model


def _batch():
    rng = np.random.default_rng(0)
    labels = np.zeros((2, 32, 32), "uint8")
    labels[:, :, 10:], labels[:, :4] = 1, 255
    return rng.integers(0, 256, (2, 32, 32, 3)).astype("uint8"), labels


@pytest.mark.parametrize("segmenter", SEGMENTERS)
def test_the_contrast_is_added_in_training_and_absent_in_inference(segmenter):
    (images, labels), model = _batch(), _model(segmenter)
    assert not isinstance(model(images), WithMaps)
    layer, terms = model.contrast, []
    model.contrast = lambda *arguments: terms.append(layer(*arguments)) or terms[-1]
    loss = model.compute_loss(images, labels, model(images, training=True))
    model.contrast = None
    without = model.compute_loss(images, labels, model(images, training=True))
    assert terms[0] > 0
    np.testing.assert_allclose(loss, without + terms[0], rtol=1e-5)


def test_the_loss_is_the_weighted_pixel_contrast_of_balanced_points():
    (images, labels), model = _batch(), _model(mm_keras.FcnSegmenter)
    maps, layer = model.feature_maps(images), model.contrast
    drawn = points.draw_balanced(tf.cast(labels, "int32"), 24, 3, keras.random.SeedGenerator(4))
    expected = losses.pixel_contrast(
        layer.head(maps, drawn), points.labels_at(tf.cast(labels, "int32"), drawn), 0.1
    )
    np.testing.assert_allclose(layer(maps, labels), 0.5 * expected, rtol=1e-6)


@pytest.mark.parametrize("label", [255, 1])
def test_void_or_one_class_gives_no_contrast_and_finite_steps(label):
    images, labels = _batch()
    labels[:] = label
    model = _model(mm_keras.UnetSegmenter)
    assert model.contrast(model.feature_maps(images), labels) == 0
    assert model.train_step((images, labels))["non_finite"] == 0


def _with_contrast_alone():
    model = _model(mm_keras.FcnSegmenter)
    model.pixel_loss = lambda labels, logits: 0.0 * tf.reduce_sum(logits)
    return model


def test_the_contrast_tunes_the_backbone():
    model = _with_contrast_alone()
    before = model.backbone.get_layer("conv1_1").kernel.numpy()
    assert model.train_step(_batch())["gradient_norm"] > 0
    assert np.any(before != model.backbone.get_layer("conv1_1").kernel.numpy())


@pytest.mark.slow
def test_contrast_alone_pulls_the_pixels_of_a_class_together():
    (images, labels), model = _batch(), _with_contrast_alone()
    images[labels == 1] //= 3
    step = tf.function(model.train_step)
    values = []
    for _ in range(15):
        model.reset_metrics()
        values.append(float(step((images, labels))["loss"]))
    assert np.mean(values[-3:]) < 0.8 * np.mean(values[:3])


@pytest.mark.parametrize("wrong", [{"weight": 0.0}, {"num_points": 0}])
def test_sizes_that_are_not_positive_are_refused(wrong):
    with pytest.raises(ValueError, match="weight must be positive, and num_points at least 1"):
        AuxiliaryContrast(backbones.build("testing").spec, 3, ContrastSettings(**wrong))
