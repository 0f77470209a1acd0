"""The fully convolutional segmenter that the M&M paper puts on AlexNet."""

import keras
from keras import ops

from mm_keras import layers
from mm_keras.models.context import fcn_context_network
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
        self.context = fcn_context_network(backbone.spec, dropout, seed)
        self.score = keras.layers.Conv2D(
            num_classes,
            1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name="score",
        )
        self.score.build((None, None, None, backbone.spec.context_units[1]))
        self.built = True

    def call(self, images, training=False):
        """Logits of images [B, H, W, 3] with RGB values 0..255; float32 [B, H, W, num_classes]."""
        features = self.backbone(images, training=training)[self.backbone.spec.embedding.name]
        context = self.context(features, training=training)
        scores = ops.cast(self.score(context["fc7"]), "float32")
        return layers.resize_aligned(scores, ops.shape(images)[1:3])
