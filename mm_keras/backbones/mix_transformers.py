"""Mix transformers (MiT), the backbones of SegFormer, for images of any size.

Source: Xie et al., "SegFormer: Simple and efficient design for semantic segmentation with
transformers", NeurIPS 2021 (NVlabs/SegFormer, mix_transformer.py).

KerasHub builds them for one square size, although no layer of theirs depends on the size. `MixMaps`
uses these layers on maps [B, h, w, C]. It differs from KerasHub's network in two points. The GELU
is exact, as in the published code; KerasHub has its approximation by tanh. There is no dropout;
KerasHub has a rate of 0.1 in each attention, which the published code does not.
"""

import itertools
from typing import NamedTuple

import keras
from keras import ops

from mm_keras import layers
from mm_keras.backbones.spec import Backbone, BackboneSpec, Pixels, Tap

LICENSE = "NVIDIA Source Code License for SegFormer, non-commercial"
"""License of the published weights (NVlabs/SegFormer, LICENSE, 3.3)."""


def is_mix_transformer(network: keras.Model) -> bool:
    """Return whether `wrap` takes this network of KerasHub."""
    return type(network).__name__ == "MiTBackbone"


def wrap(name: str, network: keras.Model, pixels: Pixels) -> Backbone:
    """Make a backbone of a mix transformer of KerasHub.

    Its taps are the maps of its stages after their norms: stride4, stride8, stride16 and stride32.
    The last one is the embedding. The backbone takes the network's layers over; do not use the
    network afterwards.

    Args:
        name: name of the backbone.
        network: a MiTBackbone.
        pixels: the pixels that the network expects.
    """
    stages = [Stage(*parts, name=f"stage{k}") for k, parts in enumerate(parts_of(network))]
    maps = MixMaps(stages, name="stages")
    images = keras.Input((None, None, 3), name="pixels")
    adapter = layers.InputAdapter(pixels.color, pixels.scale, pixels.mean, name="input_adapter")
    outputs = maps(adapter(images))
    taps = tuple(
        Tap(f"stride{stride}", stride, outputs[f"stride{stride}"].shape[-1])
        for stride in maps.strides
    )
    spec = BackboneSpec(name, pixels, taps, taps[-1], license=LICENSE)
    return Backbone(images, outputs, spec, blocks=lambda: maps.variable_groups)


class Parts(NamedTuple):
    """The layers of one stage of a MiTBackbone.

    Attributes:
        embedding: KerasHub's layer of overlapping patches.
        blocks: KerasHub's blocks.
        norm: the norm after them.
    """

    embedding: keras.layers.Layer
    blocks: list[keras.layers.Layer]
    norm: keras.layers.LayerNormalization


def parts_of(network: keras.Model) -> list[Parts]:
    """Return the layers of the stages of a MiTBackbone, from the input on."""
    norms = [x for x in network.layers if isinstance(x, keras.layers.LayerNormalization)]
    return [
        Parts(
            network.get_layer(f"patch_and_embed_{k}"),
            [network.get_layer(f"hierarchical_encoder_{k}_{j}") for j in range(depth)],
            norm,
        )
        for k, (depth, norm) in enumerate(zip(network.layerwise_depths, norms, strict=True))
    ]


