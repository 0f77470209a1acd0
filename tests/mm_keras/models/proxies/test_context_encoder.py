"""The context encoder: its layers, its loss in the hole alone, its figures."""

import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from mm_keras.models.proxies import context_encoder

MEAN = (123, 117, 104)


def build(crop=32, **arguments):
    keras.utils.set_random_seed(0)
    arguments = {"decoder": (8,)} | arguments
    model = context_encoder.ContextEncoder(backbones.build("testing"), crop, **arguments)
    model.compile(
        optimizer=mm_keras.optimizers.LayerwiseAdamW(3e-3, rate_multipliers={}), jit_compile=False
    )
    return model


def batch_of(crop=32, number=2, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (number, crop, crop, 3)).astype("uint8")
    hole = np.zeros((number, crop, crop, 1), "uint8")
    hole[:, 8:24, 4:20] = 1
    filled = np.where(hole > 0, np.array(MEAN, "uint8"), images)
    return {"image": filled, "target": np.concatenate([images, hole], axis=-1)}


def test_the_channelwise_layer_equals_the_golden_values(golden):
    x = (np.arange(8) / 4).reshape(1, 2, 2, 2).astype("float32")
    layer = context_encoder.ChannelwiseDense()
    layer.build(x.shape)
    layer.kernel.assign(np.cos(0.7 * np.arange(32)).reshape(2, 4, 4))
    expected = golden("starts")["channel_wise_fc"]["output"]
    np.testing.assert_allclose(layer(x)[0], expected, atol=1e-6)


def test_the_channelwise_layer_has_the_published_number_of_weights(golden):
    expected = golden("starts")["parameters"]["channel_wise_fc"]
    layer = context_encoder.ChannelwiseDense()
    layer.build((None, 6, 6, 256))
    assert np.prod(layer.kernel.shape) == expected["weights 256 x 36 x 36"]
    assert np.prod(layer.bias.shape) == expected["biases"]


def test_the_published_decoder_of_alexnet_has_five_layers_up():
    network = backbones.build("alexnet", width=1 / 32)
    model = context_encoder.ContextEncoder(network, 227)
    assert model.decoder.input_shape[1:3] == (7, 7)  # pools round up here, and conv1 is padded
    assert model.decoder.output_shape == (None, 7 * 32, 7 * 32, 3)


def test_large_maps_are_reduced_before_the_channelwise_layer():
    decoder = context_encoder._decoder((2, 2, 600), (4,))
    assert decoder.get_layer("channelwise").kernel.shape == (256, 4, 4)


@pytest.mark.parametrize("loss", context_encoder.LOSSES)
def test_the_loss_counts_the_cells_inside_the_hole_alone(loss):
    model, batch = build(loss=loss), batch_of()
    assert model.size == (16, 16)
    outputs = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype("float32")
    found = model.compute_loss(batch["image"], batch["target"], outputs)
    pixels, hole = (np.array(part) for part in model.targets(batch["target"]))
    inside = hole[..., 0] > 0
    assert inside[:, 5:11, 3:9].all() and not inside[:, :4].any() and not inside[:, 12:].any()
    errors = (outputs - pixels)[inside]
    expected = np.mean(errors**2) if loss == "l2" else np.mean(np.abs(errors))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("center", context_encoder.CENTERS)
def test_zeros_of_the_decoder_stand_for_the_center(center):
    model, batch = build(center=center), batch_of()
    last = model.decoder.layers[-1]
    last.set_weights([np.zeros(w.shape) for w in last.get_weights()])
    result = np.array(model(batch["image"]))
    colors = batch["image"].mean(axis=(1, 2), keepdims=True) / 127.5 - 1
    expected = 0 if center == "gray" else colors
    np.testing.assert_allclose(result, np.broadcast_to(expected, result.shape), atol=1e-4)


