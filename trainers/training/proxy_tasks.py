"""The table of pretext tasks. Only this module and the settings name them.

An entry joins the parts of a task: its settings, its inputs, its model, its scores and a picture.
A new task X touches five files.

- pipelines/batches/X.py, its inputs,
- mm_keras/models/proxies/X.py, its network and loss,
- trainers/config/schema.py, a `ProxyTask` record and a field of `Experiment` with its name,
- this module, an entry of `TASKS`,
- a test.
"""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import keras
import numpy as np
import tensorflow as tf

from mm_keras import visualize
from mm_keras.backbones import Backbone
from mm_keras.models.proxies import bigan as bigan_model
from mm_keras.models.proxies import color_classes as color_classes_model
from mm_keras.models.proxies import colorization as colorization_model
from mm_keras.models.proxies import context_encoder as context_encoder_model
from mm_keras.models.proxies import jigsaw as jigsaw_model
from mm_keras.models.proxies import split_brain as split_brain_model
from pipelines.batches import (
    Order,
    View,
    colorization,
    holes,
    images,
    jigsaw,
    latents,
    neighbors,
    permutations,
)
from trainers import config
from trainers.training import data_dependent

NUM_PUZZLES = 256
"""Least number of puzzles of an accuracy; few images give several each. Source: ours."""

NUM_PRIOR_IMAGES = 2000
"""Training images from which the shares of the colors are computed. Source: ours."""


class Task(Protocol):
    """A pretext task on a backbone.

    Attributes:
        section: its section of the settings, which is also its name as an init.
        needs_color: whether gray images cannot be used.
        takes_bands: whether images may have another number of bands than three.
        pixels: kind of pixels that its weights expect (released train_graph.prototxt files).
        backbones: names of the networks that it can train; empty for all.
        least_measured: number of images that `measure` needs.
        model: the network that stage proxy trains. Stage mm starts from its `backbone`.

    Args:
        experiment: the settings.
        backbone: the network to train.
    """

    section: ClassVar[str]
    needs_color: ClassVar[bool]
    takes_bands: ClassVar[bool] = False
    pixels: ClassVar[str]
    backbones: ClassVar[tuple[str, ...]] = ()
    least_measured: ClassVar[int] = 1
    model: keras.Model

    def __init__(self, experiment: config.Experiment, backbone: Backbone): ...

    def batches(self, files: Sequence[str], order: Order) -> tf.data.Dataset:
        """Return one element per step.

        Args:
            files: paths of images.
            order: which images a step shows.
        """

    def prepare(self, train: Sequence[str]):
        """Set parts of the model from the training images before the first step.

        Args:
            train: images that the model will be trained on.
        """

    def measure(self, train: Sequence[str], held_out: Sequence[str]) -> dict[str, float]:
        """Return scores of the trained model, each beside the score of a guess.

        Args:
            train: images that the model was trained on.
            held_out: images that it was not trained on.
        """

    def picture(self, held_out: Sequence[str]) -> np.ndarray:
        """Return a picture of the model's predictions, uint8 [height, width, 3]."""


class Colorization(Task):
    """Predict the colors of a gray image (Larsson et al. 2017)."""

    section = "colorization"
    needs_color = True
    pixels = "gray"

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
        view = _view(settings, settings.enlarge, pad_color=self.pad_color)
        return colorization.batches(files, points, view, order)

    def measure(self, train, held_out):
        means = colorization_model.mean_distributions(
            _once(self, train[: len(held_out)]), self.settings.num_bins
        )
        return colorization_model.evaluate(self.model, _once(self, held_out), means)

    def picture(self, held_out):
        images = next(iter(_once(self, held_out)))["image"].numpy()
        return visualize.colorization_gallery(images, self.model.colorize(images).numpy())


class Jigsaw(Task):
    """Predict the permutation of shuffled tiles (Noroozi and Favaro 2016)."""

    section = "jigsaw"
    needs_color, takes_bands = False, True
    pixels = "jigsaw"

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
        bands = self.model.backbone.spec.num_bands
        return jigsaw.batches(files, self.permutations, puzzle, order, bands)

    def measure(self, train, held_out):
        del train
        return _accuracy(self, held_out, len(self.permutations))

    def picture(self, held_out):
        tiles, truth, predicted = _solved(self, held_out)
        return visualize.jigsaw_gallery(
            tiles, self.permutations[truth], self.permutations[predicted]
        )


