"""Vision transformers as backbones, on a small one of plain Keras layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from mm_keras.backbones import positions, transformers
from mm_keras.backbones.spec import Backbone, BackboneSpec, Tap

PATCH, CHANNELS = 14, 8


class Block(keras.layers.Layer):
    """A block without position: it mixes each token with the mean of all tokens."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(
            CHANNELS, kernel_initializer=keras.initializers.Orthogonal(1)
        )
        self.dense.build((None, None, CHANNELS))
        self.built = True

    def call(self, tokens, training=False):
        scale = 2.0 if training else 1.0
        return tokens + scale * self.dense(keras.ops.mean(tokens, axis=1, keepdims=True))


def _parts(num_blocks=2, tokens=3, grid=(3, 4)):
    rng = np.random.default_rng(0)
    projection = keras.layers.Conv2D(
        CHANNELS, PATCH, PATCH, kernel_initializer=keras.initializers.RandomNormal(0.02, seed=0)
    )
    projection.build((None, None, None, 3))
    norm = keras.layers.LayerNormalization()
    norm.build((None, None, CHANNELS))
    rows = grid[0] * grid[1] + (tokens > 0)
    values = [rng.normal(size=(1, count, CHANNELS)) for count in (1, tokens - 1) if tokens > 1]
    return transformers.Parts(
        projection=projection,
        blocks=[Block(name=f"block{k}") for k in range(num_blocks)],
        norm=norm,
        tokens=values,
        table=rng.normal(size=(1, rows, CHANNELS)).astype("float32"),
        grid=grid,
    )


def _backbone(**arguments):
    parts = _parts(**arguments)
    blocks = transformers.tapped_blocks(len(parts.blocks))
    tokens = transformers.TokenMaps(parts, blocks, name="tokens")
    images = keras.Input((None, None, 3))
    pixels = backbones.PIXELS["torch"]
    adapter = mm_keras.layers.InputAdapter(pixels.color, pixels.scale, pixels.mean)
    taps = tuple(Tap(f"block{k}", PATCH, CHANNELS, offset=6.5) for k in blocks)
    spec = BackboneSpec("tiny", pixels, taps, taps[-1], hypercolumn_units=16)
    outputs = tokens(adapter(images))
    return Backbone(images, outputs, spec, blocks=lambda: tokens.variable_groups)


@pytest.fixture(scope="module")
def backbone():
    return _backbone()


def _images(height, width, batch=1):
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3)).astype("uint8")


def test_patches_are_maps_and_other_tokens_are_left_out(backbone):
    outputs = backbone(_images(42, 56, batch=2))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "block1": (2, 3, 4, 8),
        "block2": (2, 3, 4, 8),
    }
    layer = backbone.get_layer("tokens")
    prepared = backbone.get_layer(index=1)(_images(42, 56, batch=2))
    patches = np.array(layer.projection(prepared)).reshape(2, 12, 8)
    first = layer.class_positions.numpy() + layer.prefix[0].numpy()
    tokens = np.concatenate(
        [
            first.repeat(2, 0),
            layer.prefix[1].numpy().repeat(2, 0),
            patches + layer.table.numpy().reshape(12, 8),
        ],
        axis=1,
    )
    for name, block in zip(("block1", "block2"), layer.blocks, strict=True):
        tokens = np.array(block(tokens))
        expected = np.array(layer.norm(tokens))[:, 3:].reshape(2, 3, 4, 8)
        np.testing.assert_allclose(outputs[name], expected, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (14, 15), (43, 30), (70, 20)])
