"""Networks of other libraries as backbones: taps by stride, both models, prediction and export."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from mm_keras.backbones import libraries, wrapped


def _convolution(strides=1, padding="same", channels=4, **arguments):
    return keras.layers.Conv2D(channels, 3, strides, padding=padding, **arguments)


def _network():
    """Strides 2, 4 and 8: a nested stem, an added border, a residual and a squeezed branch."""
    images = keras.Input((None, None, 3))
    maps = keras.Sequential([_convolution(2), keras.layers.BatchNormalization()], name="stem")(
        images
    )
    maps = keras.layers.ZeroPadding2D(1)(maps)  # not the last map of stride 2
    maps = _convolution(2, padding="valid", channels=5, name="stride4")(maps)
    inner = _convolution(channels=5)(maps)
    squeezed = keras.layers.GlobalAveragePooling2D(keepdims=True)(inner)
    maps = keras.layers.Add(name="residual")([maps, inner * squeezed])
    return keras.Model(images, _convolution(2, channels=6, name="end")(maps))


def _random_images(height, width, batch=1):
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3)).astype("uint8")


def test_taps_are_the_last_maps_of_their_strides():
    network = _network()
    backbone = wrapped.wrap("mine", network, libraries.RAW)
    spec = backbone.spec
    assert [(tap.name, tap.stride, tap.channels) for tap in spec.taps] == [
        ("stride2", 2, 4),
        ("stride4", 4, 5),
        ("stride8", 8, 6),
    ]
    assert spec.embedding == spec.taps[-1] and spec.context_units == ()
    assert spec.hypercolumn_units == 1024 and spec.pad_color == (127, 127, 127)
    images = _random_images(33, 46)
    outputs = backbone(images)
    names = ("stem", "residual", "end")
    inside = keras.Model(network.input, [network.get_layer(name).output for name in names])
    for tap, expected in zip(spec.taps, inside(images.astype("float32")), strict=True):
        np.testing.assert_allclose(outputs[tap.name], expected, atol=1e-5)


def test_pixels_are_prepared():
    images = keras.Input((None, None, 3))
    network = keras.Model(images, keras.layers.AveragePooling2D(2)(images))
    pixels = backbones.Pixels("bgr", (1.0, 0.5, 0.25), (1.0, 2.0, 3.0), (0, 0, 0))
    outputs = wrapped.wrap("mine", network, pixels)(np.full((1, 4, 4, 3), [8.0, 20.0, 30.0]))
    np.testing.assert_allclose(outputs["stride2"][0, 0, 0], [29.0, 8.0, -1.0])


def test_networks_that_cannot_be_wrapped_are_rejected():
    images = keras.Input((None, None, 3))
    flat = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    with pytest.raises(ValueError, match="no feature map of a stride"):
        wrapped.wrap("flat", flat, libraries.RAW)
    halves = [_convolution(2, channels=3)(images), keras.layers.AveragePooling2D(2)(images)]
    even = keras.Model(images, keras.layers.Add()(halves))  # 3 and 2 cells of 5 pixels
    with pytest.raises(ValueError, match="'even' does not take images of any size"):
        wrapped.wrap("even", even, libraries.RAW)
    fixed = keras.Input((32, 32, 3))
    with pytest.raises(ValueError, match="'fixed' does not take images of any size"):
        wrapped.wrap("fixed", keras.Model(fixed, _convolution(2)(fixed)), libraries.RAW)


@pytest.fixture(scope="module")
def unpadded():
    """Needs 2 x 2 + 3 = 7 pixels: (7 - 3) / 2 + 1 = 3 cells, and one more window of 3."""
    images = keras.Input((None, None, 3))
    maps = _convolution(2, padding="valid")(images)
    network = keras.Model(images, _convolution(padding="valid")(maps))
    return wrapped.wrap("library/unpadded", network, libraries.RAW)


def test_images_below_the_smallest_size_are_rejected(unpadded):
    assert unpadded.spec.min_size == 7
    assert unpadded(_random_images(7, 9))["stride2"].shape == (1, 1, 2, 4)
    with pytest.raises(ValueError, match="library/unpadded takes images of at least 7 pixels"):
        unpadded(_random_images(6, 9))


def test_the_saved_model_rejects_small_images(unpadded, tmp_path):
    segmenter = mm_keras.HypercolumnSegmenter(unpadded, 3)
    predictor = mm_keras.Predictor(segmenter)
    predictor.export(tmp_path / "model")
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    for call in (predictor.predict, lambda images: serve(images=tf.constant(images))):
        call(_random_images(7, 30))
        with pytest.raises(tf.errors.InvalidArgumentError, match="at least 7 pixels"):
            call(_random_images(30, 6))


def test_batch_norm_statistics_lose_their_start_within_few_steps():
    network = backbones.build("applications/MobileNetV3Small").get_layer("network")
    momenta = {
        layer.momentum
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert momenta == {0.9}


def _check_both_models(name, tmp_path):
    """Tunes one step, fine-tunes one step, predicts at odd sizes, exports."""
    keras.utils.set_random_seed(0)
    backbone = backbones.build(name)
    _tune(backbone)
    segmenter = _fine_tuned(backbone)
    predictor = mm_keras.Predictor(segmenter)
    images = _random_images(67, 90)
    assert predictor.predict(images).class_ids.shape == (1, 67, 90)
    assert predictor.predict(_random_images(32, 33)).class_ids.shape == (1, 32, 33)
    predictor.export(tmp_path / "model")
    served = tf.saved_model.load(str(tmp_path / "model")).signatures["serve_probabilities"]
    np.testing.assert_allclose(
        served(images=tf.constant(images))["probabilities"],
        predictor.probabilities(images),
        atol=1e-5,
    )


def _tune(backbone):
    model = mm_keras.MixAndMatch(backbone)
    model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01), jit_compile=False)
    before = [variable.numpy() for variable in backbone.variables]
    patches, labels = _random_images(64, 64, batch=8), np.arange(8, dtype="int32") % 3
    figures = tf.function(model.train_step)((patches, labels))
    assert np.isfinite(figures["loss"]) and figures["gradient_norm"] > 0
    after = [variable.numpy() for variable in backbone.variables]
    changed = [np.any(a != b) for a, b in zip(before, after, strict=True)]
    assert np.mean(changed) > 0.8  # biases before a batch norm have no gradient


def _fine_tuned(backbone):
    model = mm_keras.HypercolumnSegmenter(backbone, 3, stddev=1e-2)
    model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01), jit_compile=False)
    labels = np.random.default_rng(1).integers(0, 3, (1, 96, 96)).astype("uint8")
    before = model.score.kernel.numpy()
    figures = tf.function(model.train_step)((_random_images(96, 96), labels))
    assert np.isfinite(figures["loss"]) and figures["non_finite"] == 0
    assert np.any(model.score.kernel.numpy() != before)
    return model


@pytest.mark.slow
def test_a_mobile_net_is_tuned_fine_tuned_and_exported(tmp_path):
    _check_both_models("applications/MobileNetV3Small", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "applications/ResNet50",
        "applications/EfficientNetV2B0",
        "applications/ConvNeXtTiny",
        "applications/MobileNetV3Large",
        "kerascv/ResNet18Backbone",
        "kerashub/resnet_18_imagenet",
    ],
)
def test_networks_are_tuned_fine_tuned_and_exported(name, tmp_path):
    if name.startswith("kerashub"):
        pytest.importorskip("keras_hub")
    _check_both_models(name, tmp_path)


def test_batch_norm_and_dropout_follow_training():
    images = keras.Input((None, None, 3))
    maps = keras.layers.BatchNormalization(name="norm")(_convolution(2)(images))
    network = keras.Model(images, keras.layers.Dropout(0.5)(maps))
    backbone = wrapped.wrap("mine", network, libraries.SYMMETRIC)
    pixels, norm = _random_images(16, 16), network.get_layer("norm")
    before = norm.moving_mean.numpy()
    first, second = (backbone(pixels, training=False)["stride2"].numpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), before)
    dropped = backbone(pixels, training=True)["stride2"].numpy()
    assert 0.3 < np.mean(dropped == 0) < 0.7
    assert np.any(norm.moving_mean.numpy() != before)


def test_weights_survive_saving(tmp_path):
    first, second = (wrapped.wrap("mine", _network(), libraries.RAW) for _ in range(2))
    first.save_weights(tmp_path / "a.weights.h5")
    images = _random_images(24, 24)
    assert np.any(first(images)["stride8"] != second(images)["stride8"])
    second.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(first(images)["stride8"], second(images)["stride8"])


@pytest.mark.slow
@pytest.mark.parametrize("name", libraries.Applications().names())
def test_every_application_takes_images_of_any_size(name):
    # The large members of a family differ in depth and width alone.
    if any(size in name for size in ("B4", "B5", "B6", "B7", "2L", "2M", "Large", "Base", "152")):
        pytest.skip("a larger network of a family that is tested")
    backbone = backbones.build(f"applications/{name}")
    spec = backbone.spec
    assert spec.embedding.stride == 32 and spec.min_size in range(1, 76)
    for height, width in ((spec.min_size, 97), (127, max(spec.min_size, 34))):
        outputs = backbone(_random_images(height, width))
        for tap in spec.taps:
            sides = np.array(outputs[tap.name].shape[1:3])
            expected = np.array([height, width]) / tap.stride
            assert np.all(sides >= 1) and np.all(sides <= np.ceil(expected) + 1)
            assert outputs[tap.name].shape[-1] == tap.channels
