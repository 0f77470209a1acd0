"""Mix transformers as backbones, on a small one of plain Keras layers."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from mm_keras.backbones import mix_transformers
from mm_keras.backbones.spec import Backbone, BackboneSpec, Tap

CHANNELS, REDUCTIONS = (8, 16), (4, 1)


def _built(layer, *shape):
    layer.build(shape)
    return layer


def _block(channels, heads, reduction):
    """A block with the attributes of KerasHub's."""

    def dense(units, number=channels):
        return _built(keras.layers.Dense(units), None, None, None, number)

    def norm():
        return _built(keras.layers.LayerNormalization(), None, None, None, channels)

    attention = {name: dense(channels) for name in ("q", "k", "v", "proj")}
    if reduction > 1:
        convolution = keras.layers.Conv2D(channels, reduction, reduction)
        attention |= {"sr": _built(convolution, None, None, None, channels), "norm": norm()}
    depthwise = keras.layers.DepthwiseConv2D(3, padding="same")
    return types.SimpleNamespace(
        norm1=norm(),
        norm2=norm(),
        attn=types.SimpleNamespace(num_heads=heads, sr_ratio=reduction, **attention),
        mlp=types.SimpleNamespace(
            fc1=dense(4 * channels),
            dwconv=_built(depthwise, None, None, None, 4 * channels),
            fc2=dense(channels, 4 * channels),
        ),
    )


def _stages():
    stages, inputs = [], 3
    for k, (channels, reduction) in enumerate(zip(CHANNELS, REDUCTIONS, strict=True)):
        size, stride = ((7, 4), (3, 2))[k]
        projection = keras.layers.Conv2D(channels, size, stride)
        norms = [keras.layers.LayerNormalization() for _ in range(2)]
        embedding = types.SimpleNamespace(
            proj=_built(projection, None, None, None, inputs),
            norm=_built(norms[0], None, None, None, channels),
            patch_size=size,
            stride=stride,
        )
        blocks = [_block(channels, k + 1, reduction) for _ in range(k + 1)]
        norm = _built(norms[1], None, None, None, channels)
        stages.append(mix_transformers.Stage(embedding, blocks, norm, name=f"stage{k}"))
        inputs = channels
    return stages


def _backbone():
    keras.utils.set_random_seed(0)
    maps = mix_transformers.MixMaps(_stages(), name="stages")
    images = keras.Input((None, None, 3))
    pixels = backbones.PIXELS["torch"]
    adapter = mm_keras.layers.InputAdapter(pixels.color, pixels.scale, pixels.mean)
    taps = (Tap("stride4", 4, 8), Tap("stride8", 8, 16))
    spec = BackboneSpec("tiny", pixels, taps, taps[-1], hypercolumn_units=16)
    return Backbone(images, maps(adapter(images)), spec, blocks=lambda: maps.variable_groups)


@pytest.fixture(scope="module")
def backbone():
    return _backbone()


def _images(height, width):
    return np.random.default_rng(0).integers(0, 256, (1, height, width, 3)).astype("uint8")


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (33, 47)])
def test_a_map_has_a_cell_for_each_partial_stride(backbone, size):
    outputs = backbone(_images(*size))
    for stride, channels in ((4, 8), (8, 16)):
        height, width = (-(-side // stride) for side in size)
        assert outputs[f"stride{stride}"].shape == (1, height, width, channels)
        assert np.all(np.isfinite(outputs[f"stride{stride}"]))


def test_images_on_which_the_attention_has_no_cell_are_padded_with_the_mean_color(backbone):
    assert backbone.get_layer("stages").least_side == 13  # 4 cells of stride 4
    padded = np.full((1, 13, 20, 3), 255.0, "float32") * (0.485, 0.456, 0.406)
    padded[:, :5] = images = _images(5, 20)
    expected = backbone(padded.astype("float32"))
    for name, value in backbone(images).items():
        np.testing.assert_allclose(value, expected[name][:, : value.shape[1]], atol=1e-5)


def test_the_cells_of_a_map_lie_on_the_first_pixels_of_their_strides(backbone):
    """Around a pixel, the patch of its cell is symmetric: mirroring the image mirrors the maps."""
    projection = backbone.get_layer("stages").stages[0].projection
    projection.kernel.assign((projection.kernel + projection.kernel[:, ::-1]) / 2)
    images = _images(13, 17)
    maps = [
        np.array(projection(np.pad(x, [[0, 0], [3, 3], [3, 3], [0, 0]]).astype("float32")))
        for x in (images, images[:, :, ::-1])
    ]
    np.testing.assert_allclose(maps[0], maps[1][:, :, ::-1], atol=1e-3)


def test_a_graph_of_unknown_sizes_computes_the_same(backbone):
    signature = [tf.TensorSpec([None, None, None, 3], tf.uint8)]
    graph = tf.function(lambda images: backbone(images), input_signature=signature)
    for size in ((9, 6), (35, 70)):
        expected = backbone(_images(*size))
        for name, value in graph(_images(*size)).items():
            np.testing.assert_allclose(value, expected[name], atol=1e-5)


def test_each_block_has_a_group_of_variables(backbone):
    groups = backbone.blocks
    assert len(groups) == 3  # one block, then two
    found = [id(variable) for group in groups for variable in group]
    assert sorted(found) == sorted(id(v) for v in backbone.trainable_variables)
    stages = backbone.get_layer("stages").stages
    for stage, group in zip(stages, groups[:2], strict=True):
        assert group[0] is stage.projection.kernel
    assert groups[-1][-1] is stages[-1].norm.beta


def test_weights_are_saved_and_loaded(backbone, tmp_path):
    backbone.save_weights(tmp_path / "a.weights.h5")
    other = _backbone()
    other.set_weights([np.zeros(w.shape, w.dtype) for w in other.get_weights()])
    other.load_weights(tmp_path / "a.weights.h5")
    images = _images(20, 30)
    np.testing.assert_array_equal(other(images)["stride8"], backbone(images)["stride8"])


def test_mixed_precision_computes_in_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert _backbone()(_images(20, 30))["stride8"].dtype == "bfloat16"


@pytest.mark.slow  # saves a model
@pytest.mark.parametrize("kind", [mm_keras.HypercolumnSegmenter, mm_keras.UnetSegmenter])
def test_a_mix_transformer_is_tuned_fine_tuned_and_exported(
    kind, assert_tuned_fine_tuned_and_exported
):
    assert_tuned_fine_tuned_and_exported(_backbone(), lambda backbone: kind(backbone, 3))
