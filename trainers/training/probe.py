"""Probes of stage mm: do the tuned features tell the classes of patches apart?

Two simple classifiers fit on features of training patches. They are scored on patches of images
that stage mm does not train on. The features are the means over the cells of the embedding output,
in inference mode. A probe changes neither the network nor the random numbers of training.
"""

import dataclasses
import json
import time
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from mm_keras import losses, metrics, visualize
from pipelines import batches, datasets
from trainers import config
from trainers.runs.runtime import Runtime
from trainers.training import amounts, networks, seeds
from trainers.training.validation import NoValidation, averaged

PATCHES_PER_IMAGE = 4
IMAGES_PER_BATCH = 8
_STANDARD_ERRORS = 2  # below it, a gain can be chance


class Labelled(NamedTuple):
    """Patches, uint8 [N, S, S, 3], and their classes, int32 [N]."""

    patches: np.ndarray
    labels: np.ndarray


class Scores(NamedTuple):
    """The scores of one probe.

    Attributes:
        linear: balanced accuracy of the linear classifier, in percent.
        neighbor: balanced accuracy of the nearest neighbor, in percent.
        predicted: classes of the linear classifier, integer [N].
    """

    linear: float
    neighbor: float
    predicted: np.ndarray

    def named(self) -> dict[str, float]:
        """Return the scores by the names of the metrics."""
        return {"probe_linear": self.linear, "probe_neighbor": self.neighbor}


class Probe:
    """Score the features of a model's backbone at intervals.

    It takes the place of `trainers.training.validation.Validation` in the loop, but it chooses no
    weights and has no state in checkpoints.

    Args:
        model: the compiled model of stage mm, with its first weights.
        experiment: the settings.
        runtime: the run, with its data set.

    Attributes:
        first: scores at the start.
        last: scores of the last call of `run`.
    """

    is_on = has_stopped = False

    def __init__(self, model: keras.Model, experiment: config.Experiment, runtime: Runtime):
        self._model, self._settings, self._runtime = model, experiment.mm, runtime
        self._spec, dataset = runtime.dataset.spec, runtime.dataset
        began = time.monotonic()
        held_out = dataset.eval if dataset.validation is None else dataset.validation
        self._split = held_out.title
        self._examples = draw(experiment, dataset.spec, dataset.train, "probe", model.backbone)
        self._others = draw(experiment, dataset.spec, held_out, "held out", model.backbone)
        self._features = tf.function(self._pooled)
        self.first = self.last = self._scores()
        self._last_step, self.seconds = 0, time.monotonic() - began

    def is_due(self, step: int) -> bool:
        """Return whether the features are scored after this step."""
        return step % self._settings.probe_every == 0 or step == self._settings.steps

    def run(self, step: int) -> dict[str, float]:
        """Score the features; return probe_linear and probe_neighbor in percent."""
        began = time.monotonic()
        with averaged(self._model):
            self.last = self._scores()
        self._last_step = step
        self.seconds += time.monotonic() - began
        return self.last.named()

    def write_start(self, writer: tf.summary.SummaryWriter) -> None:
        """Write the first scores as step 0 to TensorBoard and metrics.jsonl, before training."""
        with writer.as_default(step=0):
            for name, value in self.first.named().items():
                tf.summary.scalar(f"mm/{name}", value)
        path = self._runtime.folder("mm") / "metrics.jsonl"
        if not path.exists() or not path.stat().st_size:  # else a run continues
            path.write_text(json.dumps({"step": 0, **self.first.named()}) + "\n")

    def finish(self, writer: tf.summary.SummaryWriter) -> dict:
        """Score the final weights, log the result, and write the confusions to TensorBoard.

        Returns:
            The scores at the start and at the end, ready for JSON.
        """
        if self._last_step != self._settings.steps or self._settings.statistics_steps:
            self.run(self._settings.steps)
        matrix = metrics.ConfusionMatrix(self._spec.num_classes)
        matrix.update_state(self._others.labels, self.last.predicted)
        picture = visualize.confusion_picture(matrix.result(), self._spec.class_names)
        with writer.as_default(step=self._settings.steps):
            tf.summary.image("mm/probe_confusion", picture[None])
        writer.flush()
        self._runtime.log(
            f"mm: linear probe {self.last.linear:.1f} %, at the start {self.first.linear:.1f} % "
            f"(nearest neighbor {self.last.neighbor:.1f} %, {self.first.neighbor:.1f} %; "
            f"{len(self._others.labels)} patches of {self._split}, {self.seconds:.0f} s)"
        )
        if not is_gain(self._others.labels, self.first.predicted, self.last.predicted):
            self._runtime.log(self._warning())
        return {
            "split": self._split,
            "num_patches": len(self._others.labels),
            "start": self.first.named(),
            "end": self.last.named(),
            "seconds": round(self.seconds, 2),
        }

    def _warning(self) -> str:
        guess = 100 / len(np.unique(self._others.labels))
        return (
            "mm: warning: the tuned features tell the classes of patches apart no better than the "
            f"first ones (guessing gives {guess:.1f} %). Check the labels, use another mm.loss, or "
            "train for more mm.steps."
        )

    def _pooled(self, patches):
        outputs = self._model.backbone(patches, training=False)
        return losses.EMBEDDINGS["pool"](outputs[self._model.backbone.spec.embedding.name])

    def _embedded(self, patches):
        size = IMAGES_PER_BATCH * PATCHES_PER_IMAGE
        parts = [self._features(patches[k : k + size]) for k in range(0, len(patches), size)]
        return np.concatenate([part.numpy() for part in parts])

    def _scores(self) -> Scores:
        features, others = map(self._embedded, (self._examples.patches, self._others.patches))
        labels, truth = self._examples.labels, self._others.labels
        if not (np.isfinite(features).all() and np.isfinite(others).all()):
            lost = np.full_like(truth, -1)  # the loop reports weights that are lost
            return Scores(0.0, 0.0, lost)
        predicted = metrics.linear_probe(features, labels, others)
        neighbor = metrics.nearest_neighbor(features, labels, others)
        return Scores(
            100 * metrics.balanced_accuracy(truth, predicted),
            100 * metrics.balanced_accuracy(truth, neighbor),
            predicted,
        )


