"""The surroundings of a run: its folder, data set, console and devices."""

import dataclasses
import json
import pathlib
import tempfile
import time
from collections.abc import Callable

import rich.console

from pipelines import datasets
from trainers import config
from trainers.config import terminal
from trainers.devices import Replicas


class WorkdirError(config.UserError):
    """The working folder does not fit the settings of the command."""


@dataclasses.dataclass
class Runtime:
    """The surroundings of a run: everything that a stage needs besides the settings.

    Attributes:
        workdir: folder of this run.
        dataset: the loaded data set.
        console: prints progress and results.
        variant: "" for the tuned network, "naive" for fine-tuning without M&M. The stages of the
            variant have their folders in a folder of that name.
        replicas: the devices that train.
        step_seconds: {stage: seconds of each step that this process made}.
        clock: function () -> seconds, for `step_seconds`.
        scratch: folder for the files of a worker that is not the chief; nobody reads them, but all
            workers run the same code. None for the chief.
    """

    workdir: pathlib.Path
    dataset: datasets.Dataset
    console: rich.console.Console
    variant: str = ""
    replicas: Replicas = dataclasses.field(default_factory=Replicas)
    scratch: tempfile.TemporaryDirectory | None = None
    step_seconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic

    def naive(self) -> "Runtime":
        """Return the same run without M&M."""
        return self.of("naive")

    def of(self, variant: str) -> "Runtime":
        """Return the same run in one of its variants."""
        return dataclasses.replace(self, variant=variant)

    def folder(self, stage: str) -> pathlib.Path:
        """Return the folder to which this process writes the files of a stage."""
        root = pathlib.Path(self.scratch.name) if self.scratch else self.workdir
        return root / self.variant / stage

    def source(self, stage: str) -> pathlib.Path:
        """Return the folder from which all workers read the files of a stage."""
        return self.workdir / self.variant / stage

    def needed(self, stage: str, filename: str) -> pathlib.Path:
        """Return the path of a file of an earlier stage.

        Raises:
            WorkdirError: the file is missing; the message names the stage to run.
        """
        path = self.source(stage) / filename
        if not path.exists():
            raise WorkdirError(
                f"{path} is missing: run the same command with --stage={stage} first (or with "
                "--stage=all, which includes it)."
            )
        return path

    def result(self, stage: str) -> dict | None:
        """Return the results of a stage; None if it is not finished.

        Raises:
            WorkdirError: the file of the results is damaged.
        """
        path = self.source(stage) / "results.json"
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WorkdirError(
                f"{path} is damaged ({error}). Remove it to run the end of stage {stage} again."
            ) from error
        return content

    def is_done(self, stage: str) -> bool:
        """Return whether the chief finds the stage finished; all workers get the same answer."""
        return bool(self.replicas.every_worker(self.result(stage) is not None)[0])

    def log(self, text: str) -> None:
        """Print a line for the user."""
        self.console.print(terminal.printable(text), markup=False, highlight=False)
