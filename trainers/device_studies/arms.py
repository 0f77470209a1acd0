"""One run of a device study: pretext task, M&M, fine-tuning and score of one arm and seed."""

import dataclasses
import time

import jax.numpy as jnp
import keras
import numpy as np

from mm_keras import metrics
from trainers import config
from trainers.device_studies import stages
from trainers.device_studies.loops import Loop
from trainers.device_studies.scenes import Packed, Scenes
from trainers.device_studies.scoring import Scorer
from trainers.training import seeds

_ARGUMENTS = ("steps", "drops", "learning_rate", "schedule", "warmup")
"""Settings that are arguments of a compiled stage."""

_WITHOUT_EFFECT = ("checkpoint_every", "log_every", "probe_every", "validate_every", "keep")


class Runner:
    """Run arms on one data set. Whatever is compiled is kept for the next run.

    Args:
        packed: the data set.
    """

    def __init__(self, packed: Packed):
        self.packed = packed
        self.train, self.held_out = (
            Scenes(*(jnp.asarray(values) for values in part))
            for part in (packed.train, packed.held_out)
        )
        self._stages, self._scorers, self._starts = {}, {}, {}

    def run(self, experiment: config.Experiment) -> dict:
        """Return mIoU and IoU of the classes in percent, training losses, and seconds.

        Args:
            experiment: the settings with sizes in pixels; `seed` is the seed.
        """
        began = time.monotonic()
        losses, hubs = {}, None
        body, losses["start_loss"] = self._start(experiment)
        if experiment.mm.steps:
            model, losses["mm_loss"] = self._trained("mm", experiment, body)
            body, hubs = _values(model.backbone), _hubs(model)
        model, losses["loss"] = self._trained("segment", experiment, body, hubs)
        confusion = self._scorer(model).confusion()
        iou = 100 * metrics.per_class_iou(confusion)
        return {
            "miou": float(100 * metrics.mean_iou(confusion)),
            "iou": [None if np.isnan(value) else float(value) for value in iou],
            "seconds": time.monotonic() - began,
            **losses,
        }

    def _start(self, experiment):
        """Return the first weights of the backbone, and the losses of the pretext task or None."""
        body, name = _values(stages.backbone(experiment)), experiment.network.init
        if name == "random":
            return body, None
        key = (repr(experiment.network), repr(getattr(experiment, name)), experiment.seed)
        if key not in self._starts:
            model, losses = self._trained(name, experiment, body)
            self._starts[key] = (_values(model.backbone), losses)
        return self._starts[key]

    def _trained(self, name, experiment, body, hubs=None):
        """Return the model of a stage after its training, and the losses.

        Args:
            name: the stage.
            experiment: the settings.
            body: first weights of the backbone.
            hubs: layer that the scores of the coarsest map start from, if the settings ask for it.
        """
        recipe, loop = self._stage(name, experiment)
        settings, fresh = getattr(experiment, name), recipe.build(experiment)
        for variable, value in zip(fresh.backbone.variables, body, strict=True):
            variable.assign(value)
        if name == "segment" and settings.start_from_hubs and hubs is not None:
            fresh.score_by(hubs)
        loop.load(_values(fresh), experiment.seed)
        losses = loop.train(self.train, settings, seeds.data_seed(experiment.seed, name))
        return loop.model, losses

    def _stage(self, name, experiment):
        """Return the recipe of a stage and its loop; equal settings share one program."""
        settings = getattr(experiment, name)
        facts = dataclasses.asdict(settings)
        kept = {k: v for k, v in facts.items() if k not in (*_ARGUMENTS, *_WITHOUT_EFFECT)}
        key = (name, repr(kept), repr(experiment.network))
        if key not in self._stages:
            recipe = stages.STAGES[name](experiment, self.packed)
            loop = Loop(recipe.build(experiment), settings, recipe.batch)
            self._stages[key] = (recipe, loop)
        return self._stages[key]

    def _scorer(self, model):
        if id(model) not in self._scorers:
            self._scorers[id(model)] = Scorer(model, self.held_out)
        return self._scorers[id(model)]


def _hubs(model) -> keras.layers.Dense | None:
    objective = getattr(model, "objective", None)
    return None if objective is None else objective.hubs


def _values(model):
    return [np.array(variable.value) for variable in model.variables]
