"""The loop of all training stages: it counts steps, logs, saves checkpoints and resumes exactly.

The data of step k is a pure function of (seed, k). A checkpoint holds every variable of the model,
the optimizer, the metrics and the random generators. A killed run therefore continues with the same
losses as an unbroken run.
"""

import dataclasses
import json
import math
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence

import keras
import rich.progress
import tensorflow as tf

from mm_keras.models import trainable
from pipelines.batches import order
from trainers import config
from trainers.runs.files import replacing
from trainers.runs.runtime import Runtime, WorkdirError
from trainers.training import interruption, norm_statistics
from trainers.training.checkpoints import Checkpoints
from trainers.training.validation import NO_VALIDATION, Validation

_REPORT_EVERY = 30.0  # seconds between lines of progress in a log file
_TIMED_STEPS = 10  # of this process, before it logs how long the stage takes
_SHORTEST_ANNOUNCED = 1.0  # minutes


class TrainingError(config.UserError):
    """Training cannot continue: the loss or the gradients are not finite."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The steps of a stage that trains.

    Attributes:
        stage: name of the stage, and of its folder.
        settings: number of steps and intervals.
        section: section of the settings that holds `settings`; empty for the name of the stage.
    """

    stage: str
    settings: config.Optimization
    section: str = ""


