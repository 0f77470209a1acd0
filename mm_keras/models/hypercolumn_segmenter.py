"""The hypercolumn segmenter of the M&M paper."""

import keras
from keras import ops

from mm_keras import layers, losses
from mm_keras.models import points
from mm_keras.models.context import hypercolumn_context, hypercolumn_context_taps
from mm_keras.models.dense import dense_map
from mm_keras.models.segmenter import Segmenter, check_positive

POINT_BORDER = 3 / 16
"""The released border of the points: uniform in [96, 416) of 512 pixels
(VGG/*/finetune_seg.prototxt)."""


class HypercolumnSegmenter(Segmenter):
    """Classify pixels by their hypercolumn: all taps of the backbone, fc6, fc7 and two blocks.

    Training reads `num_points` random pixels per image and never builds a dense hypercolumn.
    Inference returns dense logits at `output_stride`. It projects each tap at its own resolution,
    then interpolates and sums.

    Args:
        backbone: `mm_keras.backbones.Backbone`.
        num_classes: number of classes, void not counted.
        num_points: sampled pixels per image and step; 256 in the released
            VGG/*/finetune_seg.prototxt.
        output_stride: image pixels per cell of the dense result, 1 or 2; 2 in the paper's test
            protocol.
        dropout: dropout rate on fc6 and fc7.
        stddev: standard deviation of the initial kernels of the hidden layer over the hypercolumn
            (1e-4 in the released network).
        input_scale: factor on the tap "input", 1 in the release. With the pixels of the released
            random networks its values are a hundred times as large as the other taps.
        point_border: share of the height and of the width, at each border, in which no points are
            sampled. 3/16 in the release, whose canvas is larger than most images. Use 0 if images
            fill their canvas.
        balanced_points: draw the class of a point first, uniformly over the classes of the image,
            then one of its pixels. False in the release.
        seed: int, start of the sequence of sampled points.
        loss, contrast: see `Segmenter`.

    Raises:
        ValueError: if num_classes or num_points is below 1, output_stride is not 1 or 2,
            input_scale is not positive, or point_border is not in 0 .. 1/2.

    Example:

    >>> import numpy as np
    >>> from mm_keras import backbones
    >>> model = HypercolumnSegmenter(backbones.build("testing"), num_classes=3)
    >>> tuple(model(np.zeros((1, 40, 50, 3), "uint8")).shape)
    (1, 20, 25, 3)
    """

    def __init__(
        self,
        backbone,
        num_classes,
        num_points=256,
        output_stride=2,
        dropout=0.5,
        stddev=1e-4,
        input_scale=1.0,
        point_border=POINT_BORDER,
        balanced_points=False,
        seed=0,
        name="hypercolumn_segmenter",
        loss=None,
        contrast=None,
    ):
        super().__init__(backbone, num_classes, output_stride, name, loss, contrast)
        check_positive(num_points=num_points)
        if input_scale <= 0:
            raise ValueError(f"input_scale must be positive. Received {input_scale}.")
        if not 0 <= point_border < 0.5:
            raise ValueError(
                f"point_border must be at least 0 and below 1/2. Received {point_border}."
            )
        self.num_points, self.input_scale = num_points, input_scale
        self.point_border, self.balanced_points = point_border, balanced_points
        spec = backbone.spec
        self.context = hypercolumn_context(spec, dropout) if spec.context_units else None
        self.hypercolumn = layers.Hypercolumn(
            [*_as_tuples(spec.taps), *hypercolumn_context_taps(spec)],
            spec.hypercolumn_units,
            stddev,
            offsets={tap.name: tap.offset for tap in spec.taps},
            name="hypercolumn",
        )
        self.hypercolumn.build()
        # The released score_column layer names no filler, so its weights start at zero.
        self.score = keras.layers.Dense(num_classes, kernel_initializer="zeros", name="score")
        self.score.build((None, spec.hypercolumn_units))
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def classified(self, maps, images, training=False):
        """Return the logits of `feature_maps` of images [B, H, W, 3] with RGB values 0..255.

        Returns:
            In training, {"logits": float32 [B, P, classes], "points": int32 [B, P, 2] as (y, x)};
            with balanced points, which need the labels, the `feature_maps`.
            Otherwise float32 [B, ceil(H / stride), ceil(W / stride), classes]; cell (i, j) lies on
            pixel (i * stride, j * stride).
        """
        if not training:
            return self.dense_logits(maps, ops.shape(images)[1:3])
        if self.balanced_points:
            return maps
        drawn = self.draw_points(images)
        return {"logits": self.point_logits(maps, drawn), "points": drawn}

    def feature_maps(self, images, training=False):
        """Return all taps of the hypercolumn, {name: [B, h, w, C]}."""
        maps = dict(self.backbone(images, training=training))
        if "input" in maps and self.input_scale != 1:
            maps["input"] = maps["input"] * self.input_scale
        if self.context is not None:
            maps.update(self.context(maps[self.backbone.spec.embedding.name], training=training))
        return maps

    def draw_points(self, images):
        """Draw pixels uniformly, `point_border` away from each border; int32 [B, P, 2]."""
        batch, height, width, _ = ops.shape(images)
        place = keras.random.uniform((batch, self.num_points, 2), seed=self.seed_generator)
        size = ops.cast(ops.stack([height, width]), "float32")
        border = self.point_border
        return ops.cast(size * (border + (1 - 2 * border) * place), "int32")

    def point_logits(self, maps, places):
        """Return logits float32 [B, P, classes] at pixels int32 [B, P, 2]."""
        hidden = ops.relu(self.hypercolumn(maps, places))
        return ops.cast(self.score(hidden), "float32")

    def dense_logits(self, maps, size):
        """Return the logits at every `output_stride`-th pixel, see `dense_map`.

        Args:
            maps: the result of `feature_maps`.
            size: (height, width) of the images.

        Returns:
            float32 [B, ceil(height / stride), ceil(width / stride), classes].
        """

        def classify(responses):
            return ops.cast(self.score(ops.relu(responses)), "float32")

        return dense_map(self.hypercolumn, maps, size, self.output_stride, classify)

    def paired(self, labels, outputs):
        """Return labels and logits at the sampled points, or at the cells of a dense result."""
        if not isinstance(outputs, dict):
            return super().paired(labels, outputs)
        if self.balanced_points:
            inside = points.inside(ops.shape(labels)[1:3], self.point_border)
            drawn = points.draw_balanced(
                ops.where(inside, ops.cast(labels, "int32"), losses.VOID),
                self.num_points,
                self.num_classes,
                self.seed_generator,
            )
            return points.labels_at(labels, drawn), self.point_logits(outputs, drawn)
        return points.labels_at(labels, outputs["points"]), outputs["logits"]


def _as_tuples(taps):
    return [(tap.name, tap.stride, tap.channels) for tap in taps]
