"""Stage proxy: trains the backbone on a pretext task without labels and leaves
proxy/backbone.weights.h5.

A pretext task is a module on either side, pipelines/proxies/NAME.py (its inputs) and
mm_keras/models/proxies/NAME.py (its network, loss and outputs), its settings in
`trainers.config`, and one entry in `TASKS` that joins them.
"""

import itertools
from collections.abc import Sequence
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from mm_keras import visualize
from mm_keras.backbones import Backbone
from mm_keras.models.proxies import colorization as colorization_model
from mm_keras.models.proxies import jigsaw as jigsaw_model
from pipelines import datasets, unlabelled
from pipelines.proxies import colorization, jigsaw, permutations
from trainers import config, networks
from trainers.loop import Loop
from trainers.runtime import Runtime, save_weights, stage

NUM_PICTURES = 6


class Task(Protocol):
    """A pretext task on a backbone.

    needs_colour: whether grey images are of no use.
    model: the compiled network is trained as any other; its `backbone` is what M&M takes over.
    """

    needs_colour: bool
    model: keras.Model

    def __init__(self, experiment: config.Experiment, backbone: Backbone): ...

    def batches(self, files: Sequence[str], **steps) -> tf.data.Dataset:
        """One element per step; `steps` are num_images, seed, start_step and num_steps."""

    def measure(self, train: Sequence[str], held_out: Sequence[str]) -> dict[str, float]:
        """Figures of the trained model on images that it was not trained on, each beside the one
        of a guess.
        """

    def picture(self, held_out: Sequence[str]) -> np.ndarray:
        """What the trained model makes of some images, uint8 [height, width, 3]."""


def run(experiment: config.Experiment, runtime: Runtime):
    """Trains for `proxy.steps` steps, continuing an interrupted run, then measures."""
    settings = experiment.proxy
    task_class = TASKS[experiment.network.init]
    with stage(runtime, "proxy", experiment) as results:
        train, held_out = _files(experiment, runtime, task_class.needs_colour)
        backbone = networks.backbone(experiment)
        task = task_class(experiment, backbone)
        networks.compile_model(task.model, settings)

        def data(start_step):
            return task.batches(
                train,
                num_images=settings.num_images,
                seed=experiment.seed,
                start_step=start_step,
                num_steps=settings.steps,
            )

        loop = Loop(runtime, "proxy", task.model, settings, data)
        results["seconds"] = loop.run()
        save_weights(backbone, runtime.folder("proxy") / "backbone.weights.h5")
        measured = held_out[: settings.num_measured]
        results["figures"] = task.measure(train, measured)
        _show(loop, task, measured, results["figures"])


def _files(experiment, runtime, needs_colour):
    """(images to train on, images to measure on), those of no use left out and counted."""
    folder = experiment.data.unlabelled_dir
    try:
        if folder is None:
            files = unlabelled.check(runtime.dataset.train.image_files, needs_colour)
        else:
            files = unlabelled.find(folder, needs_colour)
        train, held_out = unlabelled.divide(files.image_files, experiment.proxy.held_out)
    except datasets.DatasetError as error:
        raise config.ConfigError(str(error)) from error
    where = f"images of {folder}" if folder else f"training images of {experiment.data.dataset}"
    runtime.say(
        f"proxy: {experiment.network.init} on {len(train)} {where}; measured on "
        f"{len(held_out)} others. {' '.join(files.messages)}"
    )
    return train, held_out


def _show(loop, task, held_out, figures):
    """Tells the figures, and writes them and a picture to TensorBoard."""
    told = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
    loop.runtime.say(f"proxy: on held-out images, {told}")
    with loop.writer.as_default(step=loop.settings.steps):
        for name, value in figures.items():
            tf.summary.scalar(f"proxy/held_out/{name}", value)
        tf.summary.image("proxy/held_out", task.picture(held_out[:NUM_PICTURES])[None])
    loop.writer.flush()


class Jigsaw:
    """Noroozi & Favaro 2016: which permutation shuffled the tiles?"""

    needs_colour = False

    def __init__(self, experiment, backbone):
        self.settings = settings = experiment.jigsaw
        self.permutations = permutations.permutation_set(
            settings.num_permutations, settings.choice, experiment.seed
        )
        self.model = jigsaw_model.Jigsaw(
            backbone,
            settings.num_permutations,
            tile=settings.tile,
            normalization=settings.normalization,
            spread=settings.spread,
            dropout=settings.dropout,
        )

    def batches(self, files, **steps):
        settings = self.settings
        return jigsaw.batches(
            files,
            permutations=self.permutations,
            shorter_side=settings.shorter_side,
            cell=settings.cell,
            tile=settings.tile,
            placement=settings.placement,
            channel_jitter=settings.channel_jitter,
            grey_share=settings.grey_share,
            **steps,
        )

    def measure(self, train, held_out):
        figures = jigsaw_model.evaluate(self.model, _each_once(self, held_out))
        return {"accuracy": figures["accuracy"], "chance": 1 / len(self.permutations)}
