"""How a run was started: its preset, command, versions and settings, in WORKDIR/run.json."""

import dataclasses
import importlib.metadata
import json
import pathlib
import shlex
from collections.abc import Sequence

from trainers import config
from trainers.config import resolved
from trainers.runs import files

PACKAGES = ("mm-keras", "keras", "tensorflow", "numpy")


@dataclasses.dataclass(frozen=True)
class Origin:
    """The preset and the command line that gave the settings; empty if Python code gave them."""

    preset: str = ""
    command: Sequence[str] = ()


SETTINGS = "settings.json"
"""The file with the settings of a run, which `--config` reads."""


def write(
    workdir: pathlib.Path, experiment: config.Experiment, origin: Origin, trains: bool
) -> None:
    """Write the settings of a run, and add this start to `run.json`.

    Args:
        trains: whether a stage that trains was asked for. Otherwise the settings that the folder
            holds already stay: they are the settings of the training.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    settings = resolved.Resolved(experiment, origin.preset)
    if trains or not (workdir / SETTINGS).exists():
        files.write_json(workdir / SETTINGS, resolved.as_file(settings))
    path = workdir / "run.json"
    starts = json.loads(path.read_text())["starts"] if path.exists() else []
    start = {
        "preset": origin.preset,
        "command": shlex.join(origin.command),
        "versions": versions(),
        "settings": config.flatten(experiment),
    }
    if start not in starts:
        files.write_json(path, {"starts": [*starts, start]})


def versions() -> dict[str, str]:
    """Return {package: version} of the packages that decide the result."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
