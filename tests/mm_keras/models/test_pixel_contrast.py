"""Pixel contrast: the drawn pixels, and training of the backbone alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mm_keras import backbones, optimizers
from mm_keras.models.pixel_contrast import PixelContrast


def _model(num_points=32, **arguments):
    keras.utils.set_random_seed(0)
    model = PixelContrast(
        backbones.build("testing"), num_classes=3, num_points=num_points, head=(16, 8), **arguments
    )
    model.compile(optimizer=optimizers.CoupledSGD(0.01), jit_compile=False)
    return model


def _batch(num_images=2):
    """Images whose class is a color, in vertical stripes, with some void."""
    rng = np.random.default_rng(0)
    labels = np.zeros((num_images, 32, 32), "uint8")
    labels[:, :, 10:] = 1
    labels[:, 30:, 28:] = 2  # a rare class
    labels[:, :4] = 255
    images = rng.integers(0, 60, (num_images, 32, 32, 3))
    images += 150 * (labels[..., None] == np.arange(3))
    return tf.constant(images.astype("uint8")), tf.constant(labels)


def test_training_separates_classes_and_tunes_the_backbone():
    batch, model = _batch(), _model()
    before = model.backbone.get_layer("conv1_1").kernel.numpy()
    step = tf.function(model.train_step)
    first = float(step(batch)["loss"])
    for _ in range(30):
        model.reset_metrics()
        figures = step(batch)
    assert float(figures["loss"]) < 0.5 * first and figures["non_finite"] == 0
    assert figures["negative_distance"] > figures["positive_distance"]
    assert np.any(before != model.backbone.get_layer("conv1_1").kernel.numpy())


@pytest.mark.parametrize("label", [255, 1])
def test_images_of_void_or_of_one_class_give_no_loss(label):
    images, labels = _batch()
    figures = _model().train_step((images, tf.fill(labels.shape, np.uint8(label))))
    assert figures["loss"] == 0 and figures["gradient_norm"] == 0 and figures["non_finite"] == 0


def test_a_head_without_two_sizes_is_refused():
    with pytest.raises(ValueError, match="expected two sizes. Received \\(8,\\)"):
        PixelContrast(backbones.build("testing"), 3, head=(8,))
