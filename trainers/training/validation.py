"""Validation while a segmenter trains: scores at intervals, the best weights, early stopping."""

import contextlib
import math
import time
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from mm_keras import inference, losses, metrics
from pipelines import datasets
from trainers import config

SIGNS = {"val_miou": 1.0, "val_pixel_accuracy": 1.0, "val_loss": -1.0}
"""{monitor: 1 if larger values are better, else -1}."""


class Validation:
    """Score a model on some images, and keep the best weights.

    All state is in `variables`, which belong to the checkpoints of the stage. A resumed run
    therefore keeps the same best weights and stops at the same step as an unbroken run.

    Args:
        model: a compiled segmenter.
        split: the images to score.
        experiment: the settings.
        spec: facts of the data set.

    Attributes:
        is_on: True; False in `NoValidation`.
    """

    def __init__(
        self,
        model: keras.Model,
        split: datasets.Split,
        experiment: config.Experiment,
        spec: datasets.DatasetSpec,
    ):
        self._model, self._split = model, split
        self._settings, self._class_names = experiment.segment, spec.class_names
        self._predictor = inference.Predictor(
            model,
            experiment.evaluate.protocol,
            shorter_side=experiment.data.shorter_side,
        )
        self._seconds = tf.Variable(0.0, dtype=tf.float64)
        self._best = tf.Variable(-math.inf, dtype=tf.float64)
        self._best_step = tf.Variable(0, dtype=tf.int64)
        self._num_stale = tf.Variable(0, dtype=tf.int64)
        kept = model.weights if self.keeps_best else []
        with tf.device("CPU:0"):  # a copy of the weights is too large for a full accelerator
            self._weights = [tf.Variable(w.numpy(), trainable=False) for w in kept]

    is_on = True

    @property
    def variables(self) -> dict:
        """The state, for the checkpoints."""
        return {
            "seconds": self._seconds,
            "best": self._best,
            "best_step": self._best_step,
            "num_stale": self._num_stale,
            "weights": self._weights,
        }

    def is_due(self, step: int) -> bool:
        """Return whether the model is scored after this step."""
        return step % self._settings.validate_every == 0 or step == self._settings.steps

    def run(self, step: int) -> dict[str, float]:
        """Score the model and keep its weights if they are the best so far.

        Returns:
            val_miou, val_pixel_accuracy, val_loss, and val_iou/CLASS for each class that occurs.
            Shares are in 0..1, as in all results.
        """
        started = time.monotonic()
        with averaged(self._model):
            scores = self._scores()
            self._keep_if_best(step, scores[self._settings.monitor])
        self._seconds.assign_add(time.monotonic() - started)
        return scores

    def _keep_if_best(self, step, value):
        value = SIGNS[self._settings.monitor] * value
        if not value > float(self._best):  # also for NaN
            self._num_stale.assign_add(1)
            return
        self._best.assign(value)
        self._best_step.assign(step)
        self._num_stale.assign(0)
        if self.keeps_best:
            for kept, weight in zip(self._weights, self._model.weights, strict=True):
                kept.assign(weight.numpy())

    @property
    def has_stopped(self) -> bool:
        """Whether the monitor did not improve in the last `patience` validations."""
        patience = self._settings.patience
        return bool(patience) and int(self._num_stale) >= patience

    @property
    def keeps_best(self) -> bool:
        """Whether the best weights are passed on, and not the last ones."""
        return self._settings.keep == "best"

    def restore_best(self) -> None:
        """Set the model to its best weights; call it only if `keeps_best`."""
        if int(self._best_step):
            for kept, weight in zip(self._weights, self._model.weights, strict=True):
                weight.assign(kept.numpy())

    def summary(self) -> dict:
        """Return how the weights were chosen, ready for JSON."""
        monitor = self._settings.monitor
        return {
            "split": self._split.title,
            "num_images": self._split.num_images,
            "kept": self._settings.keep,
            "monitor": monitor,
            "best_step": int(self._best_step),
            "best": SIGNS[monitor] * float(self._best),
            "seconds": round(float(self._seconds), 2),
        }

    def _scores(self):
        confusion = metrics.ConfusionMatrix(len(self._class_names))
        loss, num_pixels = 0.0, 0
        for example in datasets.examples(self._split):
            label = example["label"].numpy()
            probabilities = self._predictor.probabilities(example["image"][None])[0].numpy()
            confusion.update_state(label, probabilities.argmax(axis=-1))
            is_labelled = label != losses.VOID
            chosen = probabilities[is_labelled, label[is_labelled]]
            loss -= np.log(np.maximum(chosen, np.finfo("float32").tiny)).sum(dtype="float64")
            num_pixels += is_labelled.sum()
        matrix = confusion.result()
        each = zip(self._class_names, metrics.per_class_iou(matrix), strict=True)
        return {
            "val_loss": float(loss / max(num_pixels, 1)),
            "val_miou": metrics.mean_iou(matrix),
            "val_pixel_accuracy": metrics.pixel_accuracy(matrix),
            **{f"val_iou/{name}": float(iou) for name, iou in each if not np.isnan(iou)},
        }


class NoValidation:
    """The place of `Validation` in a stage that is not validated."""

    is_on = False
    has_stopped = False

    def is_due(self, step: int) -> bool:
        """Return False."""
        return False


NO_VALIDATION = NoValidation()


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Let the model use the moving average of its weights inside the block, if it has one.

    Batch norm keeps its own statistics; their average is shorter than the average of the weights.
    """
    optimizer = model.optimizer
    if not optimizer.use_ema:
        yield
        return
    variables = model.trainable_variables
    before = [variable.numpy() for variable in variables]
    optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
