"""The paper's Tables 1 to 3 with our figures beside theirs, and a plain table of any runs.

A figure of ours stands in a cell only if a run's stored configuration is that cell's, seed aside,
and if it saw the whole data set. Otherwise the cell stays empty.
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
from trainers.config.presets import ENSEMBLE, NAIVE, TUNED
from trainers.runs import finished

# Images of the splits that the paper trains and measures on. Cityscapes has 2,975 training images;
# the released list, and the paper, have one less.
_NUM_TRAIN_IMAGES = {"voc_sbd": (10582,), "cityscapes": (2974, 2975)}
_NUM_EVAL_IMAGES = {"voc_sbd": 1449, "cityscapes": 500}

# The repetition's number, where weights of the init lie, and the facts that are checked apart.
_FREE_KEYS = (
    *("seed", "network.init_weights", "network.init_allow", "data.unlabelled_dir"),
    *("classes", "num_train_images", "num_eval_images", "train_checksum", "eval_checksum"),
)

CLASSES_OF_TABLE_2 = (
    *("aero", "bike", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("table", "dog", "horse", "mbike", "person", "plant", "sheep", "sofa", "train", "tv"),
)
"""VOC's classes 1 to 20 as the paper shortens them; it lists no background."""

_VGG, _ALEXNET, _VOC = "VGG-16", "AlexNet", "VOC2012"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A figure of the paper.

    table: 1, 2 or 3.
    row: its labels, as many as the table has columns of labels.
    column: the name of its column.
    paper: percent.
    preset: what makes it here; None for the ensemble, and for methods that this project does not
        have.
    arm: NAIVE or TUNED, which figure of the preset's run it is; or ENSEMBLE.
    class_number: id of the class whose IoU it is; None for the mIoU.
    """

    table: int
    row: tuple[str, ...]
    column: str
    paper: float
    preset: str | None = None
    arm: str = NAIVE
    class_number: int | None = None


def _claimed(table, row, column, preset, arm):
    claim = presets.PRESETS[preset].claim if preset else presets.ENSEMBLE_CLAIM
    return Cell(table, row, column, claim.expected[arm], preset, arm)


def _table_1():
    """Rows in the paper's order; methods without a preset are figures of the paper alone."""
    rows = [
        (_VGG, "ImageNet", "table1/vgg16-imagenet", NAIVE),
        (_VGG, "random", "table1/vgg16-random", NAIVE),
        (_VGG, "Larsson et al. 2016", 50.2),
        (_VGG, "Larsson et al. 2017", "table1/vgg16-colorization", NAIVE),
        (_VGG, "M&M, graph, from colorization", "table1/vgg16-colorization", TUNED),
        (_ALEXNET, "ImageNet", "table1/alexnet-imagenet", NAIVE),
        (_ALEXNET, "random", "table1/alexnet-random", NAIVE),
        (_ALEXNET, "k-means", 32.6),
        (_ALEXNET, "Pathak et al. 2016", 29.7),
        (_ALEXNET, "Donahue et al. 2016", 35.2),
        (_ALEXNET, "Zhang et al. 2016a", 35.6),
        (_ALEXNET, "Zhang et al. 2016b", 36.0),
        (_ALEXNET, "Noroozi and Favaro 2016", "table1/alexnet-jigsaw", NAIVE),
        (_ALEXNET, "Larsson et al. 2017", "table1/alexnet-colorization", NAIVE),
        (
            *(_ALEXNET, "M&M, random triplets, from colorization"),
            *("table1/alexnet-colorization-random-triplets", TUNED),
        ),
        (_ALEXNET, "M&M, graph, from colorization", "table1/alexnet-colorization", TUNED),
        (_ALEXNET, "M&M, graph, from random", "table1/alexnet-random", TUNED),
    ]
    for network, method, *source in rows:
        row = (network, method)
        if len(source) == 1:
            yield Cell(1, row, "mIoU", *source)
        else:
            yield _claimed(1, row, "mIoU", *source)


def _table_2():
    rows = [
        (
            *("ImageNet", "table2/vgg16-imagenet", NAIVE),
            "81.7 37.4 73.3 55.8 59.6 82.4 74.7 82.4 30.8 60.3 46.1 71.4 65.3 72.6 76.7 49.7 70.6 "
            "34.2 72.7 60.2",
        ),
        (
            *("colorization", "table2/vgg16-colorization", NAIVE),
            "73.6 28.5 67.5 55.5 50.2 78.3 66.1 78.3 26.8 60.8 50.6 70.6 64.9 62.2 73.5 38.2 66.8 "
            "38.8 68.1 55.1",
        ),
        (
            *("M&M", "table2/vgg16-colorization", TUNED),
            "83.1 37.0 69.6 56.1 62.9 84.4 76.4 82.8 33.4 61.5 44.7 67.3 68.5 68.0 78.5 42.2 72.7 "
            "37.2 75.7 58.6",
        ),
        (
            *("ensemble ImageNet + M&M", None, ENSEMBLE),
            "84.5 39.4 76.3 60.3 64.6 85.4 77.7 84.1 35.6 63.6 50.4 70.6 72.0 73.6 80.1 50.2 73.7 "
            "37.6 77.8 66.6",
        ),
    ]
    for method, preset, arm, figures in rows:
        ious = map(float, figures.split())
        for number, (name, iou) in enumerate(zip(CLASSES_OF_TABLE_2, ious, strict=True), start=1):
            yield Cell(2, (method,), name, iou, preset, arm, number)
        yield _claimed(2, (method,), "mIoU", preset, arm)


