"""Weights from images without labels: equal channels, equal change rates, golden values."""

import keras
import numpy as np
import pytest

from mm_keras import backbones, layers
from mm_keras.weights import data_dependent, filters


@pytest.fixture(scope="module")
def images():
    """Images with edges and colors, uint8 [8, 64, 64, 3]."""
    return _images(8, 8)


def _images(number, size):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (number, size, size, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return np.clip(blocks + rng.integers(-20, 21, blocks.shape), 0, 255).astype("uint8")


@pytest.fixture
def toy():
    """The golden network in float64, its images, kernels by layer, and the fixed top gradient."""
    inputs = keras.Input((6, 6, 2), dtype="float64")
    options = {"dtype": "float64", "padding": "valid"}
    x = keras.layers.Conv2D(3, 3, activation="relu", name="conv1", **options)(inputs)
    x = keras.layers.MaxPooling2D(2, dtype="float64")(x)
    network = keras.Model(inputs, keras.layers.Conv2D(2, 2, name="conv2", **options)(x))
    images = (((37 * np.arange(288) + 11) % 101) / 50 - 1).reshape(4, 6, 6, 2)
    kernels = {
        "conv1": np.sin(1.7 * np.arange(54) + 0.3).reshape(3, 3, 2, 3),
        "conv2": np.cos(2.3 * np.arange(24) + 0.9).reshape(2, 2, 3, 2),
    }
    return network, images, kernels


@pytest.fixture
def fixed_kernels(toy, monkeypatch):
    """Filters are the golden kernels."""
    monkeypatch.setattr(filters, "kernel", lambda layer, *_: toy[2][layer.name])


def _top(golden):
    gradient = np.array(golden["between"]["top_gradient"])
    return lambda shape: gradient.reshape(shape)


def _units(network):
    return [data_dependent.Unit(network.get_layer(name), None) for name in ("conv1", "conv2")]


def test_both_steps_equal_the_golden_values(golden, toy, fixed_kernels, monkeypatch):
    expected = golden("starts")["data_dependent"]
    network, images, _ = toy
    monkeypatch.setattr(data_dependent, "_equalize", lambda *_: True)
    units = data_dependent.initialize(network, images)
    assert [unit.layer.name for unit in units] == ["conv1", "conv2"]
    within = expected["within"]
    for name in ("conv1", "conv2"):
        np.testing.assert_allclose(network.get_layer(name).bias, within[f"{name}_bias"], atol=1e-7)
    np.testing.assert_allclose(network.get_layer("conv2").kernel, within["conv2_kernel"], atol=1e-7)
    np.testing.assert_allclose(network(images)[:, 0, 0], within["output"], atol=1e-7)

    passes = data_dependent.equalize_chain(network, images, units, _top(expected))
    _assert_passes(passes, expected["between"])
    _assert_final(network, images, expected["between"]["final"])


def test_rescaling_of_loaded_weights_equals_the_golden_values(golden, toy):
    expected = golden("starts")["data_dependent"]
    network, images, kernels = toy
    network.get_layer("conv1").set_weights([kernels["conv1"], np.array([0.2, -0.1, 0.3])])
    network.get_layer("conv2").set_weights([kernels["conv2"], np.array([0.5, -0.4])])
    units = _units(network)
    passes = data_dependent.equalize_chain(network, images, units, _top(expected))
    _assert_passes(passes, expected["between_from_loaded_weights"])
    _assert_final(network, images, expected["between_from_loaded_weights"]["final"])


def _assert_passes(passes, expected):
    *iterations, last = expected["iterations"]
    assert len(passes) == last["stopped_before"]
    for found, golden in zip(passes, [*iterations, last], strict=True):
        np.testing.assert_allclose(found["rates"], golden["ratio"], rtol=1e-7)
        np.testing.assert_allclose(found["target"], golden["target"], rtol=1e-7)
    for found, golden in zip(passes, iterations, strict=False):
        np.testing.assert_allclose(found["deviation"], golden["output_std_before"], rtol=1e-7)


def _assert_final(network, images, final):
    for name in ("conv1", "conv2"):
        layer = network.get_layer(name)
        np.testing.assert_allclose(layer.bias, final[f"{name}_bias"], atol=1e-7)
        size = np.sqrt(np.mean(np.square(layer.kernel)))
        np.testing.assert_allclose(size, final[f"{name}_kernel_rms"], rtol=1e-7)
    np.testing.assert_allclose(network(images)[:, 0, 0], final["output"], atol=1e-7)


def test_the_closed_form_equals_the_golden_values(golden):
    expected = golden("starts")["data_dependent"]["closed_form_with_batch_norm"]
    rates = np.array(expected["rates"])
    found = data_dependent.closed_form(rates)
    np.testing.assert_allclose(found, expected["scale"], rtol=1e-7)
    np.testing.assert_allclose(rates / found**2, expected["rates_after"], rtol=1e-7)


@pytest.mark.parametrize("directions", filters.DIRECTIONS)
def test_channels_of_alexnet_vary_alike_to_five_percent(directions, images):
    keras.utils.set_random_seed(0)
    network = backbones.build("alexnet", width=0.125)
    units = data_dependent.initialize(network, images, directions)
    assert [unit.layer.name for unit in units] == [f"conv{k}" for k in range(1, 6)]
    assert [unit.norm.name for unit in units] == [f"batch_conv{k}" for k in range(1, 6)]
    for unit in units:
        outputs = keras.Model(network.inputs, unit.layer.output)(images)
        deviations = np.std(outputs, axis=(0, 1, 2))
        np.testing.assert_allclose(deviations, deviations.mean(), rtol=0.05)


@pytest.mark.slow
def test_change_rates_stay_equal_to_five_percent_for_other_gradients():
    keras.utils.set_random_seed(0)
    images = _images(32, 16)
    network = backbones.build("alexnet", width=0.25)
    data_dependent.initialize(network, images, seed=0)
    assert data_dependent.spread(network, images, seed=1).rates < 0.05


def test_change_rates_of_alexnet_are_equal_for_the_same_gradients(images, monkeypatch):
    monkeypatch.setattr(data_dependent, "_gaussian", lambda rng: _fixed)
    network = backbones.build("alexnet", width=0.125)
    assert data_dependent.spread(network, images).rates > 0.2
    data_dependent.initialize(network, images)
    found = data_dependent.spread(network, images)
    assert found.rates < 0.01 and found.channels < 0.01


def _fixed(shape):
    return np.random.default_rng(1).normal(size=tuple(shape))


def test_inference_after_initialization_equals_training_on_the_same_images(images):
    for name, width in (("alexnet", 0.125), ("testing", 1)):
        network = backbones.build(name, width=width)
        data_dependent.initialize(network, images)
        top = network.spec.embedding.name
        found = np.array(network(images, training=False)[top])
        expected = np.array(network(images, training=True)[top])
        np.testing.assert_allclose(found, expected, atol=0.02 * expected.max())


def test_rescaling_behind_batch_norm_keeps_the_function_and_equalizes_rates(images):
    keras.utils.set_random_seed(0)
    for name, width in (("alexnet", 0.125), ("testing", 1)):
        network = backbones.build(name, width=width)
        top = network.spec.embedding.name
        before = np.array(network(images)[top])
        units = data_dependent.rescale(network, images, seed=3)
        np.testing.assert_allclose(network(images)[top], before, atol=1e-3 * before.max())
        draw = data_dependent._gaussian(np.random.default_rng(3))
        rates, _ = data_dependent.change_rates(network, images, units, draw)
        np.testing.assert_allclose(rates, rates.mean(), rtol=1e-2)


def test_a_measurement_changes_no_variable(images):
    network = backbones.build("testing")
    before = network.get_weights()
    data_dependent.spread(network, images)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not hasattr(network.get_layer("conv1_1"), "__wrapped__")
    assert "call" not in vars(network.get_layer("conv1_1"))


def test_weights_follow_the_seed(images):
    def kernel(seed):
        network = backbones.build("testing")
        data_dependent.initialize(network, images, seed=seed)
        return np.array(network.get_layer("conv2_1").kernel)

    np.testing.assert_array_equal(kernel(0), kernel(0))
    assert np.any(kernel(0) != kernel(1))


def _branched(norm):
    inputs = keras.Input((None, None, 3))
    first = keras.layers.Conv2D(4, 3, padding="same", name="first")(inputs)
    second = keras.layers.DepthwiseConv2D(3, padding="same", name="second")(first)
    if norm:
        second = keras.layers.BatchNormalization()(second)
    x = keras.layers.Add()([first, second])
    return keras.Model(inputs, keras.layers.ReLU()(x))


@pytest.mark.parametrize("norm", [False, True])
def test_branches_get_the_within_layer_step_alone(norm, images):
    network = _branched(norm)
    units = data_dependent.initialize(network, images)
    assert [unit.norm is not None for unit in units] == [False, norm]
    for unit in units:
        values = keras.Model(network.inputs, unit.layer.output)(images)
        np.testing.assert_allclose(np.mean(values, axis=(0, 1, 2)), 0.1, atol=1e-3)
        np.testing.assert_allclose(np.std(values, axis=(0, 1, 2)), 1, atol=1e-3)
    assert data_dependent.rescale(network, images) == []


def test_a_chain_without_batch_norm_gets_equal_rates_and_an_output_of_deviation_one(images):
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(6, 3, activation="relu")(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu")(layers.CeilMaxPooling()(x))
    network = keras.Model(inputs, keras.layers.Conv2D(5, 3)(x))
    images = images / np.float32(64) - 2
    units = data_dependent.rescale(network, images)
    assert len(units) == 3
    # With new gradients, the rates of so few channels differ by a third.
    last = data_dependent.equalize_chain(network, images, units, _fixed)[-1]
    np.testing.assert_allclose(last["rates"], last["rates"].mean(), rtol=0.02)
    np.testing.assert_allclose(last["deviation"], 1, atol=0.05)


def test_equal_images_are_refused():
    network = backbones.build("testing")
    with pytest.raises(ValueError, match="All pixels of the 3 images are equal"):
        data_dependent.initialize(network, np.full((3, 32, 32, 3), 9, "uint8"))


def test_a_channel_that_does_not_vary_is_refused():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.ReLU()(keras.layers.Rescaling(-1.0)(inputs))  # zero for all pixels
    network = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="conv")(x))
    varied = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3))
    with pytest.raises(ValueError, match="4 of 4 channels of conv do not vary"):
        data_dependent.initialize(network, varied.astype("float32"))


def test_a_network_without_convolutions_is_refused():
    network = keras.Sequential([keras.Input((2, 2, 4)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="has no convolution"):
        data_dependent.initialize(network, np.random.default_rng(0).normal(size=(9, 2, 2, 4)))


def test_a_kernel_without_gradient_is_named(images):
    network = backbones.build("testing")
    network.get_layer("conv2_1").kernel.assign(np.zeros((3, 3, 4, 8)))
    with pytest.raises(ValueError, match="gradients of .*conv2_1.* zero or not finite"):
        data_dependent.rescale(network, images)
