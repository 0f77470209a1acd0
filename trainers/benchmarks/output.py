"""The results of the benchmark as a table in the terminal, as Markdown and as JSON."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform

import keras
import rich.table

from trainers.benchmarks import gpu
from trainers.benchmarks.targets import LINES, is_met
from trainers.benchmarks.timing import NOT_REQUESTED, Measurement, NotRun

HEAD = ("line", "figure", "peer", "ratio", "target", "")


def table(measurements: dict[str, Measurement]) -> rich.table.Table:
    """Return the table for the terminal, without the groups that were not requested."""
    result = rich.table.Table(*HEAD)
    for row in rows(measurements):
        if row[-1] != NOT_REQUESTED:
            result.add_row(*row)
    return result


def rows(measurements: dict[str, Measurement]) -> list[tuple[str, ...]]:
    """Return one row of texts per line: title, figure, peer, ratio, target, verdict or reason."""
    return [_row(line, measurements[line.key]) for line in LINES]


def _row(line, measurement):
    if measurement.figure is None:
        return line.title, "not run", line.peer, "", line.target, measurement.reason
    peer = f"{line.peer}: {measurement.peer:.3g}" if measurement.peer is not None else ""
    ratio = f"{measurement.ratio:.3g}" if measurement.ratio is not None else ""
    verdict = {True: "met", False: "MISSED", None: ""}[is_met(line, measurement)]
    return line.title, f"{measurement.figure:.3g} {line.unit}", peer, ratio, line.target, verdict


def missed(measurements: dict[str, Measurement]) -> list[str]:
    """Return the keys of the lines that miss their targets."""
    return [line.key for line in LINES if is_met(line, measurements[line.key]) is False]


def write(folder: pathlib.Path, measurements: dict[str, Measurement], device: str):
    """Write benchmark.json and benchmark.md.

    Args:
        folder: is created if it does not exist.
        measurements: {key of the line: measurement} of all lines.
        device: "cpu" or "gpu".
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        dataclasses.asdict(line)
        | dataclasses.asdict(measurements[line.key])
        | {"ratio": measurements[line.key].ratio, "is_met": is_met(line, measurements[line.key])}
        | {"peer": line.peer, "peer_figure": measurements[line.key].peer}
        for line in LINES
    ]
    content = {"machine": machine(device), "lines": lines}
    (folder / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n")
    body = [HEAD, ("---",) * len(HEAD), *rows(measurements)]
    text = "\n".join(f"| {' | '.join(row)} |" for row in body)
    (folder / "benchmark.md").write_text(f"{machine(device)}\n\n{text}\n")


def write_costs(folder: pathlib.Path, text: str):
    """Write cost.md with the table of costs, which is always measured on the CPU."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cost.md").write_text(f"{machine('cpu')}\n\n{text}\n")


def write_quality(folder: pathlib.Path, comparison, scores: dict[str, list[float]]):
    """Write quality.json: the machine, the comparison, and the mIoU of each method and seed.

    Args:
        folder: made if it does not exist.
        comparison: `trainers.benchmarks.quality.Comparison`.
        scores: {method: mIoU for each seed}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine("cpu"), "comparison": dataclasses.asdict(comparison)}
    text = json.dumps(content | {"miou": scores}, indent=2)
    (folder / "quality.json").write_text(f"{text}\n", encoding="utf-8")


def machine(device: str) -> str:
    """Return the processors and the versions of Keras and of its backend in one line."""
    backend = keras.backend.backend()
    packages = [f"{name} {importlib.metadata.version(name)}" for name in ("keras", backend)]
    processors = [f"{_processor()}, {os.cpu_count()} cores"]
    if device == "gpu":
        with contextlib.suppress(NotRun):
            processors += gpu.names()
    return f"{', '.join(processors)}; {', '.join(packages)}"


def _processor():
    path = pathlib.Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
