"""Segmenters on top of a backbone: what all of them share, and the hypercolumn network of the M&M
paper.
"""

import keras
from keras import ops

from mm_keras import layers, losses
from mm_keras.models import training
from mm_keras.models.training import counted

# Labels within this share of the crop from its border are not sampled: 96 of 512 pixels in the
# released VGG/*/finetune_seg.prototxt (points uniform in [96, 416)).
POINT_BORDER = 3 / 16

# Points of a dense map that are computed at a time: 8 MiB of 1024 float32 units, which fits a cache
# and keeps matrix products efficient, while ten bands in flight (TensorFlow's default for loops)
# stay below 100 MiB.
POINTS_PER_BAND = 2048


class Segmenter(keras.Model):
    """What the segmenters share: the training step, the loss and its metrics.

    A subclass implements `call(images, training)`: logits float32 [B, ceil(H / output_stride),
    ceil(W / output_stride), num_classes], cell (i, j) on pixel (i, j) * output_stride. In training
    it may give another form that its own `paired` understands.

    `fit` takes what `pipelines.build.crops` yields, {"image": uint8 [B, H, W, 3], "label": uint8
    [B, H, W]}, or images as x and labels as y on any Keras backend.

    Args:
        backbone: `mm_keras.backbones.Backbone`.
        num_classes: number of classes, void not counted.
        output_stride: image pixels per cell of the dense result.

    Metrics: loss; pixel_accuracy, the share of the labelled pixels of the loss whose class has the
    largest logit; gradient_norm; non_finite, the number of steps whose loss or gradient was not
    finite.

    Raises:
        ValueError: num_classes below 1.
    """

    def __init__(self, backbone, num_classes, output_stride, name):
        super().__init__(name=name)
        _check_positive(num_classes=num_classes)
        self.backbone, self.num_classes = backbone, num_classes
        self.output_stride = output_stride
        self.trackers = {
            name: keras.metrics.Mean(name=name) for name in ("pixel_accuracy", "gradient_norm")
        }
        self.non_finite = training.NonFinite()

    def train_step(self, *args):
        """One step on {"image", "label"} or (images, labels) in TensorFlow's graph mode; Keras' own
        step elsewhere.
        """
        if keras.backend.backend() != "tensorflow":
            return super().train_step(*args)
        import tensorflow as tf

        images, labels = training.unpack(*args, keys=("image", "label"))
        with tf.GradientTape() as tape:
            outputs = self(images, training=True)
            loss = self.compute_loss(images, labels, outputs)
            scaled_loss = training.scaled(self, loss)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        gradient_norm = training.update_weights(self, gradients)
        training.track_step(self, loss, gradient_norm)
        return self.get_metrics_result()

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Cross-entropy over the pixels that `paired` gives; void left out."""
        labels, logits = self.paired(ops.convert_to_tensor(y), y_pred)
        self._track_accuracy(labels, logits)
        return counted(self, losses.pixel_cross_entropy(labels, logits))

    def paired(self, labels, outputs):
        """Labels [...] and logits [..., num_classes] of the same pixels.

        Args:
            labels: [B, H, W].
            outputs: what `call` returned.
        """
        return labels[:, :: self.output_stride, :: self.output_stride], outputs

    def _track_accuracy(self, labels, logits):
        labels = ops.cast(labels, "int32")
        hits = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), labels)
        weights = ops.cast(labels != losses.VOID, "float32")
        self.trackers["pixel_accuracy"].update_state(
            ops.cast(hits, "float32"), sample_weight=weights
        )


class HypercolumnSegmenter(Segmenter):
    """Classifies pixels from their hypercolumn: all taps of the backbone, and fc6, fc7 and two
    blocks on its top.

    Training reads `num_points` random pixels per image and never builds a dense hypercolumn.
    Inference gives dense logits at `output_stride`, by projecting each tap at its own resolution,
    then interpolating and summing.

    Args:
        backbone: `mm_keras.backbones.Backbone`.
        num_classes: number of classes, void not counted.
        num_points: sampled pixels per image and step; 256 in the released
            VGG/*/finetune_seg.prototxt.
        output_stride: image pixels per cell of the dense result, 1 or 2; 2 in the paper's test
            protocol.
        dropout: on fc6 and fc7.
        stddev: of the initial kernels of the hidden layer over the hypercolumn (1e-4 in the
            released network).
        input_scale: factor of the pixels' own tap, which reaches a hundred times as far as the
            others with the pixels of the released random networks; 1 there.
        seed: int, start of the sequence of sampled points.

    Raises:
        ValueError: num_classes, num_points below 1, output_stride not 1 or 2, input_scale not
            positive.
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
        seed=0,
        name="hypercolumn_segmenter",
    ):
        super().__init__(backbone, num_classes, output_stride, name)
        _check_positive(num_points=num_points)
        if output_stride not in (1, 2):
            raise ValueError(f"output_stride must be 1 or 2. Received {output_stride}.")
        if input_scale <= 0:
            raise ValueError(f"input_scale must be positive. Received {input_scale}.")
        self.num_points, self.input_scale = num_points, input_scale
        spec = backbone.spec
        self.context = context_network(spec, dropout) if spec.context_units else None
        self.hypercolumn = layers.Hypercolumn(
            [*_as_tuples(spec.taps), *context_taps(spec)],
            spec.hypercolumn_units,
            stddev,
            name="hypercolumn",
        )
        self.hypercolumn.build()
        # The released score_column layer names no filler, so its weights start at zero.
        self.score = keras.layers.Dense(num_classes, kernel_initializer="zeros", name="score")
        self.score.build((None, spec.hypercolumn_units))
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, images, training=False):
        """Logits of images [B, H, W, 3] with RGB values 0..255.

        Returns:
            Training: {"logits": float32 [B, P, classes], "points": int32 [B, P, 2] as (y, x)}.
                Otherwise float32
            [B, ceil(H / stride), ceil(W / stride), classes]; cell (i, j) lies on pixel (i * stride,
            j * stride).
        """
        maps = self.feature_maps(images, training)
        if not training:
            return self.dense_logits(maps, ops.shape(images)[1:3])
        points = self.draw_points(images)
        return {"logits": self.point_logits(maps, points), "points": points}

    def feature_maps(self, images, training=False):
        """All taps of the hypercolumn, {name: [B, h, w, C]}."""
        maps = dict(self.backbone(images, training=training))
        if "input" in maps and self.input_scale != 1:
            maps["input"] = maps["input"] * self.input_scale
        if self.context is not None:
            maps.update(self.context(maps[self.backbone.spec.embedding.name], training=training))
        return maps

    def draw_points(self, images):
        """Pixels uniform over the inner 5/8 of the image, row and column independent; int32 [B, P,
        2].
        """
        batch, height, width, _ = ops.shape(images)
        place = keras.random.uniform((batch, self.num_points, 2), seed=self.seed_generator)
        size = ops.cast(ops.stack([height, width]), "float32")
        return ops.cast(size * (POINT_BORDER + (1 - 2 * POINT_BORDER) * place), "int32")

    def point_logits(self, maps, points):
        """float32 [B, P, classes] at points int32 [B, P, 2]."""
        hidden = ops.relu(self.hypercolumn(maps, points))
        return ops.cast(self.score(hidden), "float32")

    def dense_logits(self, maps, size):
        """Logits at every `output_stride`-th pixel, see `dense_map`.

        Args:
            maps: from `feature_maps`.
            size: (height, width) of the images.

        Returns:
            float32 [B, ceil(height / stride), ceil(width / stride), classes].
        """

        def classify(responses):
            return ops.cast(self.score(ops.relu(responses)), "float32")

        return dense_map(self.hypercolumn, maps, size, self.output_stride, classify)

    def paired(self, labels, outputs):
        """In training the sampled points, otherwise the cells of the dense result."""
        if not isinstance(outputs, dict):
            return super().paired(labels, outputs)
        return labels_at(labels, outputs["points"]), outputs["logits"]


def labels_at(labels, points):
    """Labels [B, H, W] at points int32 [B, P, 2] of (y, x); [B, P]."""
    batch, height, width = ops.shape(labels)
    first = ops.arange(batch, dtype="int32")[:, None] * (height * width)
    return ops.take(ops.reshape(labels, (-1,)), first + points[..., 0] * width + points[..., 1])


def dense_map(hypercolumn, maps, size, stride, head):
    """What a network makes of the hypercolumn at every stride-th pixel.

    It is computed in bands of rows, so that the hidden layer never exists for a whole image.

    Args:
        hypercolumn: `layers.Hypercolumn`; one of its taps at least is as dense as the result.
        maps: {tap name: [B, h, w, C]}.
        size: (height, width) of the images.
        stride: image pixels per cell of the result.
        head: function from the hypercolumn's linear responses [B, R, w, units] at R rows of cells
            to [B, R, w, channels].

    Returns:
        [B, ceil(height / stride), ceil(width / stride), channels] in the dtype of `head`'s result;
        cell (i, j) lies on pixel (i * stride, j * stride).
    """
    height, width = (-(-length // stride) for length in size)
    band = POINTS_PER_BAND // width + 1  # rows
    num_bands = -(-height // band)
    prepared = hypercolumn.prepare(maps, (height, width), stride)

    def band_result(k):
        rows = k * band + ops.arange(band, dtype="int32")
        return head(hypercolumn.rows(prepared, rows, stride))

    bands = ops.map(band_result, ops.arange(num_bands, dtype="int32"))
    stacked = ops.transpose(bands, (1, 0, 2, 3, 4))
    batch, *_, channels = ops.shape(stacked)
    return ops.reshape(stacked, (batch, -1, width, channels))[:, :height]


def context_network(spec, dropout=0.5, added=True, fc6_size=7, batch_norm=False):
    """fc6, fc7 and two blocks of convolution and pooling on the embedding map (released
    VGG/*/finetune_seg.prototxt).

    Args:
        spec: `BackboneSpec`; its `context_units` are the channels of fc6, fc7, conv_add1 and
            conv_add2.
        dropout: on fc6 and fc7.
        added: whether to build the two blocks after fc7.
        fc6_size: side of fc6's kernel.
        batch_norm: normalise fc6 and fc7 before their ReLU, without scale and shift.

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


def _as_tuples(taps):
    return [(tap.name, tap.stride, tap.channels) for tap in taps]


def _check_positive(**values):
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received {value}.")
