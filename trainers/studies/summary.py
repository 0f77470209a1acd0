"""The summary of a study: tables, confidence intervals and curves."""

import dataclasses
import importlib.util
import statistics
from collections.abc import Sequence

import numpy as np

from mm_keras.metrics import intervals
from pipelines import datasets
from trainers import config
from trainers.reporting import measurements, paper_tables
from trainers.runs import files, finished
from trainers.studies import plan, step_cost
from trainers.studies.plan import Arm, Study


@dataclasses.dataclass(frozen=True)
class ArmSummary:
    """The results of one arm.

    Attributes:
        mious: {seed: mIoU in percent}.
        per_class: {class name: mean IoU over seeds in percent, None if the class does not occur}.
        steps: number of steps of M&M, and of fine-tuning.
        operations: multiply-adds of the forward passes of all steps, in tera.
        seconds: duration of M&M, and of fine-tuning; means over seeds.
        over_seeds: difference to the first arm in points of mIoU, with its interval over seeds.
            None for the first arm, and for an arm without a seed in common with it.
        over_images: the same with its interval over images.
    """

    mious: dict[int, float]
    per_class: dict[str, float | None]
    steps: tuple[int, int]
    operations: float
    seconds: tuple[float, float]
    over_seeds: intervals.Interval | None = None
    over_images: intervals.Interval | None = None

    @property
    def mean(self) -> float:
        """The mean mIoU in percent."""
        return statistics.mean(self.mious.values())

    @property
    def deviation(self) -> float | None:
        """The standard deviation over seeds in points, None for a single seed."""
        return statistics.stdev(self.mious.values()) if len(self.mious) > 1 else None


def write(study: Study, dataset: datasets.Dataset) -> str:
    """Write summary.md, summary.json and, if matplotlib is installed, summary.png.

    Args:
        study: a study whose runs are all finished.
        dataset: the data set of its runs.

    Returns:
        The text of summary.md.
    """
    runs = {
        arm.name: {seed: finished.read(study.folder(arm, seed)) for seed in arm.seeds}
        for arm in study.arms
    }
    confusions = {
        name: {
            seed: measurements.per_image_confusions(run, dataset) for seed, run in by_seed.items()
        }
        for name, by_seed in runs.items()
    }
    summaries = summarize(study, runs, confusions, dataset.spec.num_classes)
    text = markdown(study, summaries, dataset)
    files.write_json(study.workdir / "summary.json", as_json(study, summaries, dataset))
    (study.workdir / "summary.md").write_text(text + "\n")
    if importlib.util.find_spec("matplotlib"):
        figure = _figure(study, summaries, runs, dataset)
        figure.savefig(study.workdir / "summary.png", dpi=110)
    return text


def summarize(
    study: Study,
    runs: dict[str, dict[int, finished.Run]],
    confusions: dict[str, dict[int, np.ndarray]],
    num_classes: int,
) -> dict[str, ArmSummary]:
    """Return the results of all arms, with their differences to the first arm.

    Args:
        study: the study.
        runs: {name of the arm: {seed: run}}.
        confusions: {name of the arm: {seed: confusion matrices, integer [num_images, K, K]}}.
        num_classes: K.
    """
    first = study.arms[0].name
    result = {}
    for arm in study.arms:
        summary = _summarize_arm(study, arm, runs[arm.name], num_classes)
        if arm.name != first:
            summary = _with_differences(
                summary, result[first], confusions[arm.name], confusions[first]
            )
        result[arm.name] = summary
    return result


def _summarize_arm(study, arm: Arm, runs, num_classes):
    experiment = study.experiment(arm, arm.seeds[0])
    num_trainings = 1 if experiment.data.pseudo_labels is None else 2
    steps = (experiment.mm.steps, num_trainings * experiment.segment.steps)
    cost = step_cost.count(experiment, num_classes)
    names = runs[arm.seeds[0]].results["per_class_iou"]
    return ArmSummary(
        mious={seed: 100 * run.results["miou"] for seed, run in runs.items()},
        per_class={
            name: _mean_percent([run.results["per_class_iou"][name] for run in runs.values()])
            for name in names
        },
        steps=steps,
        operations=(steps[0] * cost.mm + steps[1] * cost.segment) / 1e12,
        seconds=tuple(
            statistics.mean(_seconds(run, stages) for run in runs.values())
            for stages in (("mm",), ("teacher", "pseudo", "segment"))
        ),
    )


def _seconds(run, stages):
    return sum(run.costs[stage]["seconds"] for stage in stages if stage in run.costs)


def _mean_percent(shares):
    shares = [share for share in shares if share is not None]
    return 100 * statistics.mean(shares) if shares else None


def _with_differences(summary, first, confusions, first_confusions):
    seeds = [seed for seed in summary.mious if seed in first.mious]
    if not seeds:
        return summary
    over_images = intervals.over_images(
        np.stack([first_confusions[seed] for seed in seeds]),
        np.stack([confusions[seed] for seed in seeds]),
    )
    return dataclasses.replace(
        summary,
        over_seeds=intervals.over_seeds(
            [summary.mious[seed] - first.mious[seed] for seed in seeds]
        ),
        over_images=intervals.Interval(
            *(100 * value for value in dataclasses.astuple(over_images))
        ),
    )