class LabTask(Task):
    """A task of Zhang et al.: it predicts bins of Lab, and its picture shows predicted colors."""

    needs_color = True

    def prepare(self, train):
        self.model.set_prior(_once(self, train[:NUM_PRIOR_IMAGES]))

    def batches(self, files, order):
        return images.batches(files, _view(self.settings), order)

    def picture(self, held_out):
        shown = next(iter(_once(self, held_out)))["image"].numpy()
        return visualize.colorization_gallery(shown, self.model.colorize(shown).numpy())


class ColorClasses(LabTask):
    """Classify the colors of an image from its lightness (Zhang et al. 2016a)."""

    section = "color_classes"
    pixels = "lightness"

    def __init__(self, experiment, backbone):
        self.experiment, self.settings = experiment, experiment.color_classes
        self.model = color_classes_model.ColorClasses(
            backbone,
            num_neighbors=self.settings.num_neighbors,
            uniform_share=self.settings.uniform_share,
            fc6_size=self.settings.fc6_size,
        )

    def prepare(self, train):
        if self.settings.start == "kmeans":
            data_dependent.initialize(self.model.backbone, train, self.experiment)
        super().prepare(train)

    def measure(self, train, held_out):
        del train
        return color_classes_model.evaluate(self.model, _once(self, held_out))


class SplitBrain(LabTask):
    """Predict colors from lightness, and lightness from colors (Zhang et al. 2016b)."""

    section = "split_brain"
    pixels = "lab"
    backbones = ("alexnet",)

    def __init__(self, experiment, backbone):
        self.settings = experiment.split_brain
        self.model = split_brain_model.SplitBrain(backbone)

    def measure(self, train, held_out):
        del train
        return split_brain_model.evaluate(self.model, _once(self, held_out))


class ContextEncoder(Task):
    """Fill a hole in an image (Pathak et al. 2016)."""

    section = "context_encoder"
    needs_color = False
    pixels = "bgr"

    def __init__(self, experiment, backbone):
        self.settings = settings = experiment.context_encoder
        self.color = backbone.spec.pad_color
        self.model = context_encoder_model.ContextEncoder(
            backbone, settings.crop, settings.decoder, settings.loss, settings.center
        )

    def batches(self, files, order):
        return holes.batches(files, _view(self.settings), order, self.settings.hole, self.color)

    def measure(self, train, held_out):
        mean = context_encoder_model.mean_pixels(self.model, _once(self, train[: len(held_out)]))
        return context_encoder_model.evaluate(self.model, _once(self, held_out), mean)

    def picture(self, held_out):
        batch = next(iter(_once(self, held_out)))
        filled = self.model.fill(batch["image"], batch["target"]).numpy()
        originals = batch["target"].numpy()[..., :3]
        return visualize.holes_gallery(batch["image"].numpy(), filled, originals)


class ContextPrediction(Task):
    """Predict where a patch lies beside another one (Doersch et al. 2015)."""

    section = "context_prediction"
    needs_color, takes_bands = False, True
    pixels = "bgr"

    def __init__(self, experiment, backbone):
        settings = experiment.context_prediction
        self.pair = neighbors.Pair(
            shorter_side=settings.shorter_side,
            patch=settings.patch,
            gap=settings.gap,
            jitter=settings.jitter,
            color=settings.color,
        )
        self.model = jigsaw_model.Jigsaw(
            backbone,
            neighbors.NUM_OFFSETS,
            tile=settings.patch,
            normalization="joint",
            spread=settings.spread,
            dropout=settings.dropout,
            initialization=settings.initialization,
            num_tiles=2,
            name=self.section,
        )

    def batches(self, files, order):
        return neighbors.batches(files, self.pair, order, self.model.backbone.spec.num_bands)

    def measure(self, train, held_out):
        del train
        return _accuracy(self, held_out, neighbors.NUM_OFFSETS)

    def picture(self, held_out):
        tiles, truth, predicted = _solved(self, held_out)
        empty = np.full_like(tiles[:, :1], 128).repeat(jigsaw.NUM_TILES - 2, axis=1)
        puzzles = np.concatenate([tiles, empty], axis=1)
        return visualize.jigsaw_gallery(puzzles, _arranged(truth), _arranged(predicted))


