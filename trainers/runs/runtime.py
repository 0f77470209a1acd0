"""Where a run lives: its folder, its data set, its console and its devices."""

import dataclasses
import json
import pathlib
import tempfile

import rich.console

from pipelines import datasets
from trainers import config
from trainers.devices import Replicas


class WorkdirError(config.UserError):
    """The working folder does not fit what was asked for."""


@dataclasses.dataclass
class Runtime:
    """What a stage needs besides its configuration.

    workdir: folder of this run.
    dataset: the loaded data set.
    console: for everything that a person should read.
    variant: "" for the tuned network, "naive" for fine-tuning without M&M; its stages live in a folder
        of that name.
    replicas: the devices that train.
    scratch: where a worker other than the chief writes what nobody reads, so that it runs the same
        code as the chief; None for the chief.
    """

    workdir: pathlib.Path
    dataset: datasets.Dataset
    console: rich.console.Console
    variant: str = ""
    replicas: Replicas = dataclasses.field(default_factory=Replicas)
    scratch: tempfile.TemporaryDirectory | None = None

    def naive(self) -> "Runtime":
        """The same run without M&M."""
        return dataclasses.replace(self, variant="naive")

    def folder(self, stage: str) -> pathlib.Path:
        """Where this process writes what the stage leaves."""
        root = pathlib.Path(self.scratch.name) if self.scratch else self.workdir
        return root / self.variant / stage

    def source(self, stage: str) -> pathlib.Path:
        """Where all workers read what the stage left."""
        return self.workdir / self.variant / stage

    def needed(self, stage: str, filename: str) -> pathlib.Path:
        """A file that an earlier stage left.

        Raises:
            WorkdirError: it is not there; names the stage to run.
        """
        path = self.source(stage) / filename
        if not path.exists():
            raise WorkdirError(
                f"{path} is missing: run the same command with --stage={stage} first (or with "
                "--stage=all, which does it by itself)."
            )
        return path

    def result(self, stage: str) -> dict | None:
        """What a finished stage reported, or None."""
        path = self.source(stage) / "results.json"
        return json.loads(path.read_text()) if path.exists() else None

    def is_done(self, stage: str) -> bool:
        """Whether the chief finds the stage finished; all workers get the same answer."""
        return bool(self.replicas.every_worker(self.result(stage) is not None)[0])

    def log(self, text: str):
        self.console.print(text, highlight=False)
