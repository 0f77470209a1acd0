"""Contrast of labelled pixels of whole crops: a stage before fine-tuning, beside mix-and-match."""

from collections.abc import Sequence

import keras
from keras import ops

from mm_keras import layers, losses
from mm_keras.models import embedding_health
from mm_keras.models.hypercolumn_segmenter import labels_at
from mm_keras.models.trainable import Trainable


class PixelContrast(Trainable):
    """Tune a backbone so that labelled pixels of one class have similar features.

    A step draws pixels of each crop, the class first. Their hypercolumns (all taps of the backbone)
    pass through a head with one hidden layer, and `mm_keras.losses.pixel_contrast` compares them
    within and across images. The head is dropped afterwards: the tuned weights stay in `backbone`.

    `fit` takes the batches of `pipelines.batches.crops`: {"image": uint8 [B, H, W, 3], "label":
    uint8 [B, H, W]}, or pairs of the two.

    Metrics: see `mm_keras.MixAndMatch`. The distances are means over all pairs of labelled pixels
    of a step.

    Args:
        backbone: `mm_keras.backbones.Backbone`.
        num_classes: number of classes, void not counted.
        num_points: pixels per crop and step.
        head: sizes of the hidden layer and of the embedding.
        temperature: see `mm_keras.losses.pixel_contrast`.
        seed: int, start of the first weights of the head and of the sequence of pixels.

    Raises:
        ValueError: if `head` does not have two sizes.

    Example:

    >>> import numpy as np
    >>> from mm_keras import backbones
    >>> model = PixelContrast(backbones.build("testing"), num_classes=2, num_points=8)
    >>> model.compile(optimizer="sgd")
    >>> images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    >>> history = model.fit(images, np.eye(32, dtype="uint8")[None].repeat(2, 0), verbose=0)
    """

    batch_keys = ("image", "label")

    def __init__(
        self,
        backbone,
        num_classes,
        num_points=256,
        head: Sequence[int] = (256, 128),
        temperature=0.07,
        seed=0,
        name="pixel_contrast",
    ):
        super().__init__(name, (*embedding_health.TRACKERS, "gradient_norm"))
        if len(head) != 2:
            raise ValueError(
                "The head of pixel contrast has one hidden layer and an output: expected two "
                f"sizes. Received {tuple(head)}."
            )
        self.backbone, self.num_classes = backbone, num_classes
        self.num_points, self.temperature = num_points, temperature
        taps = self._taps(backbone.spec)
        self.hidden = layers.Hypercolumn(
            [(tap.name, tap.stride, tap.channels) for tap in taps],
            head[0],
            stddev=(2 / sum(tap.channels for tap in taps)) ** 0.5,
            offsets={tap.name: tap.offset for tap in taps},
            dtype="float32",
            name="hidden",
        )
        self.hidden.build()
        self.project = keras.layers.Dense(
            head[1],
            kernel_initializer=keras.initializers.HeNormal(seed),
            dtype="float32",
            name="project",
        )
        self.project.build((None, head[0]))
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    @staticmethod
    def _taps(spec):
        """Return the learned taps: the pixels themselves carry no weights to tune."""
        learned = [tap for tap in spec.taps if tap.name != "input"]
        names = {tap.name for tap in learned}
        return learned if spec.embedding.name in names else [*learned, spec.embedding]

    @property
    def graph_seeds(self) -> list:
        """An empty list: no graph is drawn."""
        return []

    def call(self, images, training=False):
        """Return the feature maps of images [B, H, W, 3] with RGB 0..255, {name: [B, h, w, C]}."""
        return self.backbone(images, training=training)

    def batch_loss(self, inputs, targets, outputs):
        """Draw pixels and return the loss of their embeddings. Record the distances."""
        labels = ops.cast(targets, "int32")
        points = self.draw_points(labels)
        embeddings = self.embeddings(outputs, points)
        labels = labels_at(labels, points)
        flat = ops.reshape(ops.stop_gradient(embeddings), (-1, embeddings.shape[-1]))
        embedding_health.track_pairs(
            self.trackers, flat, ops.reshape(labels, (-1,)), self.num_classes
        )
        return losses.pixel_contrast(embeddings, labels, self.temperature)

    def embeddings(self, maps, points):
        """Return unit vectors float32 [B, P, D] of the pixels at points int32 [B, P, 2]."""
        maps = {name: ops.cast(value, "float32") for name, value in maps.items()}
        return losses.unit(self.project(ops.relu(self.hidden(maps, points))))

    def draw_points(self, labels):
        """Draw labelled pixels of each image, all present classes with equal probability.

        No pixel is drawn twice. Where fewer pixels are labelled, the others are void. A rare class
        gives at most the pixels that it has.

        Args:
            labels: int32 [B, H, W].

        Returns:
            int32 [B, P, 2] of (y, x).
        """
        batch, height, width = ops.shape(labels)
        flat = ops.reshape(labels, (batch, height * width))
        is_void = flat == losses.VOID
        segment = ops.where(is_void, self.num_classes, flat)
        segment = segment + ops.arange(batch, dtype="int32")[:, None] * (self.num_classes + 1)
        segment = ops.reshape(segment, (-1,))
        ones = ops.ones_like(segment, dtype="float32")
        num_segments = batch * (self.num_classes + 1)
        counts = ops.take(ops.segment_sum(ones, segment, num_segments=num_segments), segment)
        # The largest of log(weight) + Gumbel noise are a weighted draw without replacement.
        uniform = keras.random.uniform(ops.shape(flat), minval=1e-7, seed=self.seed_generator)
        keys = -ops.log(-ops.log(uniform)) - ops.reshape(ops.log(counts), ops.shape(flat))
        keys = ops.where(is_void, -1e9, keys)
        _, chosen = ops.top_k(keys, min(self.num_points, height * width))
        return ops.stack([chosen // width, chosen % width], axis=-1)
