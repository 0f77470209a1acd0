"""AlexNet: sizes, counts and starts as published, and features against TensorFlow's own ops."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones, layers

VARIANTS = ("gray", "bgr", "jigsaw")


def _images(height=61, width=70, batch=2):
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3)).astype("uint8")


def _tiny(pixels="bgr", name="alexnet"):
    keras.utils.set_random_seed(0)
    return backbones.build(name, pixels, width=0.04)


@pytest.mark.parametrize(
    ("name", "pixels", "count"),
    [
        ("alexnet", "gray", 2_310_848),
        ("alexnet", "bgr", 2_334_080),
        ("alexnet", "jigsaw", 2_334_080),
        ("alexnet_one_column", "torch", 2_469_696),  # torchvision's `features`
    ],
)
def test_as_many_convolution_weights_as_published(name, pixels, count):
    backbone = backbones.build(name, pixels)
    convolutions = [layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.name for layer in convolutions] == [f"conv{k}" for k in range(1, 6)]
    assert sum(layer.count_params() for layer in convolutions) == count


@pytest.mark.parametrize("pixels", VARIANTS)
@pytest.mark.parametrize("case", range(4))
def test_maps_have_caffe_sizes(golden, pixels, case):
    sizes = golden("alexnet")["sizes"]["jigsaw" if pixels == "jigsaw" else "bgr"][case]
    backbone = _tiny(pixels)
    shapes = backbone.compute_output_shape((1, sizes["input"], sizes["input"], 3))
    assert shapes["conv1"][1] == sizes["conv1"] and shapes["conv2"][1] == sizes["conv2"]
    assert {shapes[f"conv{k}"][1] for k in (3, 4, 5)} == {sizes["conv3_to_5"]}
    assert shapes["pool5"][1] == sizes["pool5"]
    assert sizes["pool5"] ** 2 * 256 == sizes["pool5_flat"]


def test_one_column_has_torchvision_sizes():
    shapes = _tiny("torch", "alexnet_one_column").compute_output_shape((1, 224, 63, 3))
    assert [shapes[f"conv{k}"][1:3] for k in (1, 2, 3)] == [(55, 15), (27, 7), (13, 3)]
    assert shapes["pool5"][1:3] == (6, 1)


@pytest.mark.parametrize("pixels", VARIANTS)
def test_the_spec_describes_the_network(pixels):
    spec = backbones.build("alexnet", pixels, width=0.5).spec
    assert [(tap.name, tap.stride, tap.channels) for tap in spec.taps] == [
        ("input", 1, 1 if pixels == "gray" else 3),
        ("conv1", 4, 48),
        ("conv2", 8, 128),
        ("conv3", 16, 192),
        ("conv4", 16, 192),
        ("conv5", 16, 128),
    ]
    assert spec.embedding == backbones.Tap("pool5", 32, 128)
    assert spec.segmenter == "fcn" and spec.context_units == (2048, 2048)


@pytest.mark.parametrize("width", [0.001, 0.03, 0.07, 0.33])
def test_channels_stay_divisible_by_the_groups(width):
    channels = [tap.channels for tap in backbones.build("alexnet", width=width).spec.taps[1:]]
    assert all(count >= 2 and count % 2 == 0 for count in channels)
    np.testing.assert_allclose(channels, width * np.array([96, 256, 384, 384, 256]), atol=2)


@pytest.mark.parametrize(
    ("pixels", "biases"), [("gray", (0, 0.1, 0, 0.1, 0.1)), ("jigsaw", (0, 1, 0, 1, 1))]
)
def test_initial_weights_follow_the_release(pixels, biases):
    backbone = backbones.build("alexnet", pixels, width=0.5)
    for k, bias in enumerate(biases, start=1):
        layer = backbone.get_layer(f"conv{k}")
        np.testing.assert_allclose(layer.kernel.numpy().std(), 0.01, rtol=0.05)
        assert np.abs(layer.kernel).max() > 0.025  # Caffe's Gaussian is not cut at two deviations
        np.testing.assert_allclose(layer.bias, bias)


def test_batch_norm_has_its_own_layer_after_each_convolution():
    backbone = _tiny()
    for k in range(1, 6):
        layer = backbone.get_layer(f"batch_conv{k}")
        assert isinstance(layer, layers.AccumulatedBatchNormalization)
        assert (layer.fraction, layer.epsilon) == (0.999, 1e-5)
        assert layer.input is backbone.get_layer(f"conv{k}").output


@pytest.mark.parametrize(
    ("pixels", "first", "second"), [("bgr", "norm", "pool"), ("jigsaw", "pool", "norm")]
)
def test_order_of_pooling_and_response_normalization(pixels, first, second):
    """After batch norm the responses change by 1e-4, too little to see the order in features."""
    backbone = _tiny(pixels)
    for k in (1, 2):
        outputs = [backbone.get_layer(f"{name}{k}").output for name in (first, second)]
        assert backbone.get_layer(f"{first}{k}").input is backbone.get_layer(f"relu_conv{k}").output
        assert backbone.get_layer(f"{second}{k}").input is outputs[0]
        assert backbone.get_layer(f"conv{k + 1}").input is outputs[1]


def _normalize_responses(features):
    return tf.nn.local_response_normalization(features, 2, 1.0, 2e-5, 0.75)


def _pool(features, border):
    """3 x 3 at stride 2 over a map with `border` cells of -inf in front and enough behind."""
    behind = [border + (length + 2 * border - 3) % 2 for length in features.shape[1:3]]
    paddings = [[0, 0], [border, behind[0]], [border, behind[1]], [0, 0]]
    padded = tf.pad(features, paddings, constant_values=-np.inf)
    # A last window that starts in the rear border is not Caffe's.
    kept = [(length + border + 1) // 2 for length in features.shape[1:3]]
    return tf.nn.max_pool(padded, 3, 2, "VALID")[:, : kept[0], : kept[1]]


def _plain_alexnet(backbone, images, first_border, narrow):
    """pool5 without any layer of ours: explicit paddings, TensorFlow's groups, batch statistics."""
    features = backbone.get_layer("input_adapter")(images)
    for k, border in enumerate((first_border, 2, 1, 1, 1), start=1):
        layer = backbone.get_layer(f"conv{k}")
        paddings = [[0, 0], [border, border], [border, border], [0, 0]]
        features = tf.nn.conv2d(features, layer.kernel.value, 4 if k == 1 else 1, paddings)
        mean, variance = tf.nn.moments(features, (0, 1, 2))
        features = tf.nn.relu((features - mean) * tf.math.rsqrt(variance + 1e-5))
        if k in (1, 2, 5):
            features = narrow(features, k < 5)
    return features


