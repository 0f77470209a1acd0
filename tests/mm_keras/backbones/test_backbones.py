"""Shapes, parameter counts and initial weights of the networks."""

import keras
import numpy as np
import pytest

from mm_keras import backbones, layers


@pytest.mark.parametrize(("pixels", "count"), [("gray", 14_713_536), ("bgr", 14_714_688)])
def test_vgg16_has_as_many_convolution_weights_as_published(pixels, count):
    backbone = backbones.build("vgg16", pixels)
    convolutions = [layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 13
    assert sum(layer.count_params() for layer in convolutions) == count


@pytest.mark.parametrize("case", range(4))
def test_vgg16_maps_have_caffe_sizes(golden, case):
    sizes = golden("network")["vgg16_sizes"][case]
    backbone = backbones.build("vgg16", width=0.02)
    outputs = backbone.compute_output_shape((1, sizes["input"], sizes["input"], 3))
    strides = {tap.name: outputs[tap.name][1] for tap in backbone.spec.taps}
    assert strides["conv1_1"] == sizes["conv1"]
    assert [strides[f"conv{k}_1"] for k in (2, 3, 4, 5)] == [
        sizes[f"pool{k}"] for k in (1, 2, 3, 4)
    ]
    assert outputs["pool5"][1] == sizes["pool5"]


def test_strides_of_the_spec_equal_the_strides_of_the_maps():
    backbone = backbones.build("testing")
    outputs = backbone(np.zeros((1, 45, 52, 3), "uint8"))
    for tap in (*backbone.spec.taps, backbone.spec.embedding):
        assert outputs[tap.name].shape[1:] == (
            -(-45 // tap.stride),
            -(-52 // tap.stride),
            tap.channels,
        )


def test_width_scales_everything():
    spec = backbones.build("vgg16", width=0.25).spec
    assert [tap.channels for tap in spec.taps[1:]] == [16] * 2 + [32] * 2 + [64] * 3 + [128] * 6
    assert spec.context_units == (1024, 1024, 256, 256) and spec.hypercolumn_units == 256


def test_initial_weights_are_xavier_uniform_and_differ_between_layers():
    backbone = backbones.build("vgg16", width=0.5)
    kernels = [backbone.get_layer(f"conv5_{k}").kernel.numpy() for k in (1, 2, 3)]
    limit = np.sqrt(3 / (256 * 9))
    for kernel in kernels:
        assert 0.99 * limit < np.abs(kernel).max() <= limit
        np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.01)
    assert np.abs(kernels[0] - kernels[1]).max() > 0
    assert not backbone.get_layer("conv5_1").bias.numpy().any()


def test_batch_norm_follows_caffe(golden):
    case = golden("network")["batchnorm"]
    layer = layers.BatchNormalization(momentum=0.9, epsilon=case["eps"])
    template = backbones.build("testing").get_layer("batch_conv1_1")
    assert (template.momentum, template.epsilon) == (layer.momentum, layer.epsilon)
    layer.build((None, None, None, 1))
    layer.moving_variance.assign([0.0])  # Caffe starts there
    for step in case["steps"]:
        batch = np.reshape(step["batch"], (-1, 1, 1, 1)).astype("float32")
        output = np.ravel(layer(batch, training=True))
        np.testing.assert_allclose(output, step["train_output"], atol=1e-5)
        np.testing.assert_allclose(layer.moving_mean.numpy(), [step["BN_running_mean"]], rtol=1e-5)
        np.testing.assert_allclose(
            layer.moving_variance.numpy(), [step["BN_running_var_biased_update"]], rtol=1e-5
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vgg"}, "Unknown backbone 'vgg'.*Did you mean 'vgg16'"),
        ({"name": "vgg16", "pixels": "grey"}, "Did you mean 'gray'"),
        ({"name": "vgg16", "width": 0}, "width must be positive"),
    ],
)
def test_unknown_arguments_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        backbones.build(**arguments)
