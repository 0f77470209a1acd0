"""All runs of a device study, their results on disk, and the table."""

import dataclasses
import json
import pathlib

import keras

from mm_keras.metrics import intervals
from trainers import config
from trainers.config.keys import flatten
from trainers.device_studies import scenes, support
from trainers.runs.files import replacing
from trainers.studies import plan


@dataclasses.dataclass(frozen=True)
class Asked:
    """The requested runs, see `trainers.studies.plan.plan`."""

    arms: list[str]
    seeds: list[int]
    changes: list[str]


def run(
    shared: config.Experiment, packed: pathlib.Path, asked: Asked, workdir: pathlib.Path
) -> str:
    """Run what is not on disk yet, seed by seed, and return the table.

    Args:
        shared: settings that all arms share.
        packed: file of the data set.
        asked: the requested runs.
        workdir: folder of the results; a file for each run.

    Raises:
        config.UserError: settings, arms or files that cannot be used, or another backend than JAX.
    """
    if keras.backend.backend() != "jax":
        raise plan.StudyError(
            f"A device study needs KERAS_BACKEND=jax. Received {keras.backend.backend()}."
        )
    from trainers.device_studies import arms, costs

    data = scenes.read(packed)
    shared = config.resolve(shared, data.shorter_side)
    cost = costs.count(shared, len(data.class_names))
    planned = plan.plan(asked.arms, asked.seeds, asked.changes, shared, cost)
    runs = [(arm, seed) for seed in asked.seeds for arm in planned if seed in arm.seeds]
    experiments = [_settings(shared, arm, seed, data.shorter_side) for arm, seed in runs]
    for experiment in experiments:
        support.check(experiment)
    runner, results = arms.Runner(data), {arm.name: {} for arm in planned}
    for (arm, seed), experiment in zip(runs, experiments, strict=True):
        path = workdir / arm.name / f"seed{seed}.json"
        results[arm.name][seed] = _one(runner, experiment, path)
    return table(results)


def _settings(shared, arm, seed, shorter_side):
    experiment = config.changed(shared, {**arm.changes, "seed": seed})
    return config.resolve(experiment, shorter_side)


def _one(runner, experiment, path):
    settings = {key: str(value) for key, value in flatten(experiment).items()}
    if path.exists():
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["settings"] != settings:
            raise plan.StudyError(f"{path} has other settings. Use another --workdir.")
        return result
    result = runner.run(experiment) | {"settings": settings}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result), encoding="utf-8")
    print(f"{path}: {result['miou']:.1f} mIoU, {result['seconds']:.0f} s", flush=True)
    return result


def table(results: dict[str, dict[int, dict]]) -> str:
    """Return the mean mIoU of each arm, and its paired difference to the first arm.

    Args:
        results: {arm: {seed: result of `arms.Runner.run`}}.
    """
    lines = ["| arm | mIoU | difference to the first arm (95 %) | seeds |", "|---|---|---|---|"]
    first = next(iter(results.values()))
    for name, runs in results.items():
        values = {seed: result["miou"] for seed, result in runs.items()}
        shared = [seed for seed in values if seed in first]
        mean = sum(values.values()) / len(values)
        text = _difference([values[seed] - first[seed]["miou"] for seed in shared])
        lines.append(f"| {name} | {mean:.1f} | {text if runs is not first else ''} | {len(runs)} |")
    return "\n".join(lines)


def _difference(values):
    if not values:
        return "-"
    found = intervals.over_seeds(values)
    bounds = "" if found.low is None else f" ({found.low:+.1f} to {found.high:+.1f})"
    return f"{found.mean:+.1f}{bounds}"