def _colorize(features, normalizes):
    return _pool(_normalize_responses(features) if normalizes else features, 0)


def _jigsaw(features, normalizes):
    pooled = _pool(features, 1)
    return _normalize_responses(pooled) if normalizes else pooled


def _one_column(features, normalizes):
    return tf.nn.max_pool(features, 3, 2, "VALID")


@pytest.mark.parametrize("size", [(64, 64), (67, 95), (127, 72)])
@pytest.mark.parametrize(
    ("name", "pixels", "first_border", "narrow"),
    [
        ("alexnet", "gray", 5, _colorize),
        ("alexnet", "bgr", 5, _colorize),
        ("alexnet", "jigsaw", 5, _jigsaw),
        ("alexnet_one_column", "torch", 2, _one_column),
    ],
)
def test_features_equal_plain_operations(name, pixels, first_border, narrow, size):
    backbone, images = _tiny(pixels, name), _images(*size)
    for k in range(1, 6):  # so that a missing ReLU, group or response would be seen
        kernel = backbone.get_layer(f"conv{k}").kernel
        kernel.assign(100 * kernel)
    features = backbone(images, training=True)["pool5"]
    expected = _plain_alexnet(backbone, images, first_border, narrow)
    np.testing.assert_allclose(features, expected, atol=2e-4)
    assert np.max(expected) > 1


def test_taps_are_the_maps_after_their_relu():
    backbone = _tiny()
    names = [f"conv{k}" for k in range(1, 6)]
    relus = keras.Model(backbone.input, [backbone.get_layer(f"relu_{n}").output for n in names])
    outputs = backbone(_images())
    for name, expected in zip(names, relus(_images()), strict=True):
        np.testing.assert_array_equal(outputs[name], expected)


def test_one_column_without_statistics_is_the_network_without_batch_norm():
    backbone, images = _tiny("torch", "alexnet_one_column"), _images(64, 64)
    features = backbone.get_layer("input_adapter")(images)
    for k in range(1, 6):
        layer = backbone.get_layer(f"conv{k}")
        if k == 1:
            features = tf.pad(features, [[0, 0], [2, 2], [2, 2], [0, 0]])
        features = tf.nn.relu(layer(features))
        features = tf.nn.max_pool(features, 3, 2, "VALID") if k in (1, 2, 5) else features
    np.testing.assert_allclose(backbone(images)["pool5"], features, rtol=1e-4, atol=1e-7)


def test_images_of_any_size_are_accepted():
    backbone = _tiny("jigsaw")
    function = tf.function(
        lambda images: backbone(images)["pool5"],
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)],
    )
    for size in ((1, 1), (5, 200), (64, 61)):
        expected = backbone(_images(*size))["pool5"]
        np.testing.assert_allclose(function(_images(*size)), expected, atol=1e-5)


def test_tuning_moves_every_convolution():
    backbone = _tiny("jigsaw")
    model = mm_keras.MixAndMatch(backbone)
    model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01), jit_compile=False)
    before = {w.path: w.numpy() for w in backbone.trainable_weights if w.name == "kernel"}
    labels = np.arange(12, dtype="int32") % 3
    figures = model.train_step((_images(64, 64, 12), labels))
    assert 0 < figures["loss"] < 4.2 and figures["non_finite"] == 0
    moved = [w.path for w in backbone.trainable_weights if np.any(before.get(w.path) != w.numpy())]
    assert set(before) <= set(moved) and len(before) == 5
    np.testing.assert_array_equal(backbone.get_layer("batch_conv5").factor.numpy(), [1])


def test_a_mixed_float16_step_is_finite():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = mm_keras.MixAndMatch(_tiny())
        model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01), jit_compile=False)
        figures = model.train_step((_images(64, 64, 6), np.arange(6, dtype="int32") % 2))
        batch_norm = model.backbone.get_layer("batch_conv1")
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(figures["loss"]) and np.all(np.isfinite(batch_norm.accumulated_variance))
    assert batch_norm.compute_dtype == "float16" and batch_norm.factor.dtype == "float32"
