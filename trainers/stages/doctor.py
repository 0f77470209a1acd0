"""Stage doctor: check the data set, and write doctor/index.html and doctor/results.json."""

import pathlib

import numpy as np
import rich.console
import rich.progress
import rich.table
import rich.text

from pipelines import datasets
from pipelines.datasets import audit
from trainers import config
from trainers.runs.dataset import reading
from trainers.runs.files import write_json
from trainers.stages import doctor_page

_MOST_NAMES = 10  # names of a finding in the console; the page has more
_SEVERITIES = {True: "error", False: "warning"}


def run(experiment: config.Experiment, workdir: pathlib.Path, console: rich.console.Console):
    """Check the data set of the settings.

    Args:
        experiment: the settings.
        workdir: folder of the run.
        console: prints the findings.

    Raises:
        UserError: the data set has errors, or cannot be found.
    """
    data = experiment.data
    try:
        plan = datasets.plan(
            data.dataset,
            data_dir=data.data_dir,
            train_split=data.train_split,
            eval_split=data.eval_split,
            void_value=data.void_value,
            reading=reading(data, experiment.network.channels),
        )
    except datasets.DatasetError as error:
        raise config.ConfigError(str(error)) from error
    num_images = sum(map(len, plan.splits.values()))
    with rich.progress.Progress(console=console, transient=True) as bar:
        task = bar.add_task("doctor", total=num_images)
        result = audit.examine(
            plan,
            max_unreadable=data.max_unreadable,
            shorter_side=data.shorter_side,
            progress=lambda: bar.advance(task),
        )
    folder = workdir / "doctor"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(doctor_page.page(result), encoding="utf-8")
    write_json(folder / "results.json", summary(result))
    _report(result, console)
    where = f"page with pictures: {folder / 'index.html'}"
    if result.num_errors:
        raise config.UserError(f"the doctor found {_counted(result)}; {where}")
    console.print(f"doctor: {_counted(result)}; {where}", highlight=False, markup=False)


def summary(result: audit.Audit) -> dict:
    """Return the statistics and findings of an audit, ready for JSON."""
    class_names = result.spec.class_names
    splits = {
        split.name: {
            "num_images": split.num_images,
            "num_sound": split.num_sound,
            "images_with": dict(zip(class_names, split.class_images.tolist(), strict=True)),
            "pixels": dict(zip(class_names, split.class_pixels.tolist(), strict=True)),
            "void_pixels": split.void_pixels,
        }
        for split in result.splits
    }
    findings = [
        {
            "severity": _SEVERITIES[finding.is_error],
            "problem": finding.kind.problem,
            "names": list(finding.names),
            "fix": finding.kind.fix,
        }
        for finding in result.findings
    ]
    found = {"splits": splits, "findings": findings, "messages": list(result.messages)}
    if result.shrunk is not None:
        ious = [None if np.isnan(iou) else float(iou) for iou in result.shrunk.iou]
        found["shrunk"] = {
            "shorter_side": result.shrunk.shorter_side,
            "mask_iou": dict(zip(class_names, ious, strict=True)),
        }
    return found


def _counted(result: audit.Audit) -> str:
    num_warnings = len(result.findings) - result.num_errors
    return f"{_count(result.num_errors, 'error')} and {_count(num_warnings, 'warning')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _report(result: audit.Audit, console: rich.console.Console):
    for message in result.messages:
        console.print(message, highlight=False, markup=False)
    console.print(_class_table(result))
    for finding in result.findings:
        severity, color = _SEVERITIES[finding.is_error], "red" if finding.is_error else "yellow"
        head = rich.text.Text.assemble(
            (f"{severity}: ", color), f"{len(finding.names)} x {finding.kind.problem}"
        )
        console.print(head)
        for name in finding.names[:_MOST_NAMES]:
            console.print(f"    {name}", highlight=False, markup=False)
        if len(finding.names) > _MOST_NAMES:
            more = f"    and {len(finding.names) - _MOST_NAMES} more"
            console.print(more, highlight=False, markup=False)
        console.print(f"  -> {finding.kind.fix}", highlight=False, markup=False)


def _class_table(result: audit.Audit) -> rich.table.Table:
    """Return a table of the share of labelled pixels, and of the images, per class and split.

    If training shrinks images, a last column has the IoU of the masks with their shrunk copies.
    """
    title = f"{result.spec.name}: labelled pixels in percent, images"
    table = rich.table.Table(title=rich.text.Text(title))
    table.add_column("")
    for split in result.splits:
        table.add_column(split.name, justify="right")
        table.add_column("images", justify="right")
    if result.shrunk is not None:
        table.add_column(f"shrunk to {result.shrunk.shorter_side}: IoU", justify="right")
    for k, class_name in enumerate(result.spec.class_names):
        cells = ((f"{s:.2f}", f"{n}") for s, n in (_share(split, k) for split in result.splits))
        cells = [cell for pair in cells for cell in pair]
        if result.shrunk is not None:
            iou = result.shrunk.iou[k]
            cells.append("-" if np.isnan(iou) else f"{100 * iou:.0f}")
        table.add_row(rich.text.Text(class_name), *cells)
    table.add_section()
    cells = ((f"{100 * split.void_share:.2f}", f"{split.num_images}") for split in result.splits)
    table.add_row("void; all images", *(cell for pair in cells for cell in pair))
    return table


def _share(split: audit.SplitFacts, label: int) -> tuple[float, int]:
    """Return the class's percentage of the labelled pixels, and the number of images with it."""
    total = max(1, int(split.class_pixels.sum()))
    return 100 * int(split.class_pixels[label]) / total, int(split.class_images[label])
