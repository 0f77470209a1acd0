"""Large images in windows and bands: equal to the whole image, bounded, refused where too small."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from mm_keras.inference import bands, protocols, windows


def _model(seed=0, has_context=True):
    keras.utils.set_random_seed(seed)
    backbone = backbones.build("testing")
    if not has_context:  # fc6 and the pooling above it see hundreds of pixels
        backbone.spec = dataclasses.replace(backbone.spec, context_units=())
    model = mm_keras.HypercolumnSegmenter(backbone, 4, output_stride=2)
    rng = np.random.default_rng(seed)
    for variable in (*model.hypercolumn.weights, *model.score.weights):
        variable.assign(rng.normal(scale=0.1, size=variable.shape))
    return model


def _images(height, width, batch=1):
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3)).astype("uint8")


@pytest.mark.parametrize(("window", "overlap"), [(32, 0), (32, 16), (40, 30)])
def test_a_function_of_each_pixel_gives_the_same_in_windows(window, overlap):
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def in_windows(pixels):
        strips = windows.Strips(
            lambda part: tf.cast(part[:, ::2, ::2], tf.float32),
            pixels,
            windows.Windows(window, overlap, 8),
            stride=2,
            channels=3,
        )
        return strips.all_rows()

    for size in [(1, 1), (31, 33), (64, 100), (97, 65), (130, 71)]:
        pixels = _images(*size, batch=2)
        np.testing.assert_allclose(in_windows(pixels), pixels[:, ::2, ::2], rtol=1e-5)


def test_windows_are_blended_linearly_over_the_overlap():
    calls = []

    def number(pixels):
        calls.append(1)
        value = pixels[0, 0, 0, 0]  # the first pixel of the window
        return tf.ones(tf.shape(pixels)[:3])[..., None] * tf.cast(value, tf.float32)

    pixels = np.zeros((1, 8, 48, 3), np.uint8)
    pixels[:, :, 16:] = 100  # windows 0..31 and 16..47
    strips = windows.Strips(number, tf.constant(pixels), windows.Windows(32, 16, 16), 1, 1)
    row = strips.all_rows()[0, 3, :, 0].numpy()
    assert (row[:16] == 0).all() and (row[32:] == 100).all()
    up, down = np.arange(1, 17) / 16, np.arange(16, 0, -1) / 16
    np.testing.assert_allclose(row[16:32], 100 * up / (up + down), rtol=1e-5)


def test_rows_on_demand_equal_all_rows_and_forget_the_ones_above():
    pixels = tf.constant(_images(150, 40, batch=2))
    calls = []

    def function(part):
        calls.append(1)
        return tf.cast(part[:, ::2, ::2], tf.float32)

    strips = windows.Strips(function, pixels, windows.Windows(32, 16, 8), 2, 3)
    expected = strips.all_rows()
    num_calls, state = len(calls), strips.start()
    for first, end in [(0, 1), (0, 9), (8, 30), (29, 30), (29, 32), (50, 74), (74, 75)]:
        state, found, start = strips.rows(state, first, end)
        assert start <= first and start + found.shape[1] >= end
        np.testing.assert_array_equal(
            found[:, first - start :][:, : end - first], expected[:, first:end]
        )
    assert len(calls) == 2 * num_calls  # each window once
    assert start == first and state.finished.shape[1] == 1


def test_predictions_equal_the_whole_image_away_from_the_borders_of_windows():
    model, images = _model(has_context=False), _images(96, 130)
    whole = mm_keras.Predictor(model).probabilities(images).numpy()
    parts = mm_keras.Predictor(model, window=64, overlap=32).probabilities(images).numpy()
    np.testing.assert_allclose(parts.sum(-1), 1, atol=1e-5)
    # The second window begins at 32, and the first one ends at 64, beyond the reach of the network.
    inside = (0, slice(0, 31), slice(0, 31))
    np.testing.assert_allclose(parts[inside], whole[inside], atol=1e-5)
    assert np.abs(parts - whole).max() > 1e-4  # windows were used


MANY_VIEWS = pytest.param({"flip": True, "scales": (1, 1.5)}, marks=pytest.mark.slow)


WINDOWS = {"window": 64, "overlap": 32}
MANY_WINDOWS = pytest.param(
    {"flip": True, "scales": (1, 1.5), "shorter_side": 60, **WINDOWS}, marks=pytest.mark.slow
)


@pytest.mark.parametrize("options", [{}, MANY_VIEWS, {"shorter_side": 20}, WINDOWS, MANY_WINDOWS])
def test_bands_give_the_classes_of_the_probabilities(options, monkeypatch):
    predictor, images = mm_keras.Predictor(_model(), **options), _images(135, 76, batch=2)
    monkeypatch.setattr(bands, "BAND_BYTES", 7 * 4 * 4 * 2 * 76)  # seven rows
    prediction, probabilities = predictor.predict(images), predictor.probabilities(images).numpy()
    np.testing.assert_allclose(prediction.probability, probabilities.max(-1), atol=1e-6)
    np.testing.assert_array_equal(prediction.class_ids, probabilities.argmax(-1))
    assert prediction.class_ids.dtype == tf.int32


@pytest.mark.slow  # saves and loads a model
def test_the_saved_model_has_the_windows(tmp_path):
    predictor, images = mm_keras.Predictor(_model(), window=64, overlap=32), _images(100, 50)
    predictor.export(tmp_path / "model")
    served = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    found = served(images=tf.constant(images))
    np.testing.assert_array_equal(found["class_ids"], predictor.predict(images).class_ids)


@pytest.mark.parametrize(
    ("window", "overlap", "message"),
    [(32, 32, "leave no step"), (32, 30, "leave no step"), (32, -1, "leave no step")],
)
def test_windows_without_a_step_are_refused(window, overlap, message):
    with pytest.raises(ValueError, match=message):
        mm_keras.Predictor(_model(), window=window, overlap=overlap)


def test_a_window_below_the_smallest_size_of_the_network_is_refused():
    model = mm_keras.FcnSegmenter(backbones.build("alexnet", width=0.1), 3)
    least = model.backbone.spec.min_size
    with pytest.raises(ValueError, match=f"window must be at least {least} pixels for alexnet"):
        mm_keras.Predictor(model, window=least - 1)


@pytest.mark.parametrize("protocol", ["pascal", "cityscapes"])
def test_protocols_with_their_own_inputs_take_no_window(protocol):
    with pytest.raises(ValueError, match="at most 512 pixels"):
        protocols.check(protocol, None, (1.0,), window=600)