def test_targets_are_averages_in_minus_one_to_one():
    model = build()
    constant = np.full((1, 32, 32, 4), 255, "uint8")
    constant[..., 3] = 0
    pixels, hole = model.targets(constant)
    np.testing.assert_allclose(pixels, 1, atol=1e-5)
    assert not np.any(hole)
    assert model.compute_loss(None, constant, np.zeros((1, 16, 16, 3), "float32")) == 0


@pytest.mark.slow
def test_a_few_steps_lower_the_loss():
    model, batch = build(), batch_of()
    batch["target"][..., :3] = batch["image"] = np.where(
        batch["target"][..., 3:] > 0, 30, 60
    ).astype("uint8")
    history = model.fit(tf.data.Dataset.from_tensors(batch), epochs=30, verbose=0)
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]


def test_figures_of_a_constant_image_are_the_errors_of_the_fills():
    model, batch = build(), batch_of()
    batch["target"][..., :3] = 51
    batch["image"] = batch["target"][..., :3]
    figures = context_encoder.evaluate(model, [batch], np.array([0.0, 0.0, 0.0]))
    value = 51 / 127.5 - 1
    np.testing.assert_allclose(figures["mean_fill_error"], value**2, rtol=1e-4)
    assert figures["visible_fill_error"] < 1e-8 and figures["nearest_fill_error"] < 1e-8
    assert figures["fill_error"] < 1e-8 < figures["hole_error"]


def test_the_nearest_fill_equals_a_search_over_all_visible_pixels():
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.9):
        hole = rng.random((13, 17)) < share
        image = rng.random((13, 17, 3))
        inside, visible = np.argwhere(hole), np.argwhere(~hole)
        apart = np.sum((inside[:, None] - visible) ** 2, axis=-1)
        expected = image[~hole][np.argmin(apart, axis=1)]
        np.testing.assert_array_equal(context_encoder._nearest(image, hole), expected)


def test_the_nearest_fill_of_a_large_hole_needs_little_memory():
    hole = np.zeros((448, 448), bool)
    hole[100:320, 100:320] = True
    tracemalloc.start()
    context_encoder._nearest(np.zeros((448, 448, 3), "float32"), hole)
    assert tracemalloc.get_traced_memory()[1] < 2e8
    tracemalloc.stop()


def test_the_nearest_fill_takes_the_closest_visible_pixel():
    image = np.arange(5.0)[None, :, None].repeat(3, axis=-1)
    hole = np.array([[False, True, True, True, False]])
    nearest = context_encoder._nearest(image, hole)[:, 0]
    assert nearest[0] == 0 and nearest[1] in (0, 4) and nearest[2] == 4


def test_the_mean_color_is_the_mean_of_the_images():
    model, batch = build(), batch_of()
    batch["target"][..., :3] = (255, 0, 51)
    np.testing.assert_allclose(context_encoder.mean_pixels(model, [batch]), [1, -1, -0.6], 1e-4)


def test_a_filled_image_changes_inside_the_hole_alone():
    model, batch = build(), batch_of()
    filled = np.array(model.fill(batch["image"], batch["target"]))
    assert filled.shape == batch["image"].shape and filled.dtype == np.uint8
    visible = batch["target"][..., 3] == 0
    np.testing.assert_array_equal(filled[visible], batch["image"][visible])
    assert np.any(filled[~visible] != batch["image"][~visible])


def test_wrong_arguments_are_rejected():
    with pytest.raises(ValueError, match="center must be one of .* Received 'zero'"):
        build(center="zero")
    with pytest.raises(ValueError, match="loss must be one of"):
        build(loss="l3")
    with pytest.raises(ValueError, match="leave no cell"):
        network = backbones.build("alexnet_one_column", width=1 / 32)
        context_encoder.ContextEncoder(network, 20)


def test_images_without_a_hole_cannot_be_measured():
    model, batch = build(), batch_of()
    batch["target"][..., 3] = 0
    with pytest.raises(ValueError, match="No hole covers a cell"):
        context_encoder.evaluate(model, [batch], np.zeros(3))