class MixMaps(keras.layers.Layer):
    """Compute the maps of all stages of a mix transformer.

    A side that is no multiple of a stride is rounded up, as in the published code. Images on which
    a reduction of the attention has no cell are padded with the mean color, at the bottom and at
    the right.

    Args:
        stages: the stages, from the input on.

    Call with prepared pixels [B, H, W, 3] of any size. Returns {"stride4": [B, ceil(H / 4),
    ceil(W / 4), C], ...}.
    """

    def __init__(self, stages: list["Stage"], **kwargs):
        super().__init__(**kwargs)
        self.stages = stages
        self.strides = list(itertools.accumulate((s.stride for s in stages), lambda a, b: a * b))
        # A map has at least n cells a side where the image has n * stride - stride + 1 pixels.
        self.least_side = max(
            (stage.reduction - 1) * stride + 1
            for stage, stride in zip(stages, self.strides, strict=True)
        )
        self.built = True

    @property
    def variable_groups(self) -> list[list[keras.Variable]]:
        """The trainable variables of each block. The stem of a stage belongs to its first one."""
        return [group for stage in self.stages for group in stage.variable_groups]

    def call(self, pixels):
        """Return {"stride4": [B, h, w, C], ...}."""
        size = ops.shape(pixels)[1:3]
        padding = [[0, ops.maximum(self.least_side - side, 0)] for side in size]
        features, maps = ops.pad(pixels, [[0, 0], *padding, [0, 0]]), {}
        for stage, stride in zip(self.stages, self.strides, strict=True):
            features = stage(features)
            height, width = ((side + stride - 1) // stride for side in size)
            maps[f"stride{stride}"] = features[:, :height, :width]
        return maps

    def compute_output_shape(self, input_shape):
        batch, *size, _ = input_shape
        return {
            f"stride{stride}": (
                batch,
                *(None if side is None else -(-side // stride) for side in size),
                stage.channels,
            )
            for stage, stride in zip(self.stages, self.strides, strict=True)
        }


class Stage(keras.layers.Layer):
    """One stage: patches that overlap, transformer blocks and a norm.

    Args:
        embedding, blocks, norm: see `Parts`.

    Call with a map [B, H, W, C]. Returns [B, ceil(H / stride), ceil(W / stride), D].
    """

    def __init__(self, embedding, blocks, norm, **kwargs):
        super().__init__(**kwargs)
        self.projection, self.embedding_norm = embedding.proj, embedding.norm
        self.stride, self.padding = embedding.stride, embedding.patch_size // 2
        self.blocks = [MixBlock(block, name=f"block{k}") for k, block in enumerate(blocks)]
        self.norm = norm
        self.channels = embedding.proj.filters
        self.reduction = max(block.reduction for block in self.blocks)
        self.built = True

    @property
    def variable_groups(self) -> list[list[keras.Variable]]:
        groups = [list(block.trainable_variables) for block in self.blocks]
        stem = [*self.projection.trainable_variables, *self.embedding_norm.trainable_variables]
        groups[0] = stem + groups[0]
        groups[-1] = groups[-1] + list(self.norm.trainable_variables)
        return groups

    def call(self, features):
        border = [self.padding, self.padding]
        features = self.projection(ops.pad(features, [[0, 0], border, border, [0, 0]]))
        features = self.embedding_norm(features)
        for block in self.blocks:
            features = block(features)
        return self.norm(features)


class MixBlock(keras.layers.Layer):
    """Attention to a reduced map, then a dense layer, a depthwise convolution and a dense layer.

    Args:
        block: KerasHub's block.

    Call with a map [B, h, w, C] of at least `reduction` cells a side. Returns the same shape.
    """

    def __init__(self, block, **kwargs):
        super().__init__(**kwargs)
        attention, mlp = block.attn, block.mlp
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.query, self.key, self.value = attention.q, attention.k, attention.v
        self.output_projection, self.num_heads = attention.proj, attention.num_heads
        self.reduction = attention.sr_ratio
        if self.reduction > 1:
            self.reduce, self.reduced_norm = attention.sr, attention.norm
        self.widen, self.depthwise, self.narrow = mlp.fc1, mlp.dwconv, mlp.fc2
        self.built = True

    def call(self, features):
        features = features + self._attended(self.norm1(features))
        return features + self._mixed(self.norm2(features))

    def _attended(self, features):
        reduced = features
        if self.reduction > 1:  # a last, partial cell is dropped, as in the published code
            reduced = self.reduced_norm(self.reduce(features))
        query, key, value = (
            self._heads(layer(x))
            for layer, x in ((self.query, features), (self.key, reduced), (self.value, reduced))
        )
        result = ops.dot_product_attention(query, key, value)
        return self.output_projection(ops.reshape(result, ops.shape(features)))

    def _heads(self, features):
        """Return a map [B, h, w, C] as [B, h * w, heads, C / heads]."""
        batch, channels = ops.shape(features)[0], features.shape[-1]
        return ops.reshape(features, (batch, -1, self.num_heads, channels // self.num_heads))

    def _mixed(self, features):
        return self.narrow(ops.gelu(self.depthwise(self.widen(features)), approximate=False))
