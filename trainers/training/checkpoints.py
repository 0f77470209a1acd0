"""Checkpoints of a stage: saved at intervals, restored from the newest one that can be read."""

import pathlib
import re
from collections.abc import Callable

import tensorflow as tf

from trainers.runs.runtime import WorkdirError

KEPT = 2
"""Checkpoints that are kept: if the newest one is damaged, the older one takes its place."""


class Checkpoints:
    """The checkpoints of one stage.

    Args:
        checkpoint: the variables to save.
        folder: folder to which this process writes.
        source: folder from which all workers read; the chief's `folder`.
        log: called with a line for the user.
    """

    def __init__(
        self,
        checkpoint: tf.train.Checkpoint,
        folder: pathlib.Path,
        source: pathlib.Path,
        log: Callable[[str], None],
    ):
        self._checkpoint, self._source, self._log = checkpoint, source, log
        self._folder = folder
        self._steps = self._found(folder)

    def save(self, step: int) -> None:
        """Save all variables, and remove checkpoints beyond the newest `KEPT`."""
        self._checkpoint.write(str(self._folder / f"ckpt-{step}"))
        self._steps = sorted({*self._steps, step})
        for old in self._steps[:-KEPT]:
            self._remove(old)
        self._steps = self._steps[-KEPT:]

    def restore(self) -> int:
        """Restore the newest checkpoint that can be read.

        Returns:
            Its step, 0 if there is no checkpoint.

        Raises:
            WorkdirError: there are checkpoints, and none of them can be read.
        """
        steps = self._found(self._source)
        for step in reversed(steps):
            try:
                self._checkpoint.read(str(self._source / f"ckpt-{step}")).assert_consumed()
            except (tf.errors.OpError, AssertionError, IndexError, ValueError) as error:
                reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
                self._log(f"checkpoint of step {step} cannot be read ({reason[0][:200]})")
                continue
            self._forget_after(step)
            return step
        if steps:
            raise WorkdirError(
                f"{self._source}: none of the checkpoints of the steps {steps} can be read. Remove "
                "this folder to start the stage again, or restore it from a copy."
            )
        return 0

    def _forget_after(self, step):
        """Remove newer checkpoints, which cannot be read: they would be tried again."""
        for newer in [other for other in self._steps if other > step]:
            self._remove(newer)
            self._steps.remove(newer)

    def _remove(self, step):
        # The index goes first: without it, the rest is no checkpoint.
        for path in sorted(self._folder.glob(f"ckpt-{step}.*"), key=lambda p: p.suffix != ".index"):
            path.unlink(missing_ok=True)

    @staticmethod
    def _found(folder):
        found = (re.fullmatch(r"ckpt-(\d+)\.index", path.name) for path in folder.glob("ckpt-*"))
        return sorted(int(match[1]) for match in found if match)