def as_json(study: Study, summaries: dict[str, ArmSummary], dataset: datasets.Dataset) -> dict:
    """Return the content of summary.json, in percent and points."""
    return {
        "dataset": dataset.spec.name,
        "trained_on": f"{dataset.train.title} ({dataset.train.num_images} images)",
        "evaluated_on": f"{dataset.eval.title} ({dataset.eval.num_images} images)",
        "preset": study.preset,
        "settings": config.flatten(study.shared),
        "baseline": study.arms[0].name,
        "arms": {
            arm.name: {
                "changes": {key: _plain(value) for key, value in arm.changes.items()},
                "mean": summaries[arm.name].mean,
                "deviation": summaries[arm.name].deviation,
                **dataclasses.asdict(summaries[arm.name]),
            }
            for arm in study.arms
        },
    }


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def markdown(study: Study, summaries: dict[str, ArmSummary], dataset: datasets.Dataset) -> str:
    """Return the text of summary.md."""
    network, first = study.shared.network, study.arms[0].name
    parts = [
        f"# Study: {dataset.spec.name}, {network.backbone} x{network.width:g} from {network.init}",
        f"Trained on {dataset.train.num_images} images of {dataset.train.title}, evaluated on "
        f"{dataset.eval.num_images} images of {dataset.eval.title}. mIoU in percent, differences "
        f"to {first} in points. Runs of the same seed are paired.",
        paper_tables.markdown(*_main_table(summaries)),
        *_notes(),
        "mIoU of each seed",
        paper_tables.markdown(*_seed_table(summaries)),
        "IoU of each class, means over seeds",
        paper_tables.markdown(*_class_table(summaries)),
        "Runs",
        "\n".join(f"    {_command(study, arm, seed)}" for arm, seed in study.runs()),
    ]
    return "\n\n".join(parts)


def _command(study, arm, seed):
    stages = study.stages(study.experiment(arm, seed))
    return f"python {' '.join(plan.command(stages, study.folder(arm, seed)))}"


def _main_table(summaries):
    head = (
        "arm",
        "seeds",
        "mIoU",
        "difference",
        "95 % over seeds",
        "95 % over images",
        "M&M steps",
        "fine-tuning steps",
        "multiply-adds",
        "seconds M&M",
        "seconds fine-tuning",
    )
    rows = [
        [
            name,
            str(len(summary.mious)),
            _mean_and_deviation(summary),
            f"{summary.over_seeds.mean:+.2f}" if summary.over_seeds else "",
            _bounds(summary.over_seeds),
            _bounds(summary.over_images),
            *map(str, summary.steps),
            f"{summary.operations:.3g}e12",
            *(f"{seconds:.0f}" for seconds in summary.seconds),
        ]
        for name, summary in summaries.items()
    ]
    return head, rows


def _mean_and_deviation(summary):
    if summary.deviation is None:
        return f"{summary.mean:.2f}"
    return f"{summary.mean:.2f} ± {summary.deviation:.2f}"


def _bounds(interval):
    if interval is None or interval.low is None:
        return ""
    return f"{interval.low:+.2f} to {interval.high:+.2f}"


def _notes():
    yield (
        "Over seeds: Student's t interval of the paired differences. It does not cover variation "
        "between images. Over images: percentile bootstrap with the same resampled images for both "
        "arms and all seeds. It does not cover variation between seeds. On similar images, for "
        "example frames of one video, it is too narrow."
    )
    yield (
        "Multiply-adds: counted over the forward passes of all steps. naive_longer replaces the "
        "multiply-adds of M&M by more fine-tuning steps. Its learning rate drops at the same share "
        "of the schedule."
    )


def _seed_table(summaries):
    seeds = dict.fromkeys(seed for summary in summaries.values() for seed in summary.mious)
    rows = [
        [name, *(_number(summary.mious.get(seed)) for seed in seeds)]
        for name, summary in summaries.items()
    ]
    return ["arm", *(f"seed {seed}" for seed in seeds)], rows


def _class_table(summaries):
    names = next(iter(summaries.values())).per_class
    rows = [
        [name, *(_number(summary.per_class[name]) for summary in summaries.values())]
        for name in names
    ]
    return ["class", *summaries], rows


def _number(value):
    return "" if value is None else f"{value:.2f}"


def _figure(study, summaries, runs, dataset):
    from trainers.reporting import plots

    curves = {"M&M loss": _curves(runs, "mm"), "fine-tuning loss": _curves(runs, "segment")}
    network = study.shared.network
    return plots.study(
        {name: arms for name, arms in curves.items() if arms},
        {name: summary.mious for name, summary in summaries.items()},
        {
            name: {
                "over seeds": dataclasses.astuple(summary.over_seeds),
                "over images": dataclasses.astuple(summary.over_images),
            }
            for name, summary in summaries.items()
            if summary.over_seeds
        },
        study.arms[0].name,
        f"{dataset.spec.name}, {dataset.train.num_images} training images, {network.backbone} "
        f"x{network.width:g} from {network.init}, evaluated on {dataset.eval.title}",
    )


def _curves(runs, stage: str) -> dict[str, list[tuple[Sequence[int], Sequence[float]]]]:
    """Return {arm: (steps, losses) of each run}, without arms that have no step of the stage."""
    curves = {}
    for name, by_seed in runs.items():
        logs = [
            [line for line in finished.curve(run, stage) if "loss" in line]
            for run in by_seed.values()
        ]
        if all(logs):
            curves[name] = [
                ([line["step"] for line in log], [line["loss"] for line in log]) for log in logs
            ]
    return curves