def test_images_of_any_size_are_padded_with_the_mean_color(backbone, size):
    images, (height, width) = _images(*size), (-(-side // PATCH) for side in size)
    outputs = backbone(images)["block2"]
    assert outputs.shape == (1, height, width, CHANNELS)
    padded = np.full((1, height * PATCH, width * PATCH, 3), 255.0, "float32")
    padded *= (0.485, 0.456, 0.406)  # the mean color, not rounded
    padded[:, : size[0], : size[1]] = images
    np.testing.assert_allclose(backbone(padded)["block2"], outputs, atol=1e-4)


def test_a_graph_of_unknown_sizes_computes_the_same(backbone):
    signature = [tf.TensorSpec([None, None, None, 3], tf.uint8)]
    graph = tf.function(lambda images: backbone(images), input_signature=signature)
    for size in ((42, 56), (15, 70)):
        expected = backbone(_images(*size))
        for name, value in graph(_images(*size)).items():
            np.testing.assert_allclose(value, expected[name], atol=1e-5)


def test_the_position_table_is_trained_and_saved(backbone, tmp_path):
    layer = backbone.get_layer("tokens")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(backbone(_images(30, 70))["block2"][..., 0])
    assert np.any(tape.gradient(loss, layer.table.value).numpy())
    other = _backbone()
    other.get_layer("tokens").table.assign_add(np.full(layer.table.shape, 0.5, "float32"))
    other.save_weights(tmp_path / "a.weights.h5")
    expected = other(_images(30, 70))["block2"]
    other.set_weights([np.zeros(w.shape, w.dtype) for w in other.get_weights()])
    other.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(other(_images(30, 70))["block2"], expected)


def test_a_transformer_without_class_token_has_patches_alone():
    outputs = _backbone(tokens=0)(_images(28, 28))
    assert outputs["block2"].shape == (1, 2, 2, CHANNELS)


def test_a_table_of_another_grid_is_rejected():
    with pytest.raises(ValueError, match="for 3 x 4 patches must have 13 rows. Received 7"):
        positions.table_of(np.zeros((7, 8)), (3, 4), 1)


def test_the_taps_lie_on_the_middle_of_their_patches(backbone):
    """A linear map over an image that grows along x gives values that grow at the same pixels."""
    taps = [(tap.name, tap.stride, tap.channels) for tap in backbone.spec.taps[:1]]
    layer = mm_keras.layers.Hypercolumn(taps, 1, stddev=1.0, offsets={"block1": 6.5})
    layer.build()
    layer.kernels["block1"].assign(np.eye(CHANNELS)[:, :1])
    columns = np.arange(5) * 14 + 6.5
    maps = {"block1": np.zeros((1, 2, 5, CHANNELS), "float32") + columns[:, None].astype("float32")}
    points = np.array([[[0, 7], [13, 20], [20, 62]]], "int32")
    np.testing.assert_allclose(np.array(layer(maps, points))[0, :, 0], [7, 20, 62], atol=1e-3)
    prepared = layer.prepare(maps, (14, 35), 2)
    dense = np.array(layer.rows(prepared, np.arange(14), 2))[0, :, :, 0]
    np.testing.assert_allclose(dense[:, 4:31], np.arange(8, 62, 2)[None].repeat(14, 0), atol=1e-3)
    np.testing.assert_allclose(dense[:, :3], 6.5, atol=1e-3)  # before the first middle


def test_variables_are_grouped_by_block(backbone):
    first, second = ([variable.path for variable in group] for group in backbone.blocks)
    assert "tokens/positions" in first and "conv2d" in " ".join(first)
    assert len(first) + len(second) == len(backbone.trainable_variables)
    assert sum("layer_normalization" in path for path in second) == 2


def test_a_frozen_backbone_computes_as_in_inference():
    backbone = _backbone()
    images = _images(28, 28)
    plain, training = (backbone(images, training=mode)["block2"] for mode in (False, True))
    assert np.any(np.abs(plain - training) > 1e-3)
    backbone.trainable = False
    np.testing.assert_array_equal(backbone(images, training=True)["block2"], plain)


def test_mixed_precision_keeps_the_table_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    backbone = _backbone()
    assert backbone.get_layer("tokens").table.dtype == "float32"
    assert backbone(_images(20, 30))["block2"].dtype == "bfloat16"


@pytest.mark.slow  # saves a model
def test_a_transformer_is_tuned_fine_tuned_and_exported(assert_tuned_fine_tuned_and_exported):
    assert_tuned_fine_tuned_and_exported(
        _backbone(),
        lambda backbone: mm_keras.HypercolumnSegmenter(backbone, 3, num_points=32, stddev=0.1),
    )


def test_a_unet_is_refused(backbone):
    with pytest.raises(ValueError, match="All taps of tiny have stride 14"):
        mm_keras.UnetSegmenter(backbone, 3)
