"""Compare the quality of our presets with other libraries at equal CPU seconds.

Each method trains in its own process on one core, on the same images from random weights, and is
scored by the same confusion matrix of the evaluation split.
"""

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable

import numpy as np
import rich.table

from mm_keras import metrics
from mm_keras.metrics import intervals
from pipelines import datasets
from trainers import config
from trainers.config import resolved
from trainers.config.errors import UserError

PEER_PROGRAM = pathlib.Path(__file__).with_name("quality_peer.py")
PEER_SIDE = 192
"""Shorter side to which the peers' images are shrunk: the side of their crops."""

_ENCODERS = {"ResNet-18": "resnet18", "MobileNetV3-small": "timm-mobilenetv3_small_100"}


@dataclasses.dataclass(frozen=True)
class Method:
    """One line of the table.

    Attributes:
        name: as printed.
        task: what its program needs besides the data: a preset and its changes, or a network.
    """

    name: str
    task: dict

    @property
    def is_ours(self) -> bool:
        """Whether the method is one of our presets."""
        return "preset" in self.task

    def command(self, python: str | None) -> list[str]:
        """Return the start of the command that trains the method.

        Args:
            python: interpreter of the peers' environment.
        """
        if self.is_ours:
            return [sys.executable, "-m", "trainers.quality"]
        if self.name == PLAIN_UNET.name:
            return [sys.executable, "-m", "trainers.benchmarks.keras_unet_peer"]
        return [python, str(PEER_PROGRAM)]


PLAIN_UNET = Method("Keras U-Net", {})
"""A U-Net as tutorials build it, on images of full resolution. It needs no other environment."""


def peers() -> list[Method]:
    """Return the networks of segmentation_models_pytorch, without and with augmentation."""
    return [
        Method(
            f"{architecture} {name}{', augmented' if augmented else ''}",
            {"architecture": architecture, "encoder": encoder, "augmentation": augmented},
        )
        for architecture in ("Unet", "DeepLabV3Plus")
        for name, encoder in _ENCODERS.items()
        for augmented in (False, True)
    ]


def ours(settings: resolved.Resolved) -> Method:
    """Return our method: a preset, and the keys that flags change."""
    flat = config.flatten(settings.experiment)
    changes = {key: flat[key] for key in flat if settings.origin(key) == "flag"}
    return Method(
        f"mm-keras, preset {settings.preset}", {"preset": settings.preset, "changes": changes}
    )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The images and the budget that all methods share.

    Attributes:
        data: settings of the data.
        cpu_seconds: of training, for each method and seed.
        seeds: of weights, order and augmentation.
        python: interpreter of the peers' environment; None leaves the peers out.
    """

    data: config.Data
    cpu_seconds: float
    seeds: tuple[int, ...]
    python: str | None

    def methods(self, settings: resolved.Resolved) -> list[Method]:
        """Return our method, the plain U-Net, and the other peers if they can run."""
        return [ours(settings), PLAIN_UNET, *(peers() if self.python else [])]


def chosen(methods: Iterable[Method], names: Iterable[str]) -> list[Method]:
    """Return the methods with one of the names.

    A name that no method has stands for all methods whose name contains it.

    Args:
        methods: all methods.
        names: names or parts of names; empty for all methods.

    Raises:
        UserError: a name fits no method.

    Example:

    >>> [method.name for method in chosen(peers(), ["Unet ResNet-18"])]
    ['Unet ResNet-18']
    """
    methods, found = list(methods), []
    for name in names:
        fits = [m for m in methods if m.name == name] or [m for m in methods if name in m.name]
        if not fits:
            known = ", ".join(method.name for method in methods)
            raise UserError(f"No method {name!r}. There are: {known}.")
        found += fits
    return [m for m in methods if m in found] if found else methods


def compare(
    comparison: Comparison, methods: Iterable[Method], log: Callable[[str], None]
) -> dict[str, list[float]]:
    """Train every method with every seed, one after the other.

    Seeds are the outer loop, so all methods meet the same state of the machine.

    Returns:
        {name of the method: mIoU in percent for each seed}.

    Raises:
        UserError: a program failed; the message holds the end of its output.
    """
    dataset = _loaded(comparison.data)
    scores = {method.name: [] for method in methods}
    for seed in comparison.seeds:
        for method in methods:
            result = _run(comparison, method, dataset, seed)
            miou = 100 * metrics.mean_iou(np.array(result["confusion"]))
            scores[method.name].append(miou)
            log(
                f"{method.name}, seed {seed}: {miou:.1f} mIoU, {result['steps']} steps, "
                f"{result['cpu_seconds']:.0f} CPU seconds"
            )
    return scores


def table(scores: dict[str, list[float]]) -> rich.table.Table:
    """Return the table of the methods.

    A line has the mean mIoU, its standard deviation over the seeds, the lead of the first method,
    the 95 % interval of the lead (Student's t of the paired differences), and each seed.
    """
    columns = ("method", "mean mIoU", "deviation", "lead of the first", "95 %", "each seed")
    result = rich.table.Table(*columns)
    first = next(iter(scores), None)
    for name, values in scores.items():
        deviation = f"{statistics.stdev(values):.1f}" if len(values) > 1 else "-"
        lead = ("", "") if name == first else _lead(scores[first], values)
        each = " ".join(f"{value:.1f}" for value in values)
        result.add_row(name, f"{statistics.mean(values):.1f}", deviation, *lead, each)
    return result


def _lead(first, values):
    """Return the mean of the paired differences and its interval, as text."""
    pairs = zip(first, values, strict=True)
    found = intervals.over_seeds([ours - value for ours, value in pairs])
    bounds = "-" if found.low is None else f"{found.low:+.1f} to {found.high:+.1f}"
    return f"{found.mean:+.1f}", bounds


def _loaded(data):
    from trainers.runs.dataset import load_dataset

    return load_dataset(data)


def _run(comparison, method, dataset, seed) -> dict:
    task = method.task | {"cpu_seconds": comparison.cpu_seconds, "seed": seed}
    if not method.is_ours:
        task |= _files(dataset)
    with tempfile.TemporaryDirectory() as folder:
        task_file, result_file = (pathlib.Path(folder, name) for name in ("task", "result"))
        task_file.write_text(json.dumps(task), encoding="utf-8")
        command = method.command(comparison.python)
        _call([*command, str(task_file), str(result_file)], method.name)
        return json.loads(result_file.read_text(encoding="utf-8"))


def _files(dataset: datasets.Dataset) -> dict:
    train = dataset.train.labelled()
    return {
        "train": list(zip(train.image_files, train.label_files, strict=True)),
        "eval": list(zip(dataset.eval.image_files, dataset.eval.label_files, strict=True)),
        "shorter_side": PEER_SIDE,
        "num_classes": dataset.spec.num_classes,
    }


def _call(command, name):
    """Run a program on one core."""
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        check=False,
    )
    if done.returncode:
        raise UserError(f"{name} failed:\n{done.stderr[-2000:]}")
