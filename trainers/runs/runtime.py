"""The surroundings of a run: its folder, data set, console and devices."""

import dataclasses
import json
import pathlib
import shlex
import tempfile
import time
from collections.abc import Callable

import rich.console

from pipelines import datasets
from pipelines.datasets.files import checksum
from trainers import config
from trainers.config import terminal
from trainers.devices import Replicas
from trainers.runs.loggers import Loggers


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
        loggers: services that get the metrics as well.
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
    loggers: Loggers = dataclasses.field(default_factory=Loggers)

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
        """Return the path of a weight file of an earlier stage.

        Raises:
            WorkdirError: the file is missing, or not the one that the stage wrote. The message
                names the stage to run.
        """
        path = self.source(stage) / filename
        if not path.exists():
            raise WorkdirError(
                f"{path} is missing: run the same command with --stage={stage} first (or with "
                "--stage=all, which includes it)."
            )
        if is_changed(path, self.result(stage)):
            raise WorkdirError(
                f"{path} was changed or damaged after stage {stage} wrote it. Restore it, or make "
                f"it again: {self.command(f'--stage={stage}')}"
            )
        return path

    def result(self, stage: str) -> dict | None:
        """Return the results of a stage; None if it is not finished.

        Raises:
            WorkdirError: the file of the results is damaged.
        """
        return read_results(self.source(stage))

    def is_done(self, stage: str) -> bool:
        """Return whether the chief finds the stage finished; all workers get the same answer."""
        return bool(self.replicas.every_worker(self.result(stage) is not None)[0])

    def command(self, *flags: str) -> str:
        """Return the command that runs a part of this run again; its folder has the settings."""
        compare = ["--compare"] if self.variant else []
        return shlex.join(
            ["python", "-m", "trainers.mm", f"--workdir={self.workdir}", "--overwrite"]
            + [*flags, *compare]
        )

    def log(self, text: str) -> None:
        """Print a line for the user."""
        self.console.print(terminal.printable(text), markup=False, highlight=False)


def read_results(folder: pathlib.Path) -> dict | None:
    """Return the results of the stage in a folder; None if it is not finished.

    Raises:
        WorkdirError: the file of the results is damaged.
    """
    path = folder / "results.json"
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise WorkdirError(
            f"{path} is damaged ({error}). Remove it to run the end of stage {folder.name} again."
        ) from error


def is_changed(weights: pathlib.Path, results: dict | None) -> bool:
    """Return whether a weight file is not the one whose checksum its stage stored.

    Args:
        weights: the file.
        results: the results of its stage; None if it is not finished. Earlier versions stored no
            checksum.
    """
    stored = (results or {}).get("checksums", {}).get(weights.name)
    return stored is not None and checksum(weights) != stored
