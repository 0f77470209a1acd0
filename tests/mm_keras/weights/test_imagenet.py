"""Keras' VGG-16 in ours: the same features, without any download."""

import keras
import numpy as np
import pytest

from mm_keras import backbones
from mm_keras.backbones import libraries
from mm_keras.weights import imagenet


@pytest.fixture(scope="module")
def published():
    keras.utils.set_random_seed(3)
    model = keras.applications.VGG16(include_top=False, weights=None, input_shape=(None, None, 3))
    pixels = libraries.pixels_of(keras.applications.vgg16.preprocess_input)
    return model, pixels


@pytest.mark.parametrize("pixels", ["bgr", "torch"])
def test_features_equal_keras_network(published, pixels, monkeypatch):
    monkeypatch.setattr(libraries, "network", lambda *_: published)
    body = backbones.build("vgg16", pixels=pixels)
    assert "13 convolutions" in imagenet.load(body)
    images = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3)).astype("float32")
    prepared = keras.applications.vgg16.preprocess_input(images.copy())
    expected = published[0].get_layer("block3_conv3")
    expected = keras.Model(published[0].inputs, expected.output)(prepared)
    features = body(images)["conv3_3"]
    # At the border the zeros around the image stand for another mean color.
    inner = np.s_[:, 5:-5, 5:-5]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(features[inner] / scale, expected[inner] / scale, atol=1e-3)


def test_other_widths_and_networks_are_rejected():
    with pytest.raises(ValueError, match="width 1. Received width=0.5"):
        imagenet.load(backbones.build("vgg16", width=0.5))
    with pytest.raises(ValueError, match="no ImageNet weights for 'testing'"):
        imagenet.load(backbones.build("testing"))