class NoProbe(NoValidation):
    """The place of `Probe` in a stage that is not probed."""

    def write_start(self, writer: tf.summary.SummaryWriter) -> None:
        """Do nothing."""

    def finish(self, writer: tf.summary.SummaryWriter) -> None:
        """Return None."""


def of_stage(model: keras.Model, experiment: config.Experiment, runtime: Runtime):
    """Return the probe of a run. A stage of fewer steps than the interval has none."""
    settings = experiment.mm
    if not settings.probe_every or settings.steps < settings.probe_every:
        return NoProbe()
    return Probe(model, experiment, runtime)


def draw(
    experiment: config.Experiment,
    spec: datasets.DatasetSpec,
    split: datasets.Split,
    purpose: str,
    backbone: keras.Model,
) -> Labelled:
    """Return `mm.probe_patches` patches of a split, drawn as in stage mm, the class first.

    Args:
        experiment: settings with sizes in pixels.
        spec: facts of the data set.
        split: the images. With few images, an image gives several groups of patches.
        purpose: distinguishes the random numbers.
        backbone: its pad color fills the area outside of the images.
    """
    settings = experiment.mm
    sampling = amounts.sampling(settings, networks.background_label(experiment, spec))
    sampling = dataclasses.replace(
        sampling, patches_per_image=PATCHES_PER_IMAGE, class_balanced=True
    )
    view = batches.View(
        crop=settings.crop,
        shorter_side=experiment.data.shorter_side,
        mirror=False,
        pad_color=backbone.spec.pad_color,
    )
    order = batches.Order(
        num_images=IMAGES_PER_BATCH,
        seed=seeds.data_seed(experiment.seed, purpose),
        num_steps=-(-settings.probe_patches // (IMAGES_PER_BATCH * PATCHES_PER_IMAGE)),
    )
    parts = list(batches.patches(split.labelled(), sampling, view, order).as_numpy_iterator())
    return Labelled(*(np.concatenate([part[key] for part in parts]) for key in Labelled._fields))


def is_gain(labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> bool:
    """Return whether the balanced accuracy rose by more than two standard errors.

    The standard error is of the paired differences: both probes saw the same patches.

    Args:
        labels: integer [N], true classes.
        before, after: integer [N], predicted classes.
    """
    difference = (after == labels).astype(float) - (before == labels)
    by_class = [difference[labels == label] for label in np.unique(labels)]
    gain = np.mean([part.mean() for part in by_class])
    variance = sum(part.var() / len(part) for part in by_class) / len(by_class) ** 2
    return bool(gain > _STANDARD_ERRORS * np.sqrt(variance))
