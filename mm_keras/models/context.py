"""Context networks on top of the embedding map: fc6, fc7 and more, for both segmenters."""

import keras

from mm_keras import layers


def context_network(spec, dropout=0.5, added=True, fc6_size=7, batch_norm=False):
    """fc6, fc7 and two blocks of convolution and pooling on the embedding map (released
    VGG/*/finetune_seg.prototxt).

    Args:
        spec: `BackboneSpec`; its `context_units` are the channels of fc6, fc7, conv_add1 and
            conv_add2.
        dropout: on fc6 and fc7.
        added: whether to build the two blocks after fc7.
        fc6_size: side of fc6's kernel.
        batch_norm: normalize fc6 and fc7 before their ReLU, without scale and shift.

    Returns:
        A functional `keras.Model` from [B, h, w, C] to {"fc6", "fc7", "pool_add1", "pool_add2"},
        or to the first two.
    """
    fc6_units, fc7_units, *added_units = spec.context_units
    features = inputs = keras.Input((None, None, spec.embedding.channels), name="embedding")
    outputs = {}
    for name, units, size in (("fc6", fc6_units, fc6_size), ("fc7", fc7_units, 1)):
        features = _convolution(features, units, size, name, batch_norm)
        features = outputs[name] = keras.layers.Dropout(dropout, name=f"drop_{name}")(features)
    for k, units in enumerate(added_units if added else (), start=1):
        features = _convolution(features, units, 3, f"conv_add{k}")
        features = outputs[f"pool_add{k}"] = layers.CeilMaxPooling(name=f"pool_add{k}")(features)
    return keras.Model(inputs, outputs, name="context")


def context_taps(spec, added=True):
    """(name, stride, channels) of what `context_network` puts out."""
    stride = spec.embedding.stride
    strides = {"fc6": stride, "fc7": stride, "pool_add1": 2 * stride, "pool_add2": 4 * stride}
    units = spec.context_units if added else spec.context_units[:2]
    return [(name, strides[name], k) for name, k in zip(strides, units, strict=False)]


def _convolution(features, units, size, name, batch_norm=False):
    features = keras.layers.Conv2D(
        units, size, padding="same", kernel_initializer=layers.xavier(), name=name
    )(features)
    if batch_norm:
        features = layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, center=False, scale=False, name=f"batch_{name}"
        )(features)
    return keras.layers.ReLU(name=f"relu_{name}")(features)


def fcn_context_network(spec, dropout=0.5, seed=0):
    """fc6 and fc7 on the embedding map, each followed by batch norm, ReLU and dropout (released
    Alexnet/*/finetune_seg.prototxt).

    fc6 is 6 x 6 with 3 zeros around the map, so its result has one row and one column more.

    Args:
        spec: `BackboneSpec`; the first two of its `context_units` are the channels.
        dropout: on both.
        seed: int, start of the sequences of dropout masks.

    Returns:
        A functional `keras.Model` from [B, h, w, C] to {"fc6", "fc7"}, each [B, h + 1, w + 1,
        units].

    Raises:
        ValueError: a spec without two context_units.
    """
    if len(spec.context_units) < 2:
        raise ValueError(
            f"The fully convolutional segmenter needs the channels of fc6 and fc7; backbone "
            f"{spec.name!r} has context_units {spec.context_units}."
        )
    features = inputs = keras.Input((None, None, spec.embedding.channels), name="embedding")
    features = keras.layers.ZeroPadding2D(3, name="pad_fc6")(features)
    outputs = {}
    for k, (name, size) in enumerate((("fc6", 6), ("fc7", 1))):
        features = _gaussian_convolution(spec.context_units[k], size, name)(features)
        features = layers.AccumulatedBatchNormalization(name=f"batch_{name}")(features)
        features = keras.layers.ReLU(name=f"relu_{name}")(features)
        # Equal seeds would give fc6 and fc7 equal masks.
        features = keras.layers.Dropout(dropout, seed=seed + k, name=f"drop_{name}")(features)
        outputs[name] = features
    return keras.Model(inputs, outputs, name="context")


def _gaussian_convolution(units, size, name):
    return keras.layers.Conv2D(
        units,
        size,
        kernel_initializer=_gaussian(0.005),
        bias_initializer=keras.initializers.Constant(0.1),
        name=name,
    )


def _gaussian(stddev):
    return keras.initializers.RandomNormal(stddev=stddev)
