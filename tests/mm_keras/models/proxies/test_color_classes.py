"""The color classes model: its input, targets, prior, weights, figures and pictures."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from mm_keras.layers import lab
from mm_keras.models.proxies import color_bins, color_classes


def build(pixels="lightness", backbone="testing", **arguments):
    keras.utils.set_random_seed(0)
    model = color_classes.ColorClasses(backbones.build(backbone, pixels), **arguments)
    model.compile(
        optimizer=mm_keras.optimizers.LayerwiseAdamW(1e-2, rate_multipliers={}), jit_compile=False
    )
    return model


def images(height=33, width=26, batch=2, seed=1):
    shape = (batch, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")


@pytest.mark.parametrize("pixels", ["lightness", "bgr"])
def test_the_network_sees_the_lightness_alone(pixels):
    model = build(pixels)
    shown = images()
    gray = np.array(lab.gray_of_same_lightness(shown))
    np.testing.assert_allclose(model({"image": shown}), model({"image": gray}), atol=1e-4)
    assert np.any(np.array(model({"image": shown // 2})) != np.array(model({"image": shown})))


@pytest.mark.parametrize(("height", "width"), [(33, 26), (32, 24), (8, 8), (1, 9)])
def test_there_is_a_target_at_every_eighth_pixel(height, width):
    shown = images(height, width)
    logits = build()({"image": shown})
    assert logits.shape == (2, -(-height // 8), -(-width // 8), 313)
    expected = lab.rgb_to_lab(shown[:, ::8, ::8])[..., 1:]
    np.testing.assert_allclose(color_classes.target_colors(shown), expected, atol=1e-3)


def test_the_head_of_alexnet_keeps_the_size_and_gives_the_published_targets(golden):
    sizes = golden("starts")["sizes"]["colorful and split-brain, 180"]
    network = backbones.build("alexnet", "lightness", width=1 / 32)
    shapes = network.compute_output_shape((1, 180, 180, 3))
    # This AlexNet pools without padding, so conv5 has 11 cells and not the published 12.
    assert shapes["conv1"][1] == sizes["conv1"] and shapes["conv5"][1] == 11
    model = color_classes.ColorClasses(network, fc6_size=6)
    assert model.tap.name == "conv5" and model.head.get_layer("fc6").kernel.shape[:2] == (6, 6)
    assert model.head.compute_output_shape((1, 12, 12, 8))[1] == sizes["fc8"]
    assert model({"image": images(180, 180, 1)}).shape[1] == sizes["ab_target"]


def test_the_prior_is_the_mean_encoding_with_one_count_for_each_bin(golden):
    model = build()
    blue = np.tile(np.array([0, 0, 255], "uint8"), (3, 16, 16, 1))  # 2 x 2 targets each
    model.set_prior([{"image": blue}])
    bins, weights = color_bins.soft_encoding(np.array(lab.rgb_to_lab(blue[0, 0, 0]))[1:])
    expected = np.ones(313)
    expected[bins.numpy()] += 12 * weights.numpy()
    np.testing.assert_allclose(model.prior, expected / (12 + 313), rtol=1e-4)
    np.testing.assert_allclose(np.sum(model.prior * model.class_weights()), 1, rtol=1e-5)


def test_the_loss_equals_a_loop_over_targets():
    model, shown = build(), images()
    model.set_prior([{"image": shown}])
    logits = np.array(model({"image": shown}), "float64")
    colors = np.array(color_classes.target_colors(shown)).reshape(-1, 2)
    weights = np.array(color_bins.rebalancing_weights(model.prior))
    values, entropies = [], []
    for color, row in zip(colors, logits.reshape(-1, 313), strict=True):
        squares = np.sum((color_bins.BINS - color) ** 2, axis=1)
        nearest = np.argsort(squares)[:10]
        code = np.exp(-squares[nearest] / 50)
        logs = row - np.log(np.exp(row).sum())
        entropies.append(-np.sum(code / code.sum() * logs[nearest]))
        values.append(weights[nearest[0]] * entropies[-1])
    loss = model.compute_loss({"image": shown}, y_pred=model({"image": shown}))
    np.testing.assert_allclose(loss, np.mean(values), rtol=1e-4)
    figures = model.get_metrics_result()
    np.testing.assert_allclose(figures["cross_entropy"], np.mean(entropies), rtol=1e-4)


def test_images_without_color_have_no_weight():
    model = build()
    gray = images().mean(-1, keepdims=True).repeat(3, -1).astype("uint8")
    assert model.compute_loss({"image": gray}, y_pred=model({"image": gray})) == 0
    one = np.concatenate([gray[:1], images()[:1]])
    half = model.compute_loss({"image": one}, y_pred=model({"image": one}))
    alone = model.compute_loss({"image": one[1:]}, y_pred=model({"image": one[1:]}))
    np.testing.assert_allclose(half, alone / 2, rtol=1e-5)


@pytest.mark.slow
def test_a_few_steps_learn_colors_that_follow_from_the_lightness():
    model = build()
    shown = np.zeros((4, 32, 32, 3), "uint8")
    shown[:, :, :16], shown[:, :, 16:] = (200, 30, 30), (20, 20, 90)
    batch = {"image": shown}
    model.set_prior([batch])
    model.fit(tf.data.Dataset.from_tensors(batch).repeat(30), verbose=0)
    for norm in (layer for layer in model.backbone.layers if "batch" in layer.name):
        norm.momentum = 0.0
    model.training_pass(batch)
    figures = color_classes.evaluate(model, [batch])
    assert figures["color_cross_entropy"] < 0.8 * figures["color_prior_cross_entropy"]
    assert set(figures) == {
        "color_cross_entropy",
        "color_prior_cross_entropy",
        "color_auc",
        "gray_auc",
    }


def test_a_model_that_predicts_the_prior_has_its_cross_entropy():
    model, shown = build(), images()
    model.set_prior([{"image": shown}])
    head = model.head.get_layer("classes")
    head.kernel.assign(np.zeros(head.kernel.shape))
    head.bias.assign(np.log(model.prior * model.class_weights()))  # as the weights shift it
    figures = color_classes.evaluate(model, [{"image": shown}])
    prior = figures["color_prior_cross_entropy"]
    np.testing.assert_allclose(figures["color_cross_entropy"], prior, rtol=1e-5)


def test_painted_images_keep_their_lightness():
    model, shown = build(), images()
    painted = np.array(model.colorize(shown))
    assert painted.shape == shown.shape and painted.dtype == np.uint8
    apart = lab.rgb_to_lab(painted)[..., 0] - lab.rgb_to_lab(shown)[..., 0]
    assert np.median(np.abs(apart)) < 1  # only clipped colors change it


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="no batch to measure"):
        color_classes.evaluate(build(), [])
