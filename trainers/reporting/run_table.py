"""The results of a run, as a table in the terminal."""

from collections.abc import Sequence

import rich.table

from pipelines import datasets
from trainers import config
from trainers.reporting import variants
from trainers.runs.runtime import Runtime

_FILES = {
    "page": "index.html",
    "SavedModel": "export/saved_model",
    "predictions": "predict/results",
}
SCALARS = ("miou", "pixel_accuracy", "mean_accuracy", "boundary_iou", "thin_iou")


def show(
    runtime: Runtime, results: dict, stages: Sequence[str], experiment: config.Experiment
) -> None:
    """Print the scores, if stage evaluate was requested, and the paths of the files of the run.

    Args:
        runtime: the run.
        results: content of the results.json of the run.
        stages: names of the requested stages.
        experiment: the settings.
    """
    main = variants.main_title(config.flatten(experiment))
    columns = {main: results, "naive": results.get("naive", {})}
    columns = {name: column for name, column in columns.items() if "miou" in column}
    if columns and "evaluate" in stages:
        runtime.console.print(table(columns, runtime.dataset))
    runtime.log(f"results: {runtime.workdir / 'results.json'}")
    runtime.log(f"curves and pictures: tensorboard --logdir {runtime.workdir}")
    for title, path in _FILES.items():
        if (runtime.workdir / path).exists():
            runtime.log(f"{title}: {runtime.workdir / path}")


def table(columns: dict[str, dict], dataset: datasets.Dataset) -> rich.table.Table:
    """Return the scores and the IoU of each class in percent, one column per variant."""
    result = rich.table.Table(title=f"{dataset.spec.name} {dataset.eval.title}, percent")
    result.add_column("")
    for name in columns:
        result.add_column(name, justify="right")
    for key in SCALARS:
        result.add_row(key, *(percent(column.get(key)) for column in columns.values()))
    result.add_section()
    for class_name in dataset.spec.class_names:
        figures = (column["per_class_iou"][class_name] for column in columns.values())
        result.add_row(f"IoU {class_name}", *map(percent, figures))
    return result


def percent(share: float | None) -> str:
    """Return a share in percent with one decimal, as tables and pages show it.

    >>> percent(0.4939), percent(None)
    ('49.4', '-')
    """
    return "-" if share is None else f"{100 * share:.1f}"
