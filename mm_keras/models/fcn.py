"""The fully convolutional segmenter that the M&M paper puts on AlexNet."""

import keras
from keras import ops

from mm_keras import layers
from mm_keras.models.segmenter import Segmenter


class FcnSegmenter(Segmenter):
    """Scores the cells of the embedding map through fc6 and fc7 and interpolates the scores to the
    image's size: FCN-32s without deconvolution or skips (released Alexnet/*/finetune_seg.prototxt).

    Dense logits at every pixel, in training as well: the corner cells of the score map lie on the
    corner pixels, and the loss is taken over all pixels.

    Args:
        backbone: `mm_keras.backbones.Backbone` whose spec gives the channels of fc6 and fc7 as the
            first two of its `context_units`.
        num_classes: number of classes, void not counted.
        dropout: on fc6 and fc7.
        seed: int, start of the sequences of dropout masks.

    Raises:
        ValueError: num_classes below 1, or a spec without two context_units.
    """

    def __init__(self, backbone, num_classes, dropout=0.5, seed=0, name="fcn_segmenter"):
        super().__init__(backbone, num_classes, output_stride=1, name=name)
        self.context = context_network(backbone.spec, dropout, seed)
        self.score = keras.layers.Conv2D(
            num_classes, 1, kernel_initializer=_gaussian(0.01), name="score"
        )
        self.score.build((None, None, None, backbone.spec.context_units[1]))
        self.built = True

    def call(self, images, training=False):
        """Logits of images [B, H, W, 3] with RGB values 0..255; float32 [B, H, W, num_classes]."""
        features = self.backbone(images, training=training)[self.backbone.spec.embedding.name]
        context = self.context(features, training=training)
        scores = ops.cast(self.score(context["fc7"]), "float32")
        return layers.resize_aligned(scores, ops.shape(images)[1:3])


def context_network(spec, dropout=0.5, seed=0):
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
        features = _convolution(spec.context_units[k], size, name)(features)
        features = layers.AccumulatedBatchNormalization(name=f"batch_{name}")(features)
        features = keras.layers.ReLU(name=f"relu_{name}")(features)
        # Equal seeds would give fc6 and fc7 equal masks.
        features = keras.layers.Dropout(dropout, seed=seed + k, name=f"drop_{name}")(features)
        outputs[name] = features
    return keras.Model(inputs, outputs, name="context")


def _convolution(units, size, name):
    return keras.layers.Conv2D(
        units,
        size,
        kernel_initializer=_gaussian(0.005),
        bias_initializer=keras.initializers.Constant(0.1),
        name=name,
    )


def _gaussian(stddev):
    return keras.initializers.RandomNormal(stddev=stddev)
