"""One run of a device study: pretext task, M&M, fine-tuning and score of one arm and seed."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import keras
import numpy as np

from mm_keras import backbones, losses, metrics
from mm_keras.models.proxies.colorization import Colorization
from pipelines.amounts import of_strength
from trainers import config
from trainers.device_studies import colors, crops, patches
from trainers.device_studies.loops import Loop, seed_of
from trainers.device_studies.scenes import Packed, Scenes
from trainers.device_studies.scoring import Scorer
from trainers.device_studies.support import STARTS
from trainers.training import segmenters, tuned_models

_IN_LOOP = ("steps", "drops", "learning_rate", "schedule", "warmup")
_WITHOUT_EFFECT = ("checkpoint_every", "log_every", "probe_every", "validate_every", "keep")


class Stage(NamedTuple):
    """A compiled training.

    Attributes:
        loop: the loop, with the model.
        build: function(seed) -> the model with its first weights of a seed.
    """

    loop: Loop
    build: Callable


class Runner:
    """Run arms on one data set. Whatever is compiled is kept for the next run.

    Args:
        packed: the data set.
    """

    def __init__(self, packed: Packed):
        self.packed = packed
        self.num_classes = len(packed.class_names)
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
        start = self._start(experiment)
        result = {"start_loss": start[1]}
        body, hubs = start[0], None
        if experiment.mm.steps:
            body, hubs, result["mm_loss"] = self._tuned(experiment, body)
        confusion, result["loss"] = self._fine_tuned(experiment, body, hubs)
        iou = 100 * metrics.per_class_iou(confusion)
        return {
            "miou": float(100 * metrics.mean_iou(confusion)),
            "iou": [None if np.isnan(value) else float(value) for value in iou],
            "seconds": time.monotonic() - began,
            **result,
        }

    def _start(self, experiment):
        """Return the first weights of the backbone, and the losses of the pretext task."""
        init = experiment.network.init
        key = (repr(experiment.network), repr(experiment.colorization), experiment.seed)
        if init == "random":
            return _values(_backbone(experiment)), None
        if key not in self._starts:
            stage = self._stage(experiment, "colorization", self._colorization)
            body = _values(_backbone(experiment))
            lost = self._train(stage, experiment, experiment.colorization, body)
            self._starts[key] = (_values(stage.loop.model.backbone), lost)
        return self._starts[key]

    def _tuned(self, experiment, body):
        stage = self._stage(experiment, "mm", self._tuning)
        lost = self._train(stage, experiment, experiment.mm, body)
        model = stage.loop.model
        objective = getattr(model, "objective", None)
        hubs = None if objective is None else objective.hubs
        return _values(model.backbone), hubs, lost

    def _fine_tuned(self, experiment, body, hubs):
        stage = self._stage(experiment, "segment", self._segmenting)
        use = hubs if experiment.segment.start_from_hubs else None
        lost = self._train(stage, experiment, experiment.segment, body, use)
        model = stage.loop.model
        if id(model) not in self._scorers:
            self._scorers[id(model)] = Scorer(model, self.held_out)
        return self._scorers[id(model)].confusion(), lost

    def _train(self, stage, experiment, settings, body, hubs=None):
        seed = experiment.seed
        fresh = stage.build(experiment)
        for variable, value in zip(fresh.backbone.variables, body, strict=True):
            variable.assign(value)
        if hubs is not None:
            fresh.score_by(hubs)
        stage.loop.load(_values(fresh), seed)
        data_seed = seed_of(type(settings).__name__, seed)
        return stage.loop.train(self.train, settings, settings.num_images, data_seed)

    def _stage(self, experiment, name, make):
        settings = getattr(experiment, name)
        facts = dataclasses.asdict(settings)
        kept = {k: v for k, v in facts.items() if k not in (*_IN_LOOP, *_WITHOUT_EFFECT)}
        key = (name, repr(kept), repr(experiment.network))
        if key not in self._stages:
            build, batch = make(experiment)
            self._stages[key] = Stage(Loop(build(experiment), settings, batch), build)
        return self._stages[key]

    def _colorization(self, experiment):
        settings = experiment.colorization
        view = crops.View(settings.crop, mirror=settings.mirror)
        border = min(32, settings.crop // 7)

        def build(experiment):
            return Colorization(
                _backbone(experiment),
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
            drawn = colors.batch(key, images, settings.num_points, border, settings.num_bins)
            return drawn, None

        return build, batch

    def _tuning(self, experiment):
        settings = experiment.mm
        view = self._view(experiment, settings)

        def build(experiment):
            body = _backbone(experiment)
            return tuned_models.build(experiment, self.num_classes, body)

        def batch(key, scenes, index):
            images, labels = crops.draw(key, scenes, index, view)
            if tuned_models.takes_crops(settings):
                return images, labels
            return patches.draw(key, images, labels, self._sampling(settings), view.pad_color)

        return build, batch

    def _segmenting(self, experiment):
        settings = experiment.segment
        view = self._view(experiment, settings)
        loss = losses.PIXEL_LOSSES[settings.loss]
        if settings.class_weights != "none":
            counts = np.bincount(self.packed.train.labels.reshape(-1), minlength=256)
            weights = losses.class_weights(counts[: self.num_classes], settings.class_weights)
            loss = functools.partial(loss, class_weights=weights)

        def build(experiment):
            body = _backbone(experiment)
            return segmenters.build(experiment, body, self.num_classes, loss)

        def batch(key, scenes, index):
            return crops.draw(key, scenes, index, view)

        return build, batch

    def _view(self, experiment, settings):
        amounts = dataclasses.asdict(settings.augment)
        return crops.View(
            settings.crop,
            of_strength(settings.augmentation, **amounts),
            settings.mirror,
            settings.rare_share,
            _backbone(experiment).spec.pad_color,
        )

    def _sampling(self, settings):
        number, background = settings.patches_per_image, self.packed.background
        separate = background is not None and settings.background_share > 0
        share = max(1, int(number * settings.background_share)) if separate else 0
        share = min(share, number - 1)
        return patches.Sampling(
            number - share,
            share,
            settings.min_size,
            settings.max_size,
            settings.patch_size,
            background if separate else -1,
            settings.class_balanced,
        )


def _backbone(experiment):
    keras.utils.set_random_seed(experiment.seed)
    network = experiment.network
    pixels = network.pixels or STARTS[network.init]
    return backbones.build(network.backbone, pixels, network.width)


def _values(model):
    return [np.array(variable.value) for variable in model.variables]