class Bigan(Task):
    """Encode and generate images against a discriminator of pairs (Donahue et al. 2016)."""

    section = "bigan"
    needs_color = False
    pixels = "bigan"
    least_measured = 2  # a reconstruction is compared with another image

    def __init__(self, experiment, backbone):
        self.settings = settings = experiment.bigan
        self.model = bigan_model.Bigan(
            backbone, settings.crop, settings.side, settings.num_codes, settings.channels
        )

    def batches(self, files, order):
        return latents.batches(files, _view(self.settings), order, self.settings.num_codes)

    def measure(self, train, held_out):
        del train
        return bigan_model.evaluate(self.model, _once(self, held_out))

    def picture(self, held_out):
        batch = next(iter(_once(self, held_out)))
        rebuilt = self.model.generate(self.model.encode(batch["image"]))
        columns = (self.model.small(batch["image"]), rebuilt, self.model.generate(batch["z"]))
        return visualize.samples_gallery(*map(bigan_model.as_pictures, columns))


def _arranged(offsets):
    """Return permutations [N, 9]: the middle cell, the cell of the neighbor, all other cells."""
    rows = []
    for cell in neighbors.cells(offsets):
        others = np.setdiff1d(np.arange(jigsaw.NUM_TILES), [neighbors.MIDDLE, cell])
        rows.append([neighbors.MIDDLE, cell, *others])
    return np.array(rows)


TASKS: dict[str, type[Task]] = {
    task.section: task
    for task in (
        Colorization,
        Jigsaw,
        ColorClasses,
        SplitBrain,
        ContextEncoder,
        ContextPrediction,
        Bigan,
    )
}
"""{init: its pretext task}."""


def check(experiment: config.Experiment):
    """Raise an error if the pretext task of a run cannot use images of its number of bands.

    Raises:
        config.ConfigError: names the tasks that take any number of bands.
    """
    bands, name = experiment.network.channels or 3, config.proxy_task(experiment)
    if bands == 3 or name is None:
        return
    if not TASKS[name].takes_bands:
        others = ", ".join(key for key, task in TASKS.items() if task.takes_bands)
        raise config.ConfigError(
            f"network.init={name} needs images of red, green and blue, and these have {bands} "
            f"bands. Set network.channels=3 to use the first three, or use {others} or another "
            "init."
        )
    if experiment.data.unlabelled_dir is not None:
        raise config.ConfigError(
            f"data.unlabelled_dir takes images of three bands, and the network takes {bands}. "
            "Leave it out, or set network.channels=3."
        )
    if name == "context_prediction" and experiment.context_prediction.color == "project":
        raise config.ConfigError(
            f"context_prediction.color=project needs three bands. Received {bands}. Use drop or "
            "keep."
        )


def pixels(init: str) -> str | None:
    """Return the kind of pixels that the weights of an init expect.

    Returns:
        None for the pixels of the backbone: random weights and ImageNet weights.

    >>> pixels("colorization"), pixels("random")
    ('gray', None)
    """
    return TASKS[init].pixels if init in TASKS else None


def check_backbone(init: str, backbone: str):
    """Raise an error if an init is a pretext task that cannot train a network.

    Args:
        init: `network.init`.
        backbone: `network.backbone`.

    Raises:
        config.ConfigError: the task is for other networks.
    """
    names = TASKS[init].backbones if init in TASKS else ()
    if names and backbone not in names:
        raise config.ConfigError(
            f"network.init={init} needs network.backbone={' or '.join(names)}. Received {backbone}."
        )


def _view(settings, enlarge=True, **further) -> View:
    """Return the view of a task that shows crops of images."""
    return View(
        crop=settings.crop,
        shorter_side=settings.shorter_side,
        mirror=settings.mirror,
        enlarge=enlarge,
        **further,
    )


def _accuracy(task, held_out, num_classes) -> dict[str, float]:
    """Return the accuracy of a task with tiles, beside the accuracy of a guess."""
    figures = jigsaw_model.evaluate(task.model, _once(task, held_out, least=NUM_PUZZLES))
    return {"accuracy": figures["accuracy"], "chance": 1 / num_classes}


def _solved(task, held_out) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return tiles of held-out images, their true classes and the predicted ones."""
    batch = next(iter(_once(task, held_out)))
    tiles, truth = batch["tiles"].numpy(), batch["permutation"].numpy()
    return tiles, truth, np.argmax(task.model.predict_on_batch(tiles), axis=-1)


def _once(task, files, least=0):
    """Return the same batches in every call, of up to 16 images, without an incomplete last one.

    Each image is shown at most once, or again with other draws until `least` views are shown.
    """
    num_images = min(16, len(files))
    num_steps = max(len(files) // num_images, -(-least // num_images))
    return task.batches(files, Order(num_images=num_images, num_steps=num_steps))
