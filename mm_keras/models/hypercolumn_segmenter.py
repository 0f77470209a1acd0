"""The hypercolumn segmenter of the M&M paper."""

import keras
from keras import ops

from mm_keras import layers, losses
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
        loss: see `Segmenter`.

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
    ):
        super().__init__(backbone, num_classes, output_stride, name, loss)
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

    def call(self, images, training=False):
        """Return logits of images [B, H, W, 3] with RGB values 0..255.

        Returns:
            In training, {"logits": float32 [B, P, classes], "points": int32 [B, P, 2] as (y, x)};
            with balanced points, which need the labels, {"maps": `feature_maps`, "places": float32
            [B, P, 2], uniform in 0 .. 1}.
            Otherwise float32 [B, ceil(H / stride), ceil(W / stride), classes]; cell (i, j) lies on
            pixel (i * stride, j * stride).
        """
        maps = self.feature_maps(images, training)
        if not training:
            return self.dense_logits(maps, ops.shape(images)[1:3])
        if self.balanced_points:
            return {"maps": maps, "places": self._draw_places(images)}
        points = self.draw_points(images)
        return {"logits": self.point_logits(maps, points), "points": points}

    def feature_maps(self, images, training=False):
        """Return all taps of the hypercolumn, {name: [B, h, w, C]}."""
        maps = dict(self.backbone(images, training=training))
        if "input" in maps and self.input_scale != 1:
            maps["input"] = maps["input"] * self.input_scale
        if self.context is not None:
            maps.update(self.context(maps[self.backbone.spec.embedding.name], training=training))
        return maps

    def _draw_places(self, images):
        shape = (ops.shape(images)[0], self.num_points, 2)
        return keras.random.uniform(shape, seed=self.seed_generator)

    def draw_points(self, images):
        """Draw pixels uniformly, `point_border` away from each border; int32 [B, P, 2]."""
        size = ops.cast(ops.stack(ops.shape(images)[1:3]), "float32")
        border = self.point_border
        places = self._draw_places(images)
        return ops.cast(size * (border + (1 - 2 * border) * places), "int32")

    def point_logits(self, maps, points):
        """Return logits float32 [B, P, classes] at points int32 [B, P, 2]."""
        hidden = ops.relu(self.hypercolumn(maps, points))
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
        if "maps" in outputs:
            inside = points_inside(ops.shape(labels)[1:3], self.point_border)
            points = balanced_points(
                ops.where(inside, labels, losses.VOID), outputs["places"], self.num_classes
            )
            return labels_at(labels, points), self.point_logits(outputs["maps"], points)
        return labels_at(labels, outputs["points"]), outputs["logits"]


def points_inside(size, border):
    """Return whether each pixel is `border` away from all borders, bool [height, width].

    Args:
        size: (height, width).
        border: share of the height and of the width.
    """

    def is_inside(length):
        place, margin = ops.arange(length), ops.cast(border * length, "int32")
        return ops.logical_and(place >= margin, place < length - margin)

    rows, columns = map(is_inside, size)
    return ops.logical_and(rows[:, None], columns[None, :])


def balanced_points(labels, places, num_classes):
    """Return a pixel for each place: its class uniform over the image's classes, then its position.

    Args:
        labels: class ids [B, H, W]; other values are void and are not drawn.
        places: float32 [B, P, 2] in 0 .. 1: the class, and the pixel among the pixels of the class.
        num_classes: number of classes.

    Returns:
        int32 [B, P, 2] as (y, x). An image without labelled pixels gets some of its void pixels.

    Example: one pixel of class 1 in four is drawn as often as the three of class 0.

    >>> import numpy as np
    >>> places = np.array([[[0.2, 0.9], [0.7, 0.9]]], "float32")
    >>> balanced_points(np.array([[[0, 0], [1, 0]]]), places, 2).numpy().tolist()
    [[[1, 1], [1, 0]]]
    """
    batch, height, width = ops.shape(labels)
    flat = ops.cast(ops.reshape(labels, (batch, height * width)), "int32")
    flat = ops.where(ops.logical_and(flat >= 0, flat < num_classes), flat, num_classes)
    by_class = ops.cast(ops.argsort(flat, axis=1), "int32")
    classes = range(num_classes + 1)  # the last one is void
    counts = ops.stack([ops.sum(ops.cast(flat == k, "int32"), axis=1) for k in classes], axis=1)
    is_present = counts[:, :-1] > 0
    is_void_alone = ops.logical_not(ops.any(is_present, axis=1, keepdims=True))
    is_present = ops.concatenate([is_present, is_void_alone], axis=1)
    ranks = ops.cumsum(ops.cast(is_present, "int32"), axis=1)
    chosen_rank = 1 + _scaled(places[..., 0], ranks[:, -1:])
    reaches = ranks[:, None, :] >= chosen_rank[:, :, None]
    chosen = ops.argmax(ops.cast(reaches, "int32"), axis=-1)
    starts = ops.cumsum(counts, axis=1) - counts
    count, start = (ops.take_along_axis(x, chosen, axis=1) for x in (counts, starts))
    pixel = ops.take_along_axis(by_class, start + _scaled(places[..., 1], count), axis=1)
    return ops.stack([pixel // width, pixel % width], axis=-1)


def _scaled(place, count):
    """Return integers below `count` at places in 0 .. 1."""
    return ops.minimum(ops.cast(place * ops.cast(count, "float32"), "int32"), count - 1)


def labels_at(labels, points):
    """Return the labels [B, P] of maps [B, H, W] at points int32 [B, P, 2] of (y, x)."""
    batch, height, width = ops.shape(labels)
    first = ops.arange(batch, dtype="int32")[:, None] * (height * width)
    return ops.take(ops.reshape(labels, (-1,)), first + points[..., 0] * width + points[..., 1])


def _as_tuples(taps):
    return [(tap.name, tap.stride, tap.channels) for tap in taps]