def _table_3():
    rows = [
        (_VOC, _ALEXNET, "random", "table3/voc-alexnet"),
        (_VOC, _ALEXNET, "jigsaw", "table3/voc-alexnet"),
        (_VOC, _ALEXNET, "colorization", "table3/voc-alexnet"),
        (_VOC, _VGG, "random", "table3/voc-vgg16"),
        (_VOC, _VGG, "colorization", "table3/voc-vgg16"),
        ("Cityscapes", _VGG, "random", "table3/cityscapes-vgg16"),
        ("Cityscapes", _VGG, "colorization", "table3/cityscapes-vgg16"),
    ]
    for *row, preset in rows:
        yield _claimed(3, tuple(row), "baseline", f"{preset}-{row[-1]}", NAIVE)
        yield _claimed(3, tuple(row), "M&M", f"{preset}-{row[-1]}", TUNED)
        yield _claimed(3, tuple(row), "ImageNet", f"{preset}-imagenet", NAIVE)


CELLS = (*_table_1(), *_table_2(), *_table_3())
"""All cells of the paper's three tables, row by row."""

_LABELS = {1: ("network", "method"), 2: ("method",), 3: ("data set", "network", "init")}
_CAPTIONS = {
    1: "mIoU in percent on the val split of VOC2012",
    2: "IoU in percent on the val split of VOC2012, VGG-16",
    3: "mIoU in percent on the val splits",
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """What our runs of one cell came to: `values` in percent, one a run."""

    values: tuple[float, ...]
    runs: tuple[finished.Run, ...]

    @property
    def text(self) -> str:
        """The mean; with several runs their standard deviation and number too."""
        if not self.values:
            return ""
        mean = f"{statistics.mean(self.values):.1f}"
        if len(self.values) == 1:
            return mean
        return f"{mean} ± {statistics.stdev(self.values):.1f} ({len(self.values)} runs)"


def departures(run: finished.Run, preset: str, arm: str) -> dict[str, tuple] | None:
    """Where a run is not the given arm of a preset: {key: (the run's value, the preset's)}.

    None if it is another arm altogether. Settings of M&M do not count without M&M.
    """
    if run.kind != arm:
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
    """Starts of keys that say nothing of the run: those of pretext tasks that it was not given, and
    those of M&M without M&M.
    """
    sections = [f"{task}." for task in config.PROXIES]
    unused = [s for s in sections if not any(key.startswith(s) for key in run.recorded)]
    return tuple(unused + (["mm."] if run.kind == NAIVE else []))


@functools.cache
def _settings(preset):
    return config.flatten(presets.experiment(preset))


def figure(cell: Cell, runs: Sequence[finished.Run]) -> Figure:
    """Our figure of a cell, of all runs that are it."""
    runs = [run for run in runs if _is_cell(run, cell)]
    values = [(_value(run, cell.class_number), run) for run in runs]
    values = [(value, run) for value, run in values if value is not None]
    return Figure(tuple(100 * value for value, _ in values), tuple(run for _, run in values))


def _is_cell(run, cell):
    if cell.arm == ENSEMBLE:
        return run.kind == ENSEMBLE and _is_papers_ensemble(run.members)
    return cell.preset is not None and departures(run, cell.preset, cell.arm) == {}


def _is_papers_ensemble(members):
    wanted = presets.ENSEMBLE_MEMBERS
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
    """The paper's tables in Markdown, two columns (or, in Table 2, rows) a figure: paper, ours."""
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
    """The paper's tables as CSV, one line a cell; percent, empty where we have none."""
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
    """Whether the run is a cell of the paper's tables."""
    return any(figure(cell, [run]).values for cell in CELLS if cell.class_number is None)


def near_miss(run: finished.Run, most: int = 5) -> str:
    """What keeps a run out of the cell that it comes closest to; empty if it is close to none."""
    found = []
    for cell in CELLS:
        missing = departures(run, cell.preset, cell.arm) if cell.preset else None
        if missing:
            found.append((len(missing), cell.preset, missing))
    number, preset, missing = min(found, key=lambda item: item[:2], default=(most + 1, "", {}))
    if number > most:
        return ""
    reasons = (f"{key} {values[0]} instead of {values[1]}" for key, values in missing.items())
    return f"{run.folder} is not {preset}: {', '.join(reasons)}"


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
    """All runs in Markdown, one a line; percent and seconds."""
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
    """A table in Markdown, its columns padded to one width so that it reads well as text too."""
    widths = [max(3, *map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(text.ljust(width) for text, width in zip(line, widths, strict=True))} |"
        for line in lines
    )
