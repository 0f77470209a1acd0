"""Finished runs, read back from their working folders."""

import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipelines import datasets
from trainers import config
from trainers.config import presets, terminal
from trainers.runs import facts

if TYPE_CHECKING:
    from trainers.runs import runtime


class NoRunsError(config.UserError):
    """The given folders hold no finished run."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One variant of a run whose stage evaluate is done.

    Attributes:
        workdir: folder of the run.
        variant: "" or "naive", as in `runtime.Runtime`.
        recorded: the flat settings that stage evaluate stored, with the facts of the data set.
        results: the results of stage evaluate.
        costs: {stage: {"seconds": ..., "peak_bytes": ...}} of the stages that are done.
    """

    workdir: pathlib.Path
    variant: str
    recorded: dict
    results: dict
    costs: dict

    @property
    def folder(self) -> pathlib.Path:
        """The folder of this variant's stages."""
        return self.workdir / self.variant

    @property
    def kind(self) -> str:
        """ENSEMBLE, TUNED if M&M took a step before fine-tuning, else NAIVE."""
        if self.recorded.get("ensemble"):
            return presets.ENSEMBLE
        is_tuned = self.variant != "naive" and self.recorded["mm.steps"] > 0
        return presets.TUNED if is_tuned else presets.NAIVE

    @property
    def members(self) -> list["Run"]:
        """The runs that an ensemble averages, each with the evaluation settings of the ensemble.

        Other runs have none.
        """
        shared = {
            key: value
            for key, value in self.recorded.items()
            if " " not in key and key != "ensemble"
        }
        members = []
        for workdir in self.recorded.get("ensemble", ()):
            start = f"{workdir} "  # so an ensemble records the configurations of its members
            own = {
                key.removeprefix(start): value
                for key, value in self.recorded.items()
                if key.startswith(start)
            }
            variant = "naive" if pathlib.Path(workdir).name == "naive" else ""
            members.append(Run(pathlib.Path(workdir), variant, own | shared, self.results, {}))
        return members

    @property
    def seed(self) -> int:
        return self.recorded["seed"]

    @property
    def num_nodes(self) -> int:
        """The number of nodes of a step's graph."""
        return self.recorded["mm.num_images"] * self.recorded["mm.patches_per_image"]

    def experiment(self) -> config.Experiment:
        """Return the run's settings; keys that were not recorded have their defaults.

        Raises:
            config.ConfigError: a value that cannot be used; names the file.
        """
        known = {key for key in config.all_keys() if key in self.recorded}
        source = str(self.folder / "evaluate" / "config.json")
        return config.from_flat({key: self.recorded[key] for key in known}, source)

    def runtime(self, dataset: datasets.Dataset) -> "runtime.Runtime":
        """Return the surroundings that stages need to load this run's networks."""
        from trainers.runs import runtime  # here, since tables need no TensorFlow

        console = terminal.console(file=io.StringIO())
        return runtime.Runtime(self.workdir, dataset, console, self.variant)


def find(paths: Iterable[pathlib.Path]) -> list[Run]:
    """Return all finished runs in or below the folders, each once, in the order of their paths.

    Raises:
        NoRunsError: a folder holds none.
    """
    runs = {}
    for path in paths:
        found = sorted(pathlib.Path(path).glob("**/evaluate/results.json"))
        if not found:
            raise NoRunsError(
                f"{path} holds no finished run: no evaluate/results.json in it or below it. Run "
                "trainers.mm with its stage evaluate first."
            )
        runs |= {file.resolve(): read(file.parents[1]) for file in found}
    return list(runs.values())


def read(folder: pathlib.Path) -> Run:
    """Return the run with its stages in `folder`.

    Raises:
        config.UserError: a file of the run cannot be read.
    """
    # The naive variant of a run has no stage mm of its own, and shares the folder above.
    is_naive = folder.name == "naive" and not (folder / "mm").exists()
    done = {path.parent.name: _json(path) for path in folder.glob("*/results.json")}
    return Run(
        workdir=folder.parent if is_naive else folder,
        variant="naive" if is_naive else "",
        recorded=_json(folder / "evaluate" / "config.json"),
        results=scores(folder),
        costs={
            stage: {key: result[key] for key in ("seconds", "peak_bytes") if key in result}
            for stage, result in done.items()
            if "seconds" in result  # the results of the data check have no cost
        },
    )