class Loop:
    """Train one compiled model for a number of steps, on all replicas of the run.

    Args:
        runtime: the run, with its folder, console and replicas.
        schedule: the stage and its steps. All files are written to the folder of the stage.
        model: a compiled model, built under the scope of the replicas. Its `train_step` takes one
            element of the data.
        data: function(start_step, share) -> iterable of one element per step from `start_step` on,
            the share of one replica. After the last step, `settings.statistics_steps` more follow.
        on_log: function(step, metrics) that is called at each log entry.
        shared_seeds: states of the random generators that give all replicas equal numbers.
        validation: scores the model at intervals, keeps the best weights, and may stop training.
    """

    def __init__(
        self,
        runtime: Runtime,
        schedule: Schedule,
        model: keras.Model,
        data: Callable[[int, order.Share], tf.data.Dataset],
        on_log: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
        shared_seeds: Sequence[keras.Variable] = (),
        validation: Validation = NO_VALIDATION,
    ):
        self.validation = validation
        self.runtime, self.schedule, self.model = runtime, schedule, model
        self.data, self.on_log, self.shared_seeds = data, on_log, shared_seeds
        self.stage, self.settings = schedule.stage, schedule.settings
        self.replicas = runtime.replicas
        self.folder = runtime.folder(self.stage)
        self.step = tf.Variable(0, dtype=tf.int64)
        self.seconds = tf.Variable(0.0, dtype=tf.float64)
        self._started = self._reported = time.monotonic()
        self.writer = tf.summary.create_file_writer(str(self.folder / "logs"))

    def run(self) -> float:
        """Train until the last step, starting from the last checkpoint if there is one.

        Returns:
            Seconds of training, including the time before an interruption.

        Raises:
            TrainingError: a loss or a gradient was not finite; the last good checkpoint is kept.
            interruption.Stopped: SIGINT or SIGTERM; the last step is saved.
        """
        checkpoints = self._checkpoints()
        start = self._restore(checkpoints)
        self.replicas.separate_seeds(self.model.variables, self.shared_seeds)
        train_step = tf.function(self._distributed_step, jit_compile=self.model.jit_compile)
        durations = self.runtime.step_seconds.setdefault(self.stage, [])
        sources = [iter(self.data(start, share)) for share in self.replicas.shares]
        with (
            self._progress() as progress,
            self.replicas.lost_workers_reported(),
            interruption.deferred(self.replicas.cluster is None) as stop,
        ):
            bar = progress.add_task(self.stage, total=self.settings.steps, completed=start, note="")
            for step in self._steps(start):
                began = self.runtime.clock()
                train_step(self.replicas.distributed([next(source) for source in sources]))
                progress.update(bar, completed=step)
                if self._is_due(step, self.settings.log_every) or self.validation.is_due(step):
                    note = self._log(step)
                    progress.update(bar, note=note)
                    self._report(step, note)
                is_due = self._is_due(step, self.settings.checkpoint_every)
                if is_due or self.validation.has_stopped or stop.is_requested:
                    self._save(checkpoints, step)
                stop.check(f"{self.stage}: stopped at step {step} of {self.settings.steps}")
                durations.append(self.runtime.clock() - began)
                self._announce(step, durations)
            self._choose_weights()
            self._renew_statistics(sources, stop)
        self._log_skipped()
        return round(float(self.seconds.numpy()), 2)

    def _steps(self, start):
        """Yield the steps to run. The validation may end them early."""
        for step in range(start + 1, self.settings.steps + 1):
            if self.validation.has_stopped:
                break
            yield step

    def _announce(self, step, durations):
        """Log once, after a few steps, how long the rest of the stage takes."""
        if len(durations) != _TIMED_STEPS:
            return
        num_left = self.settings.steps - step
        minutes = num_left * statistics.median(durations) / 60
        if minutes >= _SHORTEST_ANNOUNCED:
            self.runtime.log(f"{self.stage}: {num_left} steps left, about {minutes:.1f} minutes")

    def _choose_weights(self):
        """Set the model to the weights that the stage passes on."""
        if self.validation.is_on and self.validation.keeps_best:
            self.validation.restore_best()
        elif self.settings.steps and self.model.optimizer.use_ema:
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)

    def _distributed_step(self, element):
        self.replicas.run(self.model.train_step, element)

    def _renew_statistics(self, sources, stop):
        """Compute the statistics of Caffe's batch norm anew, from the batches after the last step.

        A run that is killed here repeats these passes from its last checkpoint.
        """
        number = self.settings.statistics_steps
        if not number or not self.settings.steps or not norm_statistics.renewable(self.model):
            return

        def check_stop():
            stop.check(f"{self.stage}: stopped after step {self.settings.steps}")

        batches = (
            self.replicas.distributed([next(source) for source in sources]) for _ in range(number)
        )
        norm_statistics.renew(self.model, self.replicas, batches, check_stop)
        self.runtime.log(f"{self.stage}: statistics of batch norm computed from {number} batches")

    def _is_due(self, step, interval) -> bool:
        return step % interval == 0 or step == self.settings.steps

    def _checkpoints(self) -> Checkpoints:
        optimizer = self.model.optimizer
        with self.replicas.scope():
            optimizer.build(self.model.trainable_variables)
        variables = [
            *self.model.variables,
            *self.model.metrics_variables,
            *optimizer.variables,
        ]
        checkpoint = tf.train.Checkpoint(
            step=self.step,
            seconds=self.seconds,
            variables=[v.value for v in variables],
            **({"validation": self.validation.variables} if self.validation.is_on else {}),
        )
        return Checkpoints(
            checkpoint,
            self.folder / "checkpoints",
            self.runtime.source(self.stage) / "checkpoints",
            lambda text: self.runtime.log(f"{self.stage}: {text}"),
        )

    def _restore(self, checkpoints) -> int:
        """Restore the chief's newest readable checkpoint and return the step to start at."""
        start = checkpoints.restore()
        starts = self.replicas.every_worker(start)
        if len(set(starts)) > 1:
            raise WorkdirError(
                f"Stage {self.stage}: the workers would continue at different steps, {starts}. "
                "All workers need the same working folder on a shared file system."
            )
        # Also without a checkpoint: a run may be killed after its first log entry.
        _forget_after(self.folder / "metrics.jsonl", start)
        if start:
            self.runtime.log(f"{self.stage}: continuing at step {start} of {self.settings.steps}")
        return start

    def _save(self, checkpoints, step):
        self._check_finite(step)
        now = time.monotonic()
        self.seconds.assign_add(now - self._started)
        self._started = now
        self.step.assign(step)
        checkpoints.save(step)

    def _check_finite(self, step):
        num_bad = int(self.model.non_finite.result())
        rate = f"{self._section}.learning_rate={self.settings.learning_rate / 10:g}"
        if num_bad:
            raise TrainingError(
                f"Stage {self.stage}: {num_bad} step(s) up to step {step} had a loss or gradient "
                f"that is not finite. The last good state is step {int(self.step.numpy())} in "
                f"{self.folder / 'checkpoints'}. Run the stage again with a lower learning rate, "
                f"for example: {self.runtime.command(f'--stage={self.stage}', f'--set={rate}')}"
            )
        if self._scale() < 1:
            raise TrainingError(
                f"Stage {self.stage}: gradients overflow at step {step} with a loss scale below 1. "
                "Either training diverged, or float16 cannot hold these gradients. bfloat16 has "
                f"the range of float32: {self.runtime.command('--precision=mixed_bfloat16')}"
            )

    @property
    def _section(self):
        return self.schedule.section or self.stage

    def _scale(self) -> float:
        """Return the scale of the loss, 1 without loss scaling."""
        if not trainable.is_scaled(self.model):
            return 1.0
        return float(tf.convert_to_tensor(self.model.optimizer.dynamic_scale))

    def _num_skipped(self, step) -> int:
        """Return the number of steps with overflowing gradients, which the optimizer skips."""
        return step - int(tf.convert_to_tensor(self.model.optimizer.iterations))

    def _log_skipped(self):
        num_steps = self.settings.steps
        if trainable.is_scaled(self.model) and (number := self._num_skipped(num_steps)):
            self.runtime.log(
                f"{self.stage}: {number} of {num_steps} steps were skipped because their gradients "
                f"overflowed in float16 (loss scale now {self._scale():g}). A few skipped steps at "
                "the start are normal."
            )

    def _log(self, step) -> str:
        """Write the metrics since the last log. Return a short text for the progress bar."""
        self._check_finite(step)
        metrics = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        self.model.reset_metrics()
        metrics["learning_rate"] = float(tf.convert_to_tensor(self.model.optimizer.learning_rate))
        if trainable.is_scaled(self.model):
            metrics |= {"loss_scale": self._scale(), "skipped_steps": self._num_skipped(step)}
        if self.validation.is_due(step):
            metrics |= self.validation.run(step)
        with self.writer.as_default(step=step):
            for name, value in metrics.items():
                tf.summary.scalar(f"{self.stage}/{name}", value)
        self.writer.flush()
        with (self.folder / "metrics.jsonl").open("a") as lines:
            lines.write(json.dumps({"step": step, **metrics}) + "\n")
        title = "/".join(filter(None, (self.runtime.variant, self.stage)))
        self.runtime.loggers.log(title, step, metrics)
        self.on_log(step, metrics)
        scored = f", val mIoU {100 * metrics['val_miou']:.1f} %" if "val_miou" in metrics else ""
        return f"loss {metrics['loss']:.3f}{scored}"

    def _report(self, step, note):
        """Print a line of progress from time to time where no bar can be drawn."""
        now = time.monotonic()
        if not self.runtime.console.is_terminal and now - self._reported > _REPORT_EVERY:
            self._reported = now
            self.runtime.log(f"{self.stage}: step {step} of {self.settings.steps}, {note}")

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
        return rich.progress.Progress(*columns, console=console, disable=not self.settings.steps)


def _forget_after(path: pathlib.Path, step: int):
    """Remove the lines of steps that a resumed run will write again."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if _step_of(line) <= step]
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the half-written last line of a killed run
        return math.inf
