"""How a run was started: preset, command, commit, versions and settings, in WORKDIR/run.json."""

import dataclasses
import importlib.metadata
import json
import pathlib
import shlex
import subprocess
from collections.abc import Mapping, Sequence

from trainers import config
from trainers.config import resolved
from trainers.runs import files

PACKAGES = ("mm-keras", "keras", "tensorflow", "numpy")


@dataclasses.dataclass(frozen=True)
class Origin:
    """The preset and the command line that gave the settings; empty if Python code gave them.

    Attributes:
        preset: name of the preset.
        command: the command line.
        origins: {key: origin of its value}, as in `resolved.Resolved`.
    """

    preset: str = ""
    command: Sequence[str] = ()
    origins: Mapping[str, str] = dataclasses.field(default_factory=dict)


STARTS = "run.json"
"""The file with all starts of a run."""

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
    start = {
        "preset": origin.preset,
        "command": shlex.join(origin.command),
        "commit": commit(),
        "versions": versions(),
        "settings": config.flatten(experiment),
        "origins": dict(origin.origins),
    }
    starts = [other for other in read(workdir) if other != start]
    files.write_json(workdir / STARTS, {"starts": [*starts, start]})


def read(workdir: pathlib.Path) -> list[dict]:
    """Return the recorded starts of a run, the last one at the end; empty if there are none."""
    try:
        content = json.loads((workdir / STARTS).read_text(encoding="utf-8"))
        return list(content["starts"])
    except (OSError, ValueError, KeyError, TypeError):
        return []  # a damaged record of old starts must not stop a run


def commit() -> str | None:
    """Return the commit of the program, with "+changes" if files differ; None if it has none."""
    folder = pathlib.Path(__file__).parents[2]
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--exclude=*"]
            + ["--dirty=+changes"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    is_own = (folder / ".git").exists()
    return done.stdout.strip() if is_own and done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Return {package: version} of the packages that decide the result."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
