"""The split-brain model: two networks that never mix, their targets, priors and figures."""

import keras
import numpy as np
import pytest

import mm_keras
from mm_keras import backbones, layers
from mm_keras.layers import lab
from mm_keras.models.proxies import color_bins, split_brain

SIDE = 96  # conv5 has 5 cells


def build(optimizer=None):
    keras.utils.set_random_seed(0)
    model = split_brain.SplitBrain(backbones.build("alexnet", "lab", width=1 / 32))
    model.compile(
        optimizer=optimizer or mm_keras.optimizers.LayerwiseAdamW(1e-2, rate_multipliers={})
    )
    return model


def images(batch=2, side=SIDE, seed=1):
    shape = (batch, side, side, 3)
    return np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")


def conv5(model, pixels):
    """The map of both halves for pixels in Lab, [B, H, W, 3]."""
    backbone = model.backbone
    network = keras.Model(
        backbone.get_layer("input_adapter").output, backbone.get_layer("relu_conv5").output
    )
    return np.split(np.array(network(pixels)), 2, axis=-1)


def test_joined_kernels_are_the_published_example(golden):
    case = golden("starts")["split_brain_join"]
    joined = np.ones((1, 1, 3, 4))
    joined[0, 0, :1, :2], joined[0, 0, 1:, 2:] = case["L_kernel"], case["ab_kernel"]
    first = np.array(split_brain.Halves(1)(joined))
    np.testing.assert_array_equal(first[0, 0], case["joined_first"])
    dense = np.ones((1, 1, 4, 4))
    dense[0, 0, :2, :2], dense[0, 0, 2:, 2:] = case["half_1"], case["half_2"]
    second = np.array(split_brain.Halves(2)(dense))
    np.testing.assert_array_equal(second[0, 0], case["joined_dense"])
    output = np.array(case["input_L_a_b"]) @ first[0, 0]
    np.testing.assert_allclose(output, case["output_of_joined_first"])
    np.testing.assert_allclose(output @ second[0, 0], case["output_after_joined_dense"])


def test_lightness_bins_are_the_published_ones(golden):
    case = golden("starts")["lightness_bins"]
    bins = color_bins.lightness_bins(np.array(case["L"]))
    np.testing.assert_array_equal(bins, case["bin"])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_no_half_sees_the_channels_that_it_predicts_even_after_training(optimizer):
    model = build(mm_keras.optimizers.CoupledSGD(0.1) if optimizer == "sgd" else None)
    start = np.array(model.backbone.get_layer("conv3").kernel)
    model.train_step({"image": images()})
    assert np.any(np.array(model.backbone.get_layer("conv3").kernel) != start)
    pixels = np.random.default_rng(0).normal(size=(1, SIDE, SIDE, 3)) * 30
    of_lightness, of_color = conv5(model, pixels)
    for channels, is_color in (([1, 2], True), ([0], False)):
        changed = pixels.copy()
        changed[..., channels] += 20
        from_lightness, from_color = conv5(model, changed)
        assert np.array_equal(from_lightness, of_lightness) == is_color
        assert np.array_equal(from_color, of_color) != is_color


def test_targets_lie_at_every_sixteenth_pixel_as_published(golden):
    sizes = golden("starts")["sizes"]["colorful and split-brain, 180"]
    shown = images(1, 180)
    bins = split_brain.target_bins(shown)
    assert bins["color"].shape == bins["lightness"].shape == (1, 12, 12)
    assert bins["color"].shape[1] == sizes["stride_16_target"]
    outputs = build()({"image": shown})
    assert outputs["color"].shape == (1, 12, 12, 313)
    assert outputs["lightness"].shape == (1, 12, 12, 50)