def scores(folder: pathlib.Path) -> dict:
    """Return the results of stage evaluate in the folder of a run.

    Raises:
        config.UserError: the file cannot be read.
    """
    return _json(folder / "evaluate" / "results.json")


def curve(run: Run, stage: str) -> list[dict]:
    """Return the logged metrics of a training stage, one dict per log entry, with its "step"."""
    return log_entries(run.folder / stage / "metrics.jsonl")


def log_entries(path: pathlib.Path) -> list[dict]:
    """Return the content of a metrics.jsonl, one dict per line; empty if there is no file.

    Raises:
        config.UserError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise config.UserError(
            f"{path} is damaged ({error}). Restore it, or remove it: nothing but the curves of the "
            "stage needs it."
        ) from error


def differences(first: dict, second: dict, free: Iterable[str] = ()) -> dict[str, tuple]:
    """Return {key: (value in first, value in second)} where two flat configurations differ.

    A missing key counts with its default: the run was made before the setting existed. Keys that
    change no result are left out, as in `records.check_workdir`.
    """
    defaults = config.flatten(config.Experiment())
    first, second = defaults | first, defaults | second
    return {
        key: (first.get(key), second.get(key))
        for key in sorted(first.keys() | second.keys())
        if key not in {*config.FREE_KEYS, *free} and first.get(key) != second.get(key)
    }


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs that differ in M&M alone, by seed; either side may be empty.

    Attributes:
        name: short, good for file names.
        naive, tuned: runs without and with M&M. If both are present, run k of both has one seed.
    """

    name: str
    naive: tuple[Run, ...]
    tuned: tuple[Run, ...]

    @property
    def columns(self) -> dict[str, tuple[Run, ...]]:
        """The sides that are not empty, by their names."""
        sides = {"baseline": self.naive, "M&M": self.tuned}
        return {name: runs for name, runs in sides.items() if runs}


def compare(runs: Iterable[Run]) -> list[Comparison]:
    """Pair the runs of each M&M setting with the runs without M&M that are otherwise the same.

    Seeds that only one side has are left out, unless no seed is on both sides. Runs without a
    counterpart stand alone. Ensembles are left out.
    """
    runs, found = [run for run in runs if run.kind != presets.ENSEMBLE], []
    if not runs:
        return []
    root = _common_folder(runs).parent
    for group in _grouped(runs, lambda run: _without(run, "mm.")):
        naive = {run.seed: run for run in group if run.kind == presets.NAIVE}
        variants = _grouped([run for run in group if run.kind == presets.TUNED], _without)
        sides = [(naive, {run.seed: run for run in variant}) for variant in variants]
        for side in sides or [(naive, {})]:
            found.append(_comparison(root, *side))
    return found


def _comparison(root, naive, tuned):
    shared = sorted(naive.keys() & tuned.keys())
    if shared:
        naive, tuned = ({seed: side[seed] for seed in shared} for side in (naive, tuned))
    elif tuned:
        naive = {}
    naive, tuned = (tuple(side[seed] for seed in sorted(side)) for side in (naive, tuned))
    place = _common_folder(tuned or naive).relative_to(root)
    return Comparison("-".join(place.parts).replace(" ", "_"), naive, tuned)


def _common_folder(runs):
    """Return the deepest folder that holds all runs."""
    return pathlib.Path(os.path.commonpath([run.folder.resolve() for run in runs]))


def graph_studies(runs: Iterable[Run]) -> list[list[Run]]:
    """Return groups of tuned runs that differ in seed and graph size alone, with several sizes."""
    sizes = ("mm.num_images", "mm.patches_per_image")
    tuned = [run for run in runs if run.kind == presets.TUNED]
    groups = _grouped(tuned, lambda run: _without(run, *sizes))
    return [group for group in groups if len({run.num_nodes for run in group}) > 1]


def _without(run, *prefixes):
    """Return the settings as text, without seed, free keys, and keys that start with a prefix."""
    # Each seed may have its own weight file.
    left_out = {"seed", "network.init_weights", *facts.INPUTS, *config.FREE_KEYS}
    kept = {
        key: value
        for key, value in run.recorded.items()
        if key not in left_out and not (prefixes and key.startswith(prefixes))
    }
    return json.dumps(kept, sort_keys=True)


def _grouped(runs, key):
    groups = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def _json(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content)
    except (OSError, ValueError, TypeError) as error:
        raise config.UserError(
            f"{path} cannot be read ({error}). Restore it, or leave this run out."
        ) from error
