"""Vision transformers of KerasHub as backbones for images of any size.

KerasHub builds a transformer for one size of image. Its blocks do not know the size, so `TokenMaps`
calls them on the grid of patches of the image at hand. Sides are padded at the bottom and at the
right to a multiple of the patch, with the mean color. Position tables are interpolated to the grid
in each call, so the stored table itself is trained and saved. (KerasHub trains an interpolated
copy, and saving loses part of it.)
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import ops

from mm_keras import layers
from mm_keras.backbones import positions
from mm_keras.backbones.spec import Backbone, BackboneSpec, Pixels, Tap

NUM_TAPS = 4
TAPS = {24: (5, 12, 18, 24)}
"""{number of blocks: blocks that are tapped}, where they are not at the quarters. Source:
facebookresearch/dinov2, "4 layers" of its linear evaluation: 3, 6, 9, 12 for 12 blocks."""


class Parts(NamedTuple):
    """The parts of a vision transformer.

    Attributes:
        projection: convolution from pixels to patches.
        blocks: the blocks, from the input on.
        norm: the norm after the last block.
        tokens: variables [1, n, D] before the patches: class token first, then registers.
        table: variable of the position table, None for rotary positions. Its first row belongs to
            the class token, if there is one.
        grid: (height, width) of the table.
        antialias: whether the table is interpolated with antialias.
        rotary: (channels of a head, base) of rotary positions, else None.
    """

    projection: keras.layers.Layer
    blocks: list[keras.layers.Layer]
    norm: keras.layers.Layer
    tokens: list[keras.Variable]
    table: keras.Variable | None = None
    grid: tuple[int, int] = (0, 0)
    antialias: bool = False
    rotary: tuple[int, float] | None = None


def is_transformer(network: keras.Model) -> bool:
    """Return whether `wrap` takes this network of KerasHub."""
    return type(network).__name__ in FAMILIES


def wrap(name: str, network: keras.Model, pixels: Pixels) -> Backbone:
    """Make a backbone of a vision transformer of KerasHub.

    Its taps are the patches of some blocks after the final norm, named block3 and the like, all at
    the stride of the patch. The last one is the embedding. Class and register tokens are left out.
    The backbone takes the network's layers over; do not use the network afterwards.

    Args:
        name: name of the backbone.
        network: a DINOV2Backbone, DINOV3Backbone or ViTBackbone.
        pixels: the pixels that the network expects.

    Raises:
        ValueError: if its patches are no squares.
    """
    parts = FAMILIES[type(network).__name__](network)
    blocks = tapped_blocks(len(parts.blocks))
    tokens = TokenMaps(parts, blocks, name="tokens")
    images = keras.Input((None, None, 3), name="pixels")
    adapter = layers.InputAdapter(pixels.color, pixels.scale, pixels.mean, name="input_adapter")
    outputs = tokens(adapter(images))
    # Patch k covers the pixels k * stride to (k + 1) * stride - 1; its cell lies on their middle.
    middle = (tokens.stride - 1) / 2
    taps = tuple(Tap(f"block{k}", tokens.stride, tokens.channels, offset=middle) for k in blocks)
    spec = BackboneSpec(
        name, pixels, taps, taps[-1], license=LICENSES.get(type(network).__name__, "")
    )
    return Backbone(images, outputs, spec, blocks=lambda: tokens.variable_groups)


def tapped_blocks(num_blocks: int) -> tuple[int, ...]:
    """Return the numbers of the blocks that are taps, from 1 on.

    Example:

    >>> tapped_blocks(12), tapped_blocks(24), tapped_blocks(2)
    ((3, 6, 9, 12), (5, 12, 18, 24), (1, 2))
    """
    quarters = (-(-k * num_blocks // NUM_TAPS) for k in range(1, NUM_TAPS + 1))
    return TAPS.get(num_blocks, tuple(dict.fromkeys(quarters)))


class TokenMaps(keras.layers.Layer):
    """Compute the patches of some blocks of a vision transformer as maps.

    Args:
        parts: the parts of the transformer.
        taps: numbers of the blocks whose patches are returned, from 1 on.

    Call with prepared pixels [B, H, W, 3] of any size. Returns {"block3": [B, ceil(H / patch),
    ceil(W / patch), D], ...}, after the final norm.
    """

    def __init__(self, parts: Parts, taps: tuple[int, ...], **kwargs):
        super().__init__(**kwargs)
        self.projection, self.norm = parts.projection, parts.norm
        self.blocks = parts.blocks[: max(taps)]
        self.taps = taps
        self.stride, self.channels = parts.projection.kernel_size[0], parts.projection.filters
        self.antialias, self.rotary = parts.antialias, parts.rotary
        self.prefix = [self._own(f"token{k}", value) for k, value in enumerate(parts.tokens)]
        self.num_prefix = sum(token.shape[1] for token in self.prefix)
        self.class_positions = self.table = None
        if parts.table is not None:
            has_class = len(parts.tokens) > 0
            table, first = positions.table_of(parts.table, parts.grid, int(has_class))
            self.table = self._own("positions", table)
            self.class_positions = self._own("class_position", first) if has_class else None
        self.built = True

    def _own(self, name, value):
        """Return a weight of this layer with the values of an array or variable, in float32."""
        value = ops.convert_to_numpy(value)
        return self.add_weight(
            name=name,
            shape=value.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(value, dtype),
            autocast=False,
        )

    @property
    def variable_groups(self) -> list[list[keras.Variable]]:
        """The trainable variables of each block. The first has the input's, the last the norm's."""
        groups = [list(block.trainable_variables) for block in self.blocks]
        inside = {id(variable) for group in (*groups, self.norm.variables) for variable in group}
        stem = [v for v in self.trainable_variables if id(v) not in inside]
        groups[0] = stem + groups[0]
        groups[-1] = groups[-1] + list(self.norm.trainable_variables)
        return groups

    def call(self, pixels, training=False):
        """Return {"block3": [B, h, w, D], ...}."""
        patches, grid = self._patches(pixels)
        tokens = self._with_prefix(patches, grid)
        run = self._block_function(grid, tokens.dtype, training)
        maps = {}
        for k, block in enumerate(self.blocks, start=1):
            tokens = run(block, tokens)
            if k in self.taps:
                own = self.norm(tokens)[:, self.num_prefix :]
                maps[f"block{k}"] = ops.reshape(own, (-1, *grid, self.channels))
        return maps

    def _patches(self, pixels):
        """Return the projected patches [B, h, w, D], and (h, w)."""
        height, width = ops.shape(pixels)[1:3]
        grid = tuple((side + self.stride - 1) // self.stride for side in (height, width))
        below, right = (
            n * self.stride - side for n, side in zip(grid, (height, width), strict=True)
        )
        return self.projection(ops.pad(pixels, [[0, 0], [0, below], [0, right], [0, 0]])), grid

    def _with_prefix(self, patches, grid):
        """Return patches with their positions, after the tokens, [B, n, D]."""
        dtype, batch = patches.dtype, ops.shape(patches)[0]
        prefix = [ops.convert_to_tensor(token) for token in self.prefix]
        if self.table is not None:
            table = positions.resized_table(ops.convert_to_tensor(self.table), grid, self.antialias)
            patches = patches + ops.cast(table, dtype)
            if prefix:
                prefix[0] = prefix[0] + self.class_positions
        patches = ops.reshape(patches, (batch, grid[0] * grid[1], self.channels))
        tokens = [ops.tile(ops.cast(token, dtype), (batch, 1, 1)) for token in prefix]
        return ops.concatenate([*tokens, patches], axis=1)

    def _block_function(self, grid, dtype, training) -> Callable:
        if self.rotary is None:
            return lambda block, tokens: block(tokens, training=training)
        rotation = tuple(ops.cast(x, dtype) for x in positions.rotations(grid, *self.rotary))
        return lambda block, tokens: block(
            tokens,
            position_embeddings=rotation,
            num_prefix_tokens=self.num_prefix,
            training=training,
        )

    def compute_output_shape(self, input_shape):
        batch, *size, _ = input_shape
        grid = [None if side is None else -(-side // self.stride) for side in size]
        return {f"block{k}": (batch, *grid, self.channels) for k in self.taps}


LICENSES = {"DINOV3Backbone": "DINOv3 License of Meta"}
"""{class: license of its published weights}, where it has terms of its own. A model that is made
from them is under the same license.
"""


def _dinov2(network) -> Parts:
    side = network.position_embedding_shape
    return Parts(
        **_dino(network),
        table=network.embeddings.position_embeddings,
        grid=tuple(length // network.patch_size for length in side[:2]),
        antialias=network.antialias_in_interpolation,
    )


def _dinov3(network) -> Parts:
    channels = network.hidden_dim // network.num_heads
    return Parts(**_dino(network), rotary=(channels, network.rope_theta))


def _dino(network) -> dict:
    embeddings = network.embeddings
    registers = [embeddings.register_tokens] if network.num_register_tokens else []
    return {
        "projection": embeddings.patch_embeddings.projection,
        "blocks": list(network.encoder.layers),
        "norm": network.layernorm,
        "tokens": [embeddings.cls_token, *registers],
    }


def _vit(network) -> Parts:
    sizes = network.patch_size
    if sizes[0] != sizes[1]:
        raise ValueError(f"The patches of a backbone must be squares. Received {sizes}.")
    embeddings = network.get_layer("vit_patching_and_embedding")
    encoder = network.get_layer("vit_encoder")
    return Parts(
        projection=embeddings.patch_embedding,
        blocks=list(encoder.encoder_layers),
        norm=encoder.layer_norm,
        tokens=[embeddings.class_token] if network.use_class_token else [],
        table=embeddings.position_embedding.embeddings,
        grid=tuple(side // sizes[0] for side in network.image_shape[:2]),
    )


FAMILIES = {"DINOV2Backbone": _dinov2, "DINOV3Backbone": _dinov3, "ViTBackbone": _vit}
"""{class of KerasHub: function that returns the parts of its networks}."""
