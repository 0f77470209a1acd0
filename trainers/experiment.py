"""A whole run, callable from Python.

>>> from trainers import config, experiment
>>> settings = config.replace(config.Experiment(), "mm.steps", 100)
>>> results = experiment.run_experiment(settings, workdir="runs/mine")  # doctest: +SKIP
>>> results["miou"]  # doctest: +SKIP
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence

import rich.console

from trainers import config, devices
from trainers.config import resolved, terminal
from trainers.reporting import page, run_table
from trainers.runs import (
    ensemble,
    lock,
    provenance,
    records,
    removal,
    results,
    stage_scope,
)
from trainers.runs.dataset import load_dataset, shrinking_notice
from trainers.runs.loggers import LOGGERS, Loggers
from trainers.runs.loggers import check as check_loggers
from trainers.runs.runtime import Runtime
from trainers.runs.stage import Stage
from trainers.stages import STAGES, of_experiment, select
from trainers.training import budget, networks, patch_batches, proxy_tasks, pseudo_labels


def run_experiment(
    experiment: config.Experiment,
    stages: Iterable[str] = ("all",),
    workdir: str | os.PathLike | None = None,
    compare: bool = False,
    overwrite: bool = False,
    console: rich.console.Console | None = None,
    origin: provenance.Origin | None = None,
    loggers: Iterable[str] = (),
) -> dict:
    """Run the stages of an experiment, or continue them where they stopped.

    Args:
        experiment: the settings, for example from `trainers.config.presets.experiment("quick")`.
        stages: names of stages; "all" stands for the usual ones.
        workdir: folder of the run; None for `default_workdir`.
        compare: also fine-tune and evaluate without M&M, the variant "naive".
        overwrite: run the stages again, and remove their results first.
        console: prints progress and results; None prints nothing.
        origin: the preset and the command, recorded with the run.
        loggers: names of services that follow the run, see `trainers.runs.loggers`.

    Returns:
        The content of `workdir/results.json`: "miou" and the other scores if stage evaluate is
        done, "stages" with the seconds and the peak memory of each, "naive" with the same for the
        variant without M&M, and "run" with command, commit, versions and settings.

    Raises:
        config.UserError: settings, data or folder cannot be used; the message names the fix.
    """
    chosen = select(stages, experiment)
    check_loggers(loggers)
    console = console or terminal.console(file=io.StringIO())
    replicas = devices.create(experiment, console)
    console.quiet = console.quiet or not replicas.is_chief
    if workdir is None:
        workdir = default_workdir(resolved.Resolved(experiment))
    experiment, dataset = _prepared(experiment, chosen, console)
    scratch = None if replicas.is_chief else tempfile.TemporaryDirectory()
    runtime = Runtime(pathlib.Path(workdir), dataset, console, replicas=replicas, scratch=scratch)
    if replicas.is_chief:
        runtime.loggers = Loggers({name: LOGGERS[name]() for name in loggers}, runtime.log)
    with _writing(runtime):
        _prepare_folder(runtime, experiment, [stage.name for stage in chosen], compare, overwrite)
        if replicas.is_chief:
            trains = any(stage.trains for stage in chosen)
            provenance.write(runtime.workdir, experiment, origin or provenance.Origin(), trains)
            runtime.loggers.start(runtime.workdir, config.flatten(experiment))
        _run_stages(chosen, experiment, runtime, compare)
        found = {}
        if replicas.is_chief:
            found = results.gather(runtime, of_experiment(experiment))
            if "miou" in found:
                page.write(runtime.workdir, runtime.dataset.spec, found)
            runtime.loggers.finish(found)
            run_table.show(runtime, found, [stage.name for stage in chosen], experiment)
        replicas.barrier()  # the others would take a worker that left early for lost
    return found


def with_pixels(settings: resolved.Resolved) -> resolved.Resolved:
    """Turn sizes that are shares of the images' shorter side into pixels; loads the data set."""
    experiment = settings.experiment
    dataset = load_dataset(experiment.data, ensemble.channels(experiment))
    found = config.derived(experiment, dataset.train.shorter_side, dataset.spec.num_bands)
    return settings.changed(found, "derived")


