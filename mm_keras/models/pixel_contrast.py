"""Contrast of labelled pixels of whole crops: a stage before fine-tuning, beside mix-and-match."""

from collections.abc import Sequence

import keras
from keras import ops

from mm_keras import layers, losses
from mm_keras.models import embedding_health, points
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
        self.backbone, self.num_classes = backbone, num_classes
        self.num_points, self.temperature = num_points, temperature
        self.head = PixelHead(backbone.spec, head, seed, name="head")
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

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
        drawn = points.draw_balanced(labels, self.num_points, self.num_classes, self.seed_generator)
        embeddings = self.head(outputs, drawn)
        labels = points.labels_at(labels, drawn)
        flat = ops.reshape(ops.stop_gradient(embeddings), (-1, embeddings.shape[-1]))
        embedding_health.track_pairs(
            self.trackers, flat, ops.reshape(labels, (-1,)), self.num_classes
        )
        return losses.pixel_contrast(embeddings, labels, self.temperature)


class PixelHead(keras.layers.Layer):
    """Map the hypercolumns of pixels to unit vectors: one hidden layer with ReLU, and an output.

    It computes in float32 whatever the precision of the network.

    Args:
        spec: `mm_keras.backbones.BackboneSpec`.
        sizes: sizes of the hidden layer and of the vectors.
        seed: int, start of the first weights.

    Raises:
        ValueError: if `sizes` does not have two sizes.
    """

    def __init__(self, spec, sizes: Sequence[int] = (256, 128), seed=0, name="pixel_head"):
        super().__init__(name=name, dtype="float32", autocast=False)
        if len(sizes) != 2:
            raise ValueError(
                "The head of pixel contrast has one hidden layer and an output: expected two "
                f"sizes. Received {tuple(sizes)}."
            )
        taps = learned_taps(spec)
        self.hidden = layers.Hypercolumn(
            [(tap.name, tap.stride, tap.channels) for tap in taps],
            sizes[0],
            stddev=(2 / sum(tap.channels for tap in taps)) ** 0.5,
            offsets={tap.name: tap.offset for tap in taps},
            dtype="float32",
            name="hidden",
        )
        self.hidden.build()
        self.project = keras.layers.Dense(
            sizes[1],
            kernel_initializer=keras.initializers.HeNormal(seed),
            dtype="float32",
            name="project",
        )
        self.project.build((None, sizes[0]))
        self.built = True

    def call(self, maps, places):
        """Return unit vectors float32 [B, P, D].

        Args:
            maps: {name of a tap: [B, h, w, C]}, with all `learned_taps`.
            places: pixels int32 [B, P, 2] of (y, x).
        """
        maps = {name: ops.cast(maps[name], "float32") for name, *_ in self.hidden.taps}
        return losses.unit(self.project(ops.relu(self.hidden(maps, places))))


def learned_taps(spec) -> list:
    """Return the taps that have weights to tune: all but the pixels themselves, and the embedding.

    Args:
        spec: `mm_keras.backbones.BackboneSpec`.
    """
    learned = [tap for tap in spec.taps if tap.name != "input"]
    names = {tap.name for tap in learned}
    return learned if spec.embedding.name in names else [*learned, spec.embedding]
