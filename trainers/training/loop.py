"""The loop of all training stages: it counts steps, logs, checkpoints and resumes exactly.

The data of step k is a pure function of (seed, k), and a checkpoint holds every variable of model,
optimizer, metrics and random generators. A run that was killed therefore continues the very
sequence of losses that it would have had.
"""

import json
import math
import pathlib
import time
from collections.abc import Callable, Sequence

import keras
import rich.progress
import tensorflow as tf

from mm_keras.models import trainable
from pipelines.batches import order
from trainers import config
from trainers.runs.runtime import Runtime, WorkdirError


class TrainingError(config.UserError):
    """Training cannot go on: the loss or the gradients are no longer numbers."""


class Loop:
    """Trains one compiled model for a number of steps, on all replicas of the run.

    Args:
        runtime: for the console and the replicas.
        stage: name of the stage; everything is written under its folder.
        model: compiled `keras.Model`, built under the replicas' scope, whose `train_step` takes one
            element of the data.
        settings: steps and intervals.
        data: function(start_step, share) -> iterable of one element per step, from `start_step` on:
            the `share` of one replica.
        on_log: function(step, metrics) that is called at each log.
        section: of the configuration that holds `settings`; by default that of the stage's name.
        shared_seeds: states of the random generators that give all replicas the same numbers.
    """

    def __init__(
        self,
        runtime: Runtime,
        stage: str,
        model: keras.Model,
        settings: config.Optimization,
        data: Callable[[int, order.Share], tf.data.Dataset],
        on_log: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
        section: str | None = None,
        shared_seeds: Sequence[keras.Variable] = (),
    ):
        self.runtime, self.stage, self.model = runtime, stage, model
        self.section = section or stage
        self.settings, self.data, self.on_log = settings, data, on_log
        self.replicas, self.shared_seeds = runtime.replicas, shared_seeds
        self.folder = runtime.folder(stage)
        self.step = tf.Variable(0, dtype=tf.int64)
        self.seconds = tf.Variable(0.0, dtype=tf.float64)
        self._started = time.monotonic()
        self.writer = tf.summary.create_file_writer(str(self.folder / "logs"))

    def run(self) -> float:
        """Trains until `settings.steps`, continuing from the last checkpoint.

        Returns:
            Seconds spent on training, those before an interruption included.

        Raises:
            TrainingError: a loss or gradient was not finite; the last good checkpoint is kept.
        """
        manager = self._checkpoints()
        start = self._restore(manager)
        self.replicas.part_ways(self.model.variables, self.shared_seeds)
        train_step = tf.function(self._distributed_step, jit_compile=self.model.jit_compile)
        sources = [iter(self.data(start, share)) for share in self.replicas.shares]
        with self._progress() as progress, self.replicas.told_when_lost():
            bar = progress.add_task(self.stage, total=self.settings.steps, completed=start, note="")
            for step in range(start + 1, self.settings.steps + 1):
                train_step(self.replicas.distributed([next(source) for source in sources]))
                progress.update(bar, completed=step)
                if self._is_due(step, self.settings.log_every):
                    progress.update(bar, note=self._log(step))
                if self._is_due(step, self.settings.checkpoint_every):
                    self._save(manager, step)
        self._tell_skipped()
        return round(float(self.seconds.numpy()), 2)

    def _distributed_step(self, element):
        self.replicas.run(self.model.train_step, element)

    def _is_due(self, step, interval) -> bool:
        return step % interval == 0 or step == self.settings.steps

    def _checkpoints(self) -> tf.train.CheckpointManager:
        optimizer = self.model.optimizer
        with self.replicas.scope():
            optimizer.build(self.model.trainable_variables)
        variables = [
            *self.model.variables,
            *self.model.metrics_variables,
            *optimizer.variables,
        ]
        checkpoint = tf.train.Checkpoint(
            step=self.step, seconds=self.seconds, variables=[v.value for v in variables]
        )
        return tf.train.CheckpointManager(checkpoint, self.folder / "checkpoints", max_to_keep=2)

    def _restore(self, manager) -> int:
        """Continues from the chief's latest checkpoint; the step to start at."""
        latest = tf.train.latest_checkpoint(self.runtime.source(self.stage) / "checkpoints")
        if latest is not None:
            manager.checkpoint.restore(latest).assert_consumed()
        start = int(self.step.numpy())
        starts = self.replicas.every_worker(start)
        if len(set(starts)) > 1:
            raise WorkdirError(
                f"Stage {self.stage}: the workers would continue at the steps {starts}. All must "
                "see the same --workdir, on a file system that they share."
            )
        if latest is not None:
            _forget_after(self.folder / "metrics.jsonl", start)
            self.runtime.log(f"{self.stage}: continuing at step {start} of {self.settings.steps}")
        return start

    def _save(self, manager, step):
        self._check_finite(step)
        now = time.monotonic()
        self.seconds.assign_add(now - self._started)
        self._started = now
        self.step.assign(step)
        manager.save(checkpoint_number=step)

    def _check_finite(self, step):
        num_bad = int(self.model.non_finite.result())
        if num_bad:
            raise TrainingError(
                f"Stage {self.stage}: {num_bad} step(s) up to step {step} had a loss or gradient "
                f"that is not finite. The last good state is step {int(self.step.numpy())} in "
                f"{self.folder / 'checkpoints'}. A lower rate usually helps: --overwrite "
                f"--set {self.section}.learning_rate={self.settings.learning_rate / 10:g}"
            )
        if self._scale() < 1:
            raise TrainingError(
                f"Stage {self.stage}: gradients overflow at step {step} although the loss is no "
                "longer scaled up: the weights are lost, or float16 cannot hold these gradients. "
                "--precision=mixed_bfloat16 has the range of float32."
            )

    def _scale(self) -> float:
        """Of the loss; 1 where it is not scaled."""
        if not trainable.is_scaled(self.model):
            return 1.0
        return float(tf.convert_to_tensor(self.model.optimizer.dynamic_scale))

    def _num_skipped(self, step) -> int:
        """Steps so far whose gradients overflowed: the optimizer has not counted them."""
        return step - int(tf.convert_to_tensor(self.model.optimizer.iterations))

    def _tell_skipped(self):
        num_steps = self.settings.steps
        if trainable.is_scaled(self.model) and (number := self._num_skipped(num_steps)):
            self.runtime.log(
                f"{self.stage}: {number} of {num_steps} steps were skipped since their gradients "
                f"overflowed in float16 (loss scale now {self._scale():g}); a few at the start are "
                "normal."
            )

    def _log(self, step) -> str:
        """Writes the metrics since the last log; a short text for the progress bar."""
        self._check_finite(step)
        metrics = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        self.model.reset_metrics()
        metrics["learning_rate"] = float(tf.convert_to_tensor(self.model.optimizer.learning_rate))
        if trainable.is_scaled(self.model):
            metrics |= {"loss_scale": self._scale(), "skipped_steps": self._num_skipped(step)}
        with self.writer.as_default(step=step):
            for name, value in metrics.items():
                tf.summary.scalar(f"{self.stage}/{name}", value)
        self.writer.flush()
        with (self.folder / "metrics.jsonl").open("a") as lines:
            lines.write(json.dumps({"step": step, **metrics}) + "\n")
        self.on_log(step, metrics)
        return f"loss {metrics['loss']:.3f}"

    def _progress(self):
        console = self.runtime.console
        columns = (
            rich.progress.TextColumn("{task.description:>8}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[note]}"),
        )
        return rich.progress.Progress(*columns, console=console)


def _forget_after(path: pathlib.Path, step: int):
    """Drops the lines of steps that a resumed run will write again."""
    if not path.exists():
        return
    lines = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(f"{line}\n" for line in lines))
    temporary.replace(path)


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except ValueError:  # the half-written last line of a killed run
        return math.inf
