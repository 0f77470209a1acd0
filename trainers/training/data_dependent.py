"""First weights from the training images without their labels (`network.init=kmeans`)."""

from collections.abc import Sequence

import numpy as np

from mm_keras.backbones import Backbone
from mm_keras.weights import data_dependent
from pipelines.batches import Order, View, images
from trainers import config
from trainers.training import seeds

NUM_IMAGES = 32
"""Images that filters, statistics and gradients are computed from. Source: ours; 160 in
magic_init.py."""

LARGEST_CROP = 224
"""Largest side of their crops in pixels. Source: magic_init.py, the input of the network."""


def initialize(
    body: Backbone, files: Sequence[str], experiment: config.Experiment, directions: str = "kmeans"
) -> str:
    """Set the weights of a backbone from images, and return a text for the log.

    Args:
        body: the backbone with its random weights; the function changes it in place.
        files: paths of images.
        experiment: the settings.
        directions: see `mm_keras.weights.filters`.

    Raises:
        ConfigError: the network or the images cannot be used.
    """
    shown = _crops(body, files, experiment)
    try:
        units, effect = _changed(
            lambda: data_dependent.initialize(body, shown, directions, experiment.seed),
            lambda: data_dependent.spread(body, shown, experiment.seed + 1),
        )
    except ValueError as error:
        raise config.ConfigError(f"{error} (key network.init)") from error
    return (
        f"{directions} filters of {len(units)} layers from {len(shown)} images without labels; "
        f"{effect}"
    )


def rescale(body: Backbone, files: Sequence[str], experiment: config.Experiment) -> str:
    """Make the change rates of a backbone's layers equal, and return a text for the log.

    Args:
        body: the backbone; the function changes it in place.
        files: paths of images.
        experiment: the settings.

    Raises:
        ConfigError: the network or the images cannot be used.
    """
    shown = _crops(body, files, experiment)
    try:
        units, effect = _changed(
            lambda: data_dependent.rescale(body, shown, experiment.seed),
            lambda: data_dependent.spread(body, shown, experiment.seed + 1),
        )
    except ValueError as error:
        raise config.ConfigError(f"{error} (key network.rescale)") from error
    if not units:
        raise config.ConfigError(
            f"network.rescale=true does not cover {body.spec.name}: it has branches, and layers "
            "without batch norm. Use network.rescale=false."
        )
    return f"{len(units)} layers rescaled; {effect}"


def _changed(change, spread):
    """Return the result of a change of the weights, and a text with the spread around it."""
    before, units, after = spread(), change(), spread()
    return units, (
        f"channels of a layer vary by up to {before.channels:.0%} before and {after.channels:.0%} "
        f"after, change rates by {before.rates:.0%} and {after.rates:.0%}"
    )


def _crops(body, files, experiment) -> np.ndarray:
    """Return crops of the first images of an order of their own, uint8 [N, crop, crop, 3]."""
    number = min(NUM_IMAGES, len(files))
    crop = max(min(int(experiment.mm.crop), LARGEST_CROP), body.spec.min_size)
    view = View(
        crop=crop,
        shorter_side=experiment.data.shorter_side,
        mirror=False,
        pad_color=body.spec.pad_color,
        enlarge=True,
    )
    order = Order(
        num_images=number, seed=seeds.data_seed(experiment.seed, "data_dependent"), num_steps=1
    )
    (batch,) = images.batches(files, view, order)
    return batch["image"].numpy()
