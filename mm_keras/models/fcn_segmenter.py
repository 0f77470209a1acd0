"""The fully convolutional segmenter that the M&M paper puts on AlexNet."""

import keras
from keras import ops

from mm_keras import layers
from mm_keras.models.context import fcn_context
from mm_keras.models.segmenter import Segmenter


class FcnSegmenter(Segmenter):
    """Score the cells of the embedding map by fc6 and fc7, and interpolate to the image's size.

    The network is FCN-32s without deconvolution or skips (released
    Alexnet/*/finetune_seg.prototxt). It returns dense logits at every pixel, in training as
    well. The corner cells of the score map lie on the corner pixels, and the loss is computed over
    all pixels.

    Args:
        backbone: `mm_keras.backbones.Backbone` whose spec gives the channels of fc6 and fc7 as the
            first two of its `context_units`.
        num_classes: number of classes, void not counted.
        dropout: dropout rate on fc6 and fc7.
        seed: int, start of the sequences of dropout masks.
        loss, contrast: see `Segmenter`.

    Raises:
        ValueError: if num_classes is below 1, or the spec has fewer than two context_units.

    Example:

    >>> import numpy as np
    >>> from mm_keras import backbones
    >>> model = FcnSegmenter(backbones.build("testing"), num_classes=3)
    >>> tuple(model(np.zeros((1, 40, 50, 3), "uint8")).shape)
    (1, 40, 50, 3)
    """

    def __init__(
        self,
        backbone,
        num_classes,
        dropout=0.5,
        seed=0,
        name="fcn_segmenter",
        loss=None,
        contrast=None,
    ):
        super().__init__(backbone, num_classes, 1, name, loss, contrast)
        self.context = fcn_context(backbone.spec, dropout, seed)
        self.score = keras.layers.Conv2D(
            num_classes,
            1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name="score",
        )
        self.score.build((None, None, None, backbone.spec.context_units[1]))
        self.built = True

    def classified(self, maps, images, training=False):
        """Return logits float32 [B, H, W, num_classes] of images [B, H, W, 3] with RGB 0..255."""
        context = self.context(maps[self.backbone.spec.embedding.name], training=training)
        scores = ops.cast(self.score(context["fc7"]), "float32")
        return layers.resize_aligned(scores, ops.shape(images)[1:3])