def within_minutes(
    settings: resolved.Resolved,
    minutes: float,
    stages: Iterable[str] = ("all",),
    console: rich.console.Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> resolved.Resolved:
    """Return settings whose stages train for some minutes on this machine.

    A few steps of each stage are timed first. The time is divided between the stages as in the
    given settings, and learning rates drop at the same shares of the steps.

    Args:
        settings: the settings of a command.
        minutes: the budget; evaluation and export come on top.
        stages: names of stages; "all" stands for the usual ones.
        console: prints the plan; None prints nothing.
        clock: function () -> seconds; `time.process_time` plans seconds of the CPU.

    Raises:
        config.UserError: the budget is too short for one step of each stage, or the settings or
            the data cannot be used.
    """
    if settings.experiment.strategy != "none":
        raise config.ConfigError(
            f"A time budget needs one device. Received strategy={settings.experiment.strategy}. "
            "Set the steps of the stages instead."
        )
    if settings.experiment.data.pseudo_labels is not None:
        raise config.ConfigError(
            "A time budget does not cover pseudo-labels: their number decides the time. Set the "
            "steps of the stages instead, or leave data.pseudo_labels out."
        )
    chosen = select(stages, settings.experiment)
    console = console or terminal.console(file=io.StringIO())
    quiet = terminal.console(file=io.StringIO())
    experiment, dataset = _prepared(settings.experiment, chosen, quiet)
    console.print("timing a few steps of each stage")
    costs = budget.measure(experiment, Runtime(pathlib.Path(), dataset, quiet, clock=clock), chosen)
    result = budget.planned(settings, costs, minutes)
    for line in budget.describe(result, costs):
        console.print(line, highlight=False)
    return result


def default_workdir(settings: resolved.Resolved) -> pathlib.Path:
    """Return runs/DATASET-BACKBONE-INIT-PRESET, with a checksum of the other settings if any.

    Settings of prediction and logging do not count: they belong to the same run. A folder data set
    adds the name of its folder.
    """
    experiment = settings.experiment
    if experiment.ensemble:
        return ensemble.default_workdir(experiment)
    network, data = experiment.network, experiment.data
    folder = pathlib.Path(data.data_dir or ".").resolve().name if data.dataset == "folder" else ""
    parts = (data.dataset, folder, network.backbone, network.init, settings.preset)
    parts = (*parts, _checksum_of_changes(settings))
    return pathlib.Path("runs") / "-".join(filter(None, parts)).replace("/", "_")


_NAMED_KEYS = {"data.dataset", "network.backbone", "network.init"}
"""Keys whose values are in the name of the default folder."""


def _checksum_of_changes(settings):
    """Return six digits for the values that neither a default nor the preset gave."""
    flat, defaults = (config.flatten(e) for e in (settings.experiment, config.Experiment()))
    if settings.origins:
        usual = ("default", "derived", f"preset {settings.preset}")
        changes = {key: flat[key] for key in flat if settings.origin(key) not in usual}
    else:
        changes = {key: value for key, value in flat.items() if value != defaults[key]}
    free = config.FREE_KEYS | _NAMED_KEYS | {"data.eval_split", "network.init_weights"}
    changes = {
        key: value
        for key, value in changes.items()
        if key not in free and not key.startswith(("evaluate.", "suggest."))
    }
    text = json.dumps(changes, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6] if changes else ""


def _prepared(experiment, chosen: Sequence[Stage], console):
    """Return the experiment with sizes in pixels and its data set; both are checked."""
    networks.check(experiment)
    dataset = load_dataset(experiment.data, ensemble.channels(experiment))
    for message in dataset.messages:
        console.print(terminal.printable(message))
    if notice := shrinking_notice(experiment.data, dataset.train.shorter_side):
        console.print(notice)
    ensemble.check_classes(experiment, dataset.spec.name, dataset.spec.class_names)
    experiment = config.resolve(experiment, dataset.train.shorter_side, dataset.spec.num_bands)
    proxy_tasks.check(experiment)
    patch_batches.check(experiment.mm, networks.background_label(experiment, dataset.spec))
    _check_labels(dataset, [stage.name for stage in chosen])
    if experiment.data.pseudo_labels is not None and not experiment.ensemble:
        pseudo_labels.sources(experiment.data, dataset)
    if config.uses_xla(experiment):
        console.print("XLA compiles the steps: this run cannot be repeated to the last bit")
    return experiment, dataset


def _writing(runtime):
    """Return the lock of the folder; workers other than the chief write elsewhere."""
    if runtime.replicas.is_chief:
        return lock.holding(runtime.workdir)
    return contextlib.nullcontext()


def _prepare_folder(runtime, experiment, names, compare, overwrite):
    """Check the folder, then remove the parts that the command overwrites."""
    table = of_experiment(experiment)
    records.check_workers(runtime, experiment, table)
    parts = removal.affected(names, compare, STAGES) if overwrite else []
    removal.check(runtime, parts)
    records.check_workdir(runtime, experiment, table, names, parts)
    runtime.replicas.barrier()  # no worker reads the folder after this
    if runtime.replicas.is_chief:
        removal.remove(runtime, parts, names)


def _run_stages(chosen, experiment, runtime, compare):
    for variant in (runtime, runtime.naive()) if compare else (runtime,):
        for stage in chosen:
            if variant is runtime or stage.is_compared:
                _run_stage(stage, experiment, variant)


def _run_stage(stage: Stage, experiment, runtime):
    title = f"{runtime.variant} {stage.name}".strip()
    if runtime.is_done(stage.name):
        folder = runtime.folder(stage.name)
        runtime.log(f"{title}: done already in {folder}; --overwrite runs it again")
        return
    runtime.log(f"{title}: writing to {runtime.folder(stage.name)}")
    if runtime.replicas.is_chief or stage.trains:
        stage_scope.run_stage(stage, experiment, runtime)


def _check_labels(dataset, names):
    """Raise an error before hours of training if there are no labels to measure on."""
    if "evaluate" in names and not dataset.eval.is_labelled:
        others = ",".join(name for name in names if name not in ("evaluate", "predict"))
        raise config.ConfigError(
            f"Split '{dataset.eval.name}' of {dataset.spec.name} has no labels, so there is nothing"
            " to measure. Choose another --eval_split, or predict it instead: "
            f"--stage={f'{others},' if others else ''}predict."
        )