def test_both_halves_have_the_published_number_of_weights(golden):
    expected = golden("starts")["parameters"]["split_brain_kernels"]
    model = split_brain.SplitBrain(backbones.build("alexnet", "lab"))
    found = {}
    for k in range(1, 6):
        kernel = np.asarray(model.backbone.get_layer(f"conv{k}").kernel)
        found[f"conv{k}"] = np.count_nonzero(kernel)  # zeros lie between the halves alone
    for head in model.heads.values():
        for layer in ("fc6", "fc7", "classes"):
            found[layer] = found.get(layer, 0) + np.prod(head.get_layer(layer).kernel.shape)
    assert found["conv1"] == expected["conv1 L"] + expected["conv1 ab"]
    for name in ("conv2", "conv3", "conv4", "conv5", "fc6", "fc7"):
        assert found[name] == expected[name], name
    assert found["classes"] == expected["fc8 ab"] + expected["fc8 L"]
    assert sum(found.values()) == expected["sum"]


def test_the_merged_network_normalizes_no_responses_across_its_halves():
    backbone = build().backbone
    kinds = layers.LocalResponseNormalization
    assert not any(isinstance(layer, kinds) for layer in backbone.layers)
    merged = backbones.build("alexnet", "lab", width=1 / 32)
    merged.set_weights(backbone.get_weights())
    shown = images()
    np.testing.assert_allclose(merged(shown)["pool5"], backbone(shown)["pool5"], atol=1e-5)
    assert all(variable.constraint is None for variable in merged.trainable_variables)


def test_the_loss_is_the_sum_of_two_cross_entropies_of_single_bins():
    model, shown = build(), images()
    outputs = model({"image": shown})
    total, colors = 0.0, np.array(lab.rgb_to_lab(shown[:, ::16, ::16]))
    nearest = [
        np.argmin(np.sum((color_bins.BINS - color) ** 2, axis=1))
        for color in colors[..., 1:].reshape(-1, 2)
    ]
    darkness = np.minimum(49, colors[..., 0].ravel() // 2).astype(int)
    for key, truth in (("color", nearest), ("lightness", darkness)):
        logits = np.array(outputs[key], "float64").reshape(len(truth), -1)
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        total -= np.mean(logs[np.arange(len(truth)), truth])
    np.testing.assert_allclose(model.compute_loss({"image": shown}, y_pred=outputs), total, 1e-4)
    figures = model.get_metrics_result()
    parts = figures["color_cross_entropy"] + figures["lightness_cross_entropy"]
    np.testing.assert_allclose(parts, total, rtol=1e-4)


def test_priors_have_one_count_for_each_bin_and_are_the_baseline():
    model = build()
    blue = np.tile(np.array([0, 0, 255], "uint8"), (3, 32, 32, 1))  # 2 x 2 targets each
    model.set_prior([{"image": blue}])
    bins = split_brain.target_bins(blue)
    for key, number in (("color", 313), ("lightness", 50)):
        prior = np.array(model.priors[key])
        np.testing.assert_allclose(prior[bins[key][0, 0, 0]], 13 / (12 + number), rtol=1e-5)
        np.testing.assert_allclose(prior.sum(), 1, rtol=1e-5)
    figures = split_brain.evaluate(model, [{"image": np.tile(blue, (1, 3, 3, 1))}])
    expected = -np.log(13 / (12 + 313))
    np.testing.assert_allclose(figures["color_prior_cross_entropy"], expected, rtol=1e-5)
    assert set(figures) == {
        f"{key}{kind}_cross_entropy" for key in split_brain.TARGETS for kind in ("", "_prior")
    }


@pytest.mark.parametrize(
    ("name", "pixels"), [("testing", "lab"), ("alexnet", "bgr"), ("alexnet", "lightness")]
)
def test_other_networks_are_refused_in_one_sentence(name, pixels):
    backbone = backbones.build(name, pixels, width=1 / 32)
    with pytest.raises(ValueError, match=r"cuts alexnet with pixels 'lab'.* Received " + name):
        split_brain.SplitBrain(backbone)


def test_no_batch_to_measure_is_an_error():
    with pytest.raises(ValueError, match="no batch"):
        split_brain.evaluate(build(), [])


def test_painted_images_have_the_size_and_lightness_of_the_original():
    shown = images(1)
    painted = np.array(build().colorize(shown))
    assert painted.shape == shown.shape and painted.dtype == np.uint8
