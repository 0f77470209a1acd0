"""The pretext tasks as stage proxy sees them: settings handed to inputs and network, figures and a
picture of what was learned.
"""

from collections.abc import Sequence
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from mm_keras import visualize
from mm_keras.backbones import Backbone
from mm_keras.models.proxies import colorization as colorization_model
from mm_keras.models.proxies import jigsaw as jigsaw_model
from pipelines.batches import Order, View, colorization, jigsaw, permutations
from trainers import config


class Task(Protocol):
    """A pretext task on a backbone.

    needs_color: whether gray images are of no use.
    model: the compiled network is trained as any other; its `backbone` is what M&M takes over.
    """

    needs_color: bool
    model: keras.Model

    def __init__(self, experiment: config.Experiment, backbone: Backbone): ...

    def batches(self, files: Sequence[str], order: Order) -> tf.data.Dataset:
        """One element per step."""

    def measure(self, train: Sequence[str], held_out: Sequence[str]) -> dict[str, float]:
        """Figures of the trained model on images that it was not trained on, each beside the one
        of a guess.
        """

    def picture(self, held_out: Sequence[str]) -> np.ndarray:
        """What the trained model makes of some images, uint8 [height, width, 3]."""


class Colorization:
    """Larsson et al. 2017: which colors has a gray image?"""

    needs_color = True

    def __init__(self, experiment, backbone):
        self.settings = settings = experiment.colorization
        self.pad_color = backbone.spec.pad_color
        self.model = colorization_model.Colorization(
            backbone,
            formulation=settings.formulation,
            num_bins=settings.num_bins,
            dropout=settings.dropout,
            stddev=settings.stddev,
            decay=settings.head_decay,
            input_tap=settings.input_tap,
            fc6_size=settings.fc6_size,
        )

    def batches(self, files, order):
        settings = self.settings
        points = colorization.Points(
            num_points=settings.num_points, targets=settings.targets, num_bins=settings.num_bins
        )
        view = View(
            crop=settings.crop,
            shorter_side=settings.shorter_side,
            mirror=settings.mirror,
            pad_color=self.pad_color,
            enlarge=settings.enlarge,
        )
        return colorization.batches(files, points, view, order)

    def measure(self, train, held_out):
        means = colorization_model.mean_distributions(
            _once(self, train[: len(held_out)]), self.settings.num_bins
        )
        return colorization_model.evaluate(self.model, _once(self, held_out), means)

    def picture(self, held_out):
        images = next(iter(_once(self, held_out)))["image"].numpy()
        return visualize.colorization_gallery(images, self.model.colorize(images).numpy())


class Jigsaw:
    """Noroozi & Favaro 2016: which permutation shuffled the tiles?"""

    needs_color = False

    def __init__(self, experiment, backbone):
        self.settings = settings = experiment.jigsaw
        self.permutations = permutations.permutation_set(
            settings.num_permutations, settings.rule, experiment.seed
        )
        self.model = jigsaw_model.Jigsaw(
            backbone,
            settings.num_permutations,
            tile=settings.tile,
            normalization=settings.normalization,
            spread=settings.spread,
            dropout=settings.dropout,
            initialization=settings.initialization,
        )

    def batches(self, files, order):
        settings = self.settings
        puzzle = jigsaw.Puzzle(
            shorter_side=settings.shorter_side,
            cell=settings.cell,
            tile=settings.tile,
            placement=settings.placement,
            channel_jitter=settings.channel_jitter,
            gray_share=settings.gray_share,
        )
        return jigsaw.batches(files, self.permutations, puzzle, order)

    def measure(self, train, held_out):
        del train
        figures = jigsaw_model.evaluate(self.model, _once(self, held_out))
        return {"accuracy": figures["accuracy"], "chance": 1 / len(self.permutations)}

    def picture(self, held_out):
        batch = next(iter(_once(self, held_out)))
        tiles, truth = batch["tiles"].numpy(), batch["permutation"].numpy()
        predicted = np.argmax(self.model.predict_on_batch(tiles), axis=-1)
        return visualize.jigsaw_gallery(
            tiles, self.permutations[truth], self.permutations[predicted]
        )


def _once(task, files):
    """Batches of up to 16 images, always alike, that show each file once; a rest is left out."""
    num_images = min(16, len(files))
    return task.batches(files, Order(num_images=num_images, num_steps=len(files) // num_images))
