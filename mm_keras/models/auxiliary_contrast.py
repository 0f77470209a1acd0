"""Contrast of labelled pixels beside the loss of fine-tuning."""

import dataclasses

import keras

from mm_keras import losses
from mm_keras.models import points
from mm_keras.models.pixel_contrast import PixelHead


@dataclasses.dataclass(frozen=True)
class ContrastSettings:
    """Sizes of the contrast.

    Attributes:
        weight: of its loss beside the loss of the segmenter; 0.1 in the release of Wang et al. 2021
            (tfzhou/ContrastiveSeg, configs).
        num_points: pixels of an image and step, drawn class-balanced.
        temperature: see `mm_keras.losses.pixel_contrast`; 0.1 in that release.
        head: sizes of the hidden layer and of the vectors of `PixelHead`.
    """

    weight: float = 0.1
    num_points: int = 256
    temperature: float = 0.1
    head: tuple[int, int] = (256, 128)


class AuxiliaryContrast(keras.layers.Layer):
    """Return the weighted `mm_keras.losses.pixel_contrast` of some labelled pixels of a batch.

    The pixels are compared within and across the images of the batch by the hypercolumns of the
    backbone. Only the loss of training reads the head.

    Args:
        spec: `mm_keras.backbones.BackboneSpec`.
        num_classes: number of classes, void not counted.
        settings: `ContrastSettings`.
        seed: int, start of the first weights and of the sequence of pixels.

    Raises:
        ValueError: the weight or the number of points is not positive.
    """

    def __init__(self, spec, num_classes, settings: ContrastSettings, seed=0, name="contrast"):
        super().__init__(name=name, dtype="float32", autocast=False)
        if settings.weight <= 0 or settings.num_points < 1:
            raise ValueError(
                "weight must be positive, and num_points at least 1. Received "
                f"weight={settings.weight}, num_points={settings.num_points}."
            )
        self.num_classes, self.settings = num_classes, settings
        self.head = PixelHead(spec, settings.head, seed, name="head")
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, maps, labels):
        """Return the weighted loss, float32 scalar; 0 if no class has two of the pixels.

        Args:
            maps: {name of a tap: [B, h, w, C]}.
            labels: class ids or `VOID`, [B, H, W].
        """
        labels = keras.ops.cast(labels, "int32")
        drawn = points.draw_balanced(
            labels, self.settings.num_points, self.num_classes, self.seed_generator
        )
        embeddings = self.head(maps, drawn)
        loss = losses.pixel_contrast(
            embeddings, points.labels_at(labels, drawn), self.settings.temperature
        )
        return self.settings.weight * loss
