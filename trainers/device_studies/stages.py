"""Model and batches of each stage of a device study, from the settings."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from mm_keras import backbones, losses
from mm_keras.models.proxies.colorization import Colorization
from trainers import config
from trainers.device_studies import colors, crops, patches
from trainers.device_studies.scenes import Packed
from trainers.device_studies.support import STARTS
from trainers.training import amounts, segmenters, tuned_models


class Recipe(NamedTuple):
    """A stage before it is compiled.

    Attributes:
        build: function(settings) -> the model with the first weights of the settings' seed.
        batch: function(key, scenes, index) -> (inputs, targets), see `loops.Loop`.
    """

    build: Callable
    batch: Callable


def backbone(experiment: config.Experiment) -> backbones.Backbone:
    """Return the backbone with the random weights of the seed, the same in all stages."""
    keras.utils.set_random_seed(experiment.seed)
    network = experiment.network
    pixels = network.pixels or STARTS[network.init]
    return backbones.build(network.backbone, pixels, network.width)


def colorization(experiment: config.Experiment, packed: Packed) -> Recipe:
    """Return the pretext task `network.init=colorization` on the training images."""
    settings = experiment.colorization
    view = crops.View(settings.crop, mirror=settings.mirror)
    border = min(32, settings.crop // 7)

    def build(experiment):
        return Colorization(
            backbone(experiment),
            settings.formulation,
            settings.num_bins,
            settings.dropout,
            settings.stddev,
            settings.head_decay,
            settings.input_tap,
            settings.fc6_size,
        )

    def batch(key, scenes, index):
        images, _ = crops.draw(key, scenes, index, view)
        return colors.batch(key, images, settings.num_points, border, settings.num_bins), None

    return Recipe(build, batch)


def mm(experiment: config.Experiment, packed: Packed) -> Recipe:
    """Return stage mm: patches of crops, or whole crops for the contrast of pixels."""
    settings, num_classes = experiment.mm, len(packed.class_names)
    view, sampling = _view(experiment, settings), amounts.sampling(settings, packed.background)

    def build(experiment):
        return tuned_models.build(experiment, num_classes, backbone(experiment))

    def batch(key, scenes, index):
        images, labels = crops.draw(key, scenes, index, view)
        if tuned_models.takes_crops(settings):
            return images, labels
        return patches.draw(key, images, labels, sampling, view.pad_color)

    return Recipe(build, batch)


def segment(experiment: config.Experiment, packed: Packed) -> Recipe:
    """Return fine-tuning."""
    settings, num_classes = experiment.segment, len(packed.class_names)
    view, loss = _view(experiment, settings), losses.PIXEL_LOSSES[settings.loss]
    if settings.class_weights != "none":
        counts = np.bincount(packed.train.labels.reshape(-1), minlength=256)[:num_classes]
        weights = losses.class_weights(counts, settings.class_weights)
        loss = functools.partial(loss, class_weights=weights)

    def build(experiment):
        return segmenters.build(experiment, backbone(experiment), num_classes, loss)

    def batch(key, scenes, index):
        return crops.draw(key, scenes, index, view)

    return Recipe(build, batch)


STAGES = {"colorization": colorization, "mm": mm, "segment": segment}
"""{section of the settings: function(settings, data set) -> `Recipe`}."""


def _view(experiment, settings):
    return crops.View(
        settings.crop,
        amounts.of_stage(settings),
        settings.mirror,
        settings.rare_share,
        backbone(experiment).spec.pad_color,
    )
