"""Context networks: fc6, fc7 and more on the embedding map, one function for each segmenter."""

import keras

from mm_keras import layers
from mm_keras.backbones.spec import BackboneSpec


def hypercolumn_context(
    spec: BackboneSpec,
    dropout: float = 0.5,
    added: bool = True,
    fc6_size: int = 7,
    batch_norm: bool = False,
) -> keras.Model:
    """Build fc6, fc7 and two blocks of convolution and pooling on the embedding map.

    Source: released VGG/*/finetune_seg.prototxt.

    Args:
        spec: its `context_units` are the channels of fc6, fc7, conv_add1 and conv_add2.
        dropout: dropout rate on fc6 and fc7.
        added: whether to build the two blocks after fc7.
        fc6_size: side of fc6's kernel.
        batch_norm: whether to normalize fc6 and fc7 before their ReLU, without scale and shift.

    Returns:
        A functional model from [B, h, w, C] to {"fc6", "fc7", "pool_add1", "pool_add2"}. Without
        the added blocks, it returns the first two.
    """
    fc6_units, fc7_units, *added_units = spec.context_units
    features = inputs = keras.Input((None, None, spec.embedding.channels), name="embedding")
    outputs = {}
    for name, units, size in (("fc6", fc6_units, fc6_size), ("fc7", fc7_units, 1)):
        features = _xavier_convolution(units, size, name)(features)
        features = _batch_norm(name)(features) if batch_norm else features
        features = outputs[name] = _relu_and_dropout(features, name, dropout)
    for k, units in enumerate(added_units if added else (), start=1):
        features = _xavier_convolution(units, 3, f"conv_add{k}")(features)
        features = keras.layers.ReLU(name=f"relu_conv_add{k}")(features)
        features = outputs[f"pool_add{k}"] = layers.CeilMaxPooling(name=f"pool_add{k}")(features)
    return keras.Model(inputs, outputs, name="context")


def hypercolumn_context_taps(spec: BackboneSpec, added: bool = True) -> list[tuple[str, int, int]]:
    """Return (name, stride, channels) of each output of `hypercolumn_context`."""
    stride = spec.embedding.stride
    strides = {"fc6": stride, "fc7": stride, "pool_add1": 2 * stride, "pool_add2": 4 * stride}
    units = spec.context_units if added else spec.context_units[:2]
    return [(name, strides[name], k) for name, k in zip(strides, units, strict=False)]


def fcn_context(spec: BackboneSpec, dropout: float = 0.5, seed: int = 0) -> keras.Model:
    """Build fc6 and fc7 on the embedding map, each with batch norm, ReLU and dropout.

    Source: released Alexnet/*/finetune_seg.prototxt. The kernel of fc6 is 6 x 6 with 3 zeros around
    the map, so its result has one row and one column more than the map.

    Args:
        spec: the first two of its `context_units` are the channels.
        dropout: dropout rate on fc6 and fc7.
        seed: start of the sequences of dropout masks.

    Returns:
        A functional model from [B, h, w, C] to {"fc6", "fc7"}, each [B, h + 1, w + 1, units].

    Raises:
        ValueError: if the spec has fewer than two context_units.
    """
    if len(spec.context_units) < 2:
        raise ValueError(
            f"The fully convolutional segmenter needs the channels of fc6 and fc7. Backbone "
            f"{spec.name!r} has context_units {spec.context_units}."
        )
    features = inputs = keras.Input((None, None, spec.embedding.channels), name="embedding")
    features = keras.layers.ZeroPadding2D(3, name="pad_fc6")(features)
    outputs = {}
    for k, (name, size) in enumerate((("fc6", 6), ("fc7", 1))):
        features = _gaussian_convolution(spec.context_units[k], size, name)(features)
        features = layers.AccumulatedBatchNormalization(name=f"batch_{name}")(features)
        # Equal seeds would give fc6 and fc7 equal masks.
        features = outputs[name] = _relu_and_dropout(features, name, dropout, seed + k)
    return keras.Model(inputs, outputs, name="context")


def _relu_and_dropout(features, name, dropout, seed=None):
    features = keras.layers.ReLU(name=f"relu_{name}")(features)
    return keras.layers.Dropout(dropout, seed=seed, name=f"drop_{name}")(features)


def _batch_norm(name):
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, center=False, scale=False, name=f"batch_{name}"
    )


def _xavier_convolution(units, size, name):
    return keras.layers.Conv2D(
        units, size, padding="same", kernel_initializer=layers.xavier(), name=name
    )


def _gaussian_convolution(units, size, name):
    return keras.layers.Conv2D(
        units,
        size,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.005),
        bias_initializer=keras.initializers.Constant(0.1),
        name=name,
    )
