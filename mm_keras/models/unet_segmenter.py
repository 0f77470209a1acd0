"""A U-Net: the taps of any backbone, joined from coarse to fine by a decoder with skips."""

import keras
from keras import ops

from mm_keras import layers
from mm_keras.backbones.spec import BackboneSpec, Tap, scaled
from mm_keras.models.segmenter import Segmenter

COARSE = 8
"""Least stride of a map with scores of its own under deep supervision. Source: ours."""


class UnetSegmenter(Segmenter):
    """Score every `output_stride`-th pixel by a decoder over one tap of each stride.

    The decoder starts at the embedding. At each finer stride it enlarges its map, joins it with the
    last tap of that stride, and applies a 3 x 3 convolution, batch norm and ReLU (Ronneberger et
    al. 2015, with batch norm and one convolution for each stride). The encoder is the backbone, so
    it starts from weights that M&M tuned.

    With deep supervision, the maps of stride 8 and more have scores of their own in training. Their
    losses reach the encoder without passing through the decoder (Lee et al. 2015, as in nnU-Net).
    In short trainings from random weights this gained 10 points of mIoU (docs/results).

    Args:
        backbone: `mm_keras.backbones.Backbone`.
        num_classes: number of classes, void not counted.
        output_stride: image pixels per cell of the result, 1 or 2.
        dropout: dropout rate before the scores.
        width: channels of a stage of the decoder, as a share of the channels of the tap that it
            joins. With 1/2, the decoder of VGG-16 costs a third of the encoder.
        deep_supervision: weight of the loss of each coarse map; 0 for none.
        loss, contrast: see `Segmenter`.
        seed: int, start of the sequence of dropout masks.

    Raises:
        ValueError: if num_classes is below 1, output_stride is not 1 or 2, deep_supervision is
            negative, or all taps of the backbone have one stride.

    Example:

    >>> import numpy as np
    >>> from mm_keras import backbones
    >>> model = UnetSegmenter(backbones.build("testing"), num_classes=3)
    >>> tuple(model(np.zeros((1, 41, 50, 3), "uint8")).shape)
    (1, 21, 25, 3)
    """

    def __init__(
        self,
        backbone,
        num_classes,
        output_stride=2,
        dropout=0.0,
        width=0.5,
        deep_supervision=0.0,
        loss=None,
        seed=0,
        name="unet_segmenter",
        contrast=None,
    ):
        super().__init__(backbone, num_classes, output_stride, name, loss, contrast)
        self.decoder = decoder(backbone.spec, output_stride, width)
        self.dropout = keras.layers.Dropout(dropout, seed=seed)
        if deep_supervision < 0:
            raise ValueError(f"deep_supervision must be 0 or more. Received {deep_supervision}.")
        self.deep_supervision = deep_supervision
        maps = self.decoder.output
        self.finest = min(maps, key=int)
        self.score = _scores(maps[self.finest], num_classes, "score")
        coarse = [stride for stride in maps if deep_supervision and int(stride) >= COARSE]
        self.coarse_scores = {
            stride: _scores(maps[stride], num_classes, f"score_{stride}")
            for stride in coarse
            if stride != self.finest
        }
        self.built = True

    def classified(self, maps, images, training=False):
        """Return logits float32 [B, ceil(H / stride), ceil(W / stride), classes].

        Args:
            maps: the result of `feature_maps`.
            images: [B, H, W, 3] with RGB values 0..255.
            training: whether batch norm normalizes by the batch. With deep supervision, a training
                call returns {"finest": these logits, STRIDE: logits of a coarse map}.
        """
        maps = self.decoder({name: maps[name] for name in self.decoder.input}, training=training)
        features = self.dropout(maps[self.finest], training=training)
        logits = self._enlarged(ops.cast(self.score(features), "float32"), ops.shape(images)[1:3])
        if not training or not self.coarse_scores:
            return logits
        coarse = {
            stride: ops.cast(score(maps[stride]), "float32")
            for stride, score in self.coarse_scores.items()
        }
        return {"finest": logits, **coarse}

    def output_loss(self, labels, outputs):
        """Return the loss of `Segmenter`, and in training the weighted losses of coarse maps."""
        if not isinstance(outputs, dict):
            return super().output_loss(labels, outputs)
        loss = super().output_loss(labels, outputs["finest"])
        for stride in self.coarse_scores:
            cells = labels_of_cells(labels, int(stride), ops.shape(outputs[stride])[1:3])
            loss = loss + self.deep_supervision * self.pixel_loss(cells, outputs[stride])
        return loss

    @property
    def coarsest_score(self) -> keras.layers.Conv2D | None:
        """The 1 x 1 convolution that scores the cells of the embedding; None without it.

        A softmax over pooled patches is a linear layer on the same features. So its hubs can start
        this layer, see `score_by`.
        """
        return self.coarse_scores.get(str(self.backbone.spec.embedding.stride))

    def score_by(self, hubs: keras.layers.Dense):
        """Start the scores of the embedding from a linear layer on its pooled features.

        Args:
            hubs: built layer from [N, C] to [N, classes], C the channels of the embedding.

        Raises:
            ValueError: if the embedding has no scores, or other sizes.
        """
        layer = self.coarsest_score
        if layer is None:
            raise ValueError(
                "The cells of the embedding have no scores to start from hubs. They need "
                f"deep_supervision above 0 (received {self.deep_supervision}) and an embedding of "
                f"stride {COARSE} or more (received {self.backbone.spec.embedding.stride})."
            )
        expected = tuple(layer.kernel.shape[2:])
        if tuple(hubs.kernel.shape) != expected:
            raise ValueError(
                f"The hubs must have a kernel of shape {expected}, (channels of the embedding, "
                f"classes). Received {tuple(hubs.kernel.shape)}."
            )
        layer.kernel.assign(hubs.kernel[None, None])
        layer.bias.assign(hubs.bias)

    def _enlarged(self, logits, size):
        """Return logits of every `output_stride`-th pixel of an image of `size`."""
        if int(self.finest) == self.output_stride:
            return logits
        size = tuple(-(-side // self.output_stride) for side in size)
        return layers.upsample(logits, int(self.finest) // self.output_stride, size)


def labels_of_cells(labels, stride: int, size):
    """Return the labels of the center pixels of cells.

    Args:
        labels: integer [B, H, W].
        stride: pixels per cell on each axis.
        size: (rows, columns) of the cells. The center of a last, partial cell may lie outside the
            image; the last row or column then takes its place.

    Returns:
        integer [B, rows, columns].

    Example:

    >>> labels_of_cells(ops.convert_to_tensor([[[0, 1, 2, 3, 4]]]), 2, (1, 3)).numpy().tolist()
    [[[1, 3, 4]]]
    """
    for axis, count in enumerate(size, start=1):
        centers = ops.arange(count) * stride + stride // 2
        labels = ops.take(labels, ops.minimum(centers, ops.shape(labels)[axis] - 1), axis=axis)
    return labels


def decoder(spec: BackboneSpec, output_stride: int = 2, width: float = 0.5) -> keras.Model:
    """Build the decoder of `UnetSegmenter`.

    Args:
        spec: spec of the backbone.
        output_stride: taps finer than this are left out, except the network's input pixels, which
            are always left out.
        width: channels of a stage, as a share of the channels of its tap.

    Returns:
        A functional model from {tap name: [B, h, w, C]} to {stride as text: [B, h, w, units]}. The
        coarsest map is the embedding itself.

    Raises:
        ValueError: if all taps have one stride, so that there is no skip.
    """
    taps = _skips(spec, output_stride)
    if len(taps) < 2:
        raise ValueError(
            f"A U-Net needs taps of several strides. All taps of {spec.name} have stride "
            f"{taps[0].stride}. Use a HypercolumnSegmenter."
        )
    inputs = {tap.name: keras.Input((None, None, tap.channels), name=tap.name) for tap in taps}
    stride, features = taps[0].stride, inputs[taps[0].name]
    maps = {str(stride): features}
    for tap in taps[1:]:
        skip = inputs[tap.name]
        larger = EnlargeLike(stride // tap.stride, name=f"enlarge_to_{tap.stride}")(
            [features, skip]
        )
        joined = keras.layers.Concatenate(name=f"join_{tap.stride}")([larger, skip])
        features = _convolution(joined, scaled(tap.channels, width), f"decode_{tap.stride}")
        stride, maps[str(tap.stride)] = tap.stride, features
    return keras.Model(inputs, maps, name="decoder")


@keras.saving.register_keras_serializable("mm_keras")
class EnlargeLike(keras.layers.Layer):
    """Repeat the cells of a map, and cut it to the size of a finer map.

    Poolings round differently, so the coarse map may be one cell short. Its last row and column
    then take the place of the missing cells.

    Args:
        factor: cells of the finer map per cell of the coarse map, on each axis.

    Example:

    >>> coarse, fine = ops.ones((1, 2, 2, 3)), ops.ones((1, 3, 4, 5))
    >>> tuple(EnlargeLike(2)([coarse, fine]).shape)
    (1, 3, 4, 3)
    """

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, maps):
        """Return the first of two maps [B, h, w, C] in the size of the second."""
        coarse, fine = maps
        batch, rows, columns, channels = ops.shape(coarse)
        # Symmetric padding by one cell repeats the last row and column.
        padded = ops.pad(coarse, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="symmetric")
        cells = ops.reshape(padded, (batch, rows + 1, 1, columns + 1, 1, channels))
        factor = self.factor
        larger = ops.broadcast_to(cells, (batch, rows + 1, factor, columns + 1, factor, channels))
        size = (batch, factor * (rows + 1), factor * (columns + 1), channels)
        # The gradient of `ops.slice` is a padding. The gradient of Python's slices is a slow kernel
        # on a CPU: it took a tenth of a training step.
        height, width = ops.shape(fine)[1:3]
        return ops.slice(ops.reshape(larger, size), (0, 0, 0, 0), (batch, height, width, channels))

    def compute_output_shape(self, input_shape):
        coarse, fine = input_shape
        return (*fine[:3], coarse[3])

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def _skips(spec, output_stride) -> list[Tap]:
    """Return the embedding and the last tap of each finer stride, coarse to fine."""
    last = {tap.stride: tap for tap in spec.taps if tap.name != "input"}
    last[spec.embedding.stride] = spec.embedding
    strides = sorted((s for s in last if s >= output_stride), reverse=True)
    return [last[stride] for stride in strides]


def _scores(features, num_classes, name):
    layer = keras.layers.Conv2D(num_classes, 1, name=name)
    layer.build(features.shape)
    return layer


def _convolution(features, units, name):
    features = keras.layers.Conv2D(
        units, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(features)
    features = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"batch_{name}")(features)
    return keras.layers.ReLU(name=f"relu_{name}")(features)
