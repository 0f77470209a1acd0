"""The paper's Tables 1 to 3 with our results beside the published ones, and a table of any runs.

A run fills a cell only if it has the settings of the cell and used the whole data set. The seed is
free. All other cells stay empty.
"""

import csv
import dataclasses
import functools
import io
import itertools
import statistics
from collections.abc import Sequence

from trainers import config
from trainers.config import presets
from trainers.config.paper_cells import CELLS, ENSEMBLE, ENSEMBLE_MEMBERS, NAIVE, TUNED, Cell
from trainers.runs import facts, finished

# Images of the splits that the paper trains and evaluates on. Cityscapes has 2,975 training images;
# the released list and the paper have one less.
_NUM_TRAIN_IMAGES = {"voc_sbd": (10582,), "cityscapes": (2974, 2975)}
_NUM_EVAL_IMAGES = {"voc_sbd": 1449, "cityscapes": 500}

# The seed, the paths of weights and images, and the facts that `departures` checks separately.
_FREE_KEYS = (
    "seed",
    "network.init_weights",
    "network.init_allow",
    "data.unlabelled_dir",
    *facts.DATA,
    *facts.INPUTS,
)

_LABELS = {1: ("network", "method"), 2: ("method",), 3: ("data set", "network", "init")}
_CAPTIONS = {
    1: "mIoU in percent on the val split of VOC2012",
    2: "IoU in percent on the val split of VOC2012, VGG-16",
    3: "mIoU in percent on the val splits",
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """Our results for one cell.

    Attributes:
        values: percent, one value per run.
        runs: the runs, in the same order.
    """

    values: tuple[float, ...]
    runs: tuple[finished.Run, ...]

    @property
    def text(self) -> str:
        """The mean; for several runs also their standard deviation and number."""
        if not self.values:
            return ""
        mean = f"{statistics.mean(self.values):.1f}"
        if len(self.values) == 1:
            return mean
        return f"{mean} ± {statistics.stdev(self.values):.1f} ({len(self.values)} runs)"


def departures(run: finished.Run, preset: str, variant: str) -> dict[str, tuple] | None:
    """Return the settings in which a run differs from a preset.

    Settings of M&M are ignored for runs without M&M.

    Args:
        run: a finished run.
        preset: name of the preset.
        variant: NAIVE or TUNED.

    Returns:
        {key: (value of the run, value of the preset)}, or None if the run is another variant.
    """
    if run.kind != variant:
        return None
    expected = _settings(preset)
    found = finished.differences(run.recorded, expected, _FREE_KEYS)
    unused = _unused_sections(run)
    found = {key: values for key, values in found.items() if not key.startswith(unused)}
    dataset = expected["data.dataset"]
    for key, wanted in (
        ("num_train_images", _NUM_TRAIN_IMAGES[dataset]),
        ("num_eval_images", (_NUM_EVAL_IMAGES[dataset],)),
    ):
        if run.recorded[key] not in wanted:
            found[key] = (run.recorded[key], wanted[-1])
    return found


def _unused_sections(run):
    """Return prefixes of keys that do not affect the run: unused pretext tasks, and unused M&M."""
    sections = [f"{task}." for task in config.PROXIES]
    unused = [s for s in sections if not any(key.startswith(s) for key in run.recorded)]
    return tuple(unused + (["mm."] if run.kind == NAIVE else []))


@functools.cache
def _settings(preset):
    return config.flatten(presets.experiment(preset))


def figure(cell: Cell, runs: Sequence[finished.Run]) -> Figure:
    """Return our results for a cell, from all runs that have its settings."""
    runs = [run for run in runs if _is_cell(run, cell)]
    values = [(_value(run, cell.class_number), run) for run in runs]
    values = [(value, run) for value, run in values if value is not None]
    return Figure(tuple(100 * value for value, _ in values), tuple(run for _, run in values))


def _is_cell(run, cell):
    if cell.variant == ENSEMBLE:
        return run.kind == ENSEMBLE and _is_papers_ensemble(run.members)
    return cell.preset is not None and departures(run, cell.preset, cell.variant) == {}


def _is_papers_ensemble(members):
    wanted = ENSEMBLE_MEMBERS
    orders = itertools.permutations(members) if len(members) == len(wanted) else ()
    return any(
        all(departures(run, *which) == {} for run, which in zip(order, wanted, strict=True))
        for order in orders
    )


def _value(run, class_number):
    if class_number is None:
        return run.results["miou"]
    return run.results["per_class_iou"][run.recorded["classes"][class_number]]


def paper_tables(runs: Sequence[finished.Run]) -> str:
    """Return the paper's tables in Markdown.

    Each number takes two columns, "paper" and "ours"; in Table 2 it takes two rows.
    """
    parts = []
    for number in (1, 2, 3):
        cells = [cell for cell in CELLS if cell.table == number]
        ours = {cell: figure(cell, runs).text for cell in cells}
        build = _by_rows if number == 2 else _by_columns
        head, rows = build(cells, ours, _LABELS[number])
        parts.append(f"Table {number}: {_CAPTIONS[number]}\n\n{markdown(head, rows)}")
    return "\n\n".join(parts)


def _by_columns(cells, ours, labels):
    columns = list(dict.fromkeys(cell.column for cell in cells))
    head = [*labels, *(f"{column} {whose}" for column in columns for whose in ("paper", "ours"))]
    rows = {}
    for cell in cells:
        rows.setdefault(cell.row, [*cell.row]).extend((f"{cell.paper:.1f}", ours[cell]))
    return head, list(rows.values())


def _by_rows(cells, ours, labels):
    columns = list(dict.fromkeys(cell.column for cell in cells))
    rows = {}
    for cell in cells:
        for whose, text in (("paper", f"{cell.paper:.1f}"), ("ours", ours[cell])):
            rows.setdefault((cell.row, whose), [*cell.row, whose]).append(text)
    return [*labels, "", *columns], list(rows.values())


def paper_csv(runs: Sequence[finished.Run]) -> str:
    """Return the paper's tables as CSV, one line per cell.

    Values are in percent. The columns of our results are empty where no run fits.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ("table", "row", "column", "paper", "ours", "ours_sd", "num_runs", "preset", "workdirs")
    )
    for cell in CELLS:
        ours = figure(cell, runs)
        mean = f"{statistics.mean(ours.values):.2f}" if ours.values else ""
        deviation = f"{statistics.stdev(ours.values):.2f}" if len(ours.values) > 1 else ""
        folders = " ".join(str(run.folder) for run in ours.runs)
        row, preset = " / ".join(cell.row), cell.preset or ""
        values = (cell.table, row, cell.column, f"{cell.paper:.1f}", mean, deviation)
        writer.writerow((*values, len(ours.values), preset, folders))
    return file.getvalue()


def is_in_the_paper(run: finished.Run) -> bool:
    """Return whether the run reproduces a cell of the paper's tables."""
    return any(figure(cell, [run]).values for cell in CELLS if cell.class_number is None)


def near_miss(run: finished.Run, most: int = 5) -> str:
    """Return one line about the closest preset of the paper and the settings that differ from it.

    Args:
        run: a finished run.
        most: largest number of differing keys; with more the text is empty.
    """
    found = []
    for cell in CELLS:
        missing = departures(run, cell.preset, cell.variant) if cell.preset else None
        if missing:
            found.append((len(missing), cell.preset, missing))
    number, preset, missing = min(found, key=lambda item: item[:2], default=(most + 1, "", {}))
    if number > most:
        return ""
    reasons = (f"{key} {values[0]} instead of {values[1]}" for key, values in missing.items())
    return f"{run.folder} is not {preset}: {', '.join(reasons)}"


# Head of a column -> text of a run.
_COLUMNS = (
    ("data set", lambda run: run.recorded["data.dataset"] + _held_out(run)),
    ("network", lambda run: _network(run)),
    ("init", lambda run: run.recorded.get("network.init", "")),
    ("matching", lambda run: _of_mm(run, "mm.matching")),
    ("M&M steps", lambda run: _of_mm(run, "mm.steps")),
    ("nodes", lambda run: str(run.num_nodes) if run.kind == TUNED else ""),
    ("fine-tuning steps", lambda run: str(run.recorded.get("segment.steps", ""))),
    ("seed", lambda run: str(run.recorded.get("seed", ""))),
    ("mIoU", lambda run: _percent(run, "miou")),
    ("pixel accuracy", lambda run: _percent(run, "pixel_accuracy")),
    ("mean accuracy", lambda run: _percent(run, "mean_accuracy")),
    ("seconds", lambda run: f"{sum(cost['seconds'] for cost in run.costs.values()):.0f}"),
)
_OPTIONAL = (("boundary IoU", "boundary_iou"), ("thin IoU", "thin_iou"))


def plain_table(runs: Sequence[finished.Run]) -> str:
    """Return a table of all runs in Markdown, one line per run, in percent and seconds."""
    extra = [
        (head, key)
        for head, key in _OPTIONAL
        if any(isinstance(run.results.get(key), float) for run in runs)
    ]
    head = ["workdir", *(head for head, _ in (*_COLUMNS, *extra))]
    rows = [
        [
            str(run.folder),
            *(text(run) for _, text in _COLUMNS),
            *(_percent(run, key) for _, key in extra),
        ]
        for run in runs
    ]
    return markdown(head, rows)


def _held_out(run):
    holdout = run.recorded.get("data.holdout", 0)
    return f", {holdout} held out" if holdout else ""


def _network(run):
    if run.kind == ENSEMBLE:
        return f"ensemble of {' and '.join(str(member.folder) for member in run.members)}"
    return f"{run.recorded['network.backbone']} x{run.recorded['network.width']:g}"


def _of_mm(run, key):
    return str(run.recorded[key]) if run.kind == TUNED else ""


def _percent(run, key):
    value = run.results.get(key)
    return f"{100 * value:.1f}" if isinstance(value, float) else ""


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown whose columns are padded to equal width.

    >>> print(markdown(["a", "long head"], [["1", "2"]]))
    | a   | long head |
    | --- | --------- |
    | 1   | 2         |
    """
    widths = [max(3, *map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(text.ljust(width) for text, width in zip(line, widths, strict=True))} |"
        for line in lines
    )
