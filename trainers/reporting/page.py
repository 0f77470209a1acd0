"""The page of a run: WORKDIR/index.html, one file without scripts and without network access.

All figures come from WORKDIR/results.json. Pictures come from evaluate/examples.npz, curves from
metrics.jsonl, and settings with their origins from run.json.
"""

import json
import pathlib
from collections.abc import Sequence

import jinja2
import numpy as np

from pipelines import datasets
from trainers import config
from trainers.reporting import (
    confusion_table,
    curves,
    images_table,
    page_pictures,
    run_table,
    variants,
)
from trainers.reporting.variants import Variant
from trainers.runs import provenance
from trainers.runs.files import replacing
from trainers.runs.finished import log_entries

PAGE, TABLE = "index.html", "results.csv"
MAX_BYTES = 3_000_000
"""The largest size of a page; pictures become smaller until it fits."""

MANY_CLASSES = 24
"""From this number of classes on, tables are sorted and shortened."""

_SIDES = (240, 180, 130, 90)  # pixels of the longer side of a picture, the first that fits
_FIRST_CURVES = ("loss", "pixel_accuracy", "miou")
_PROBES = {"probe_linear": "linear classifier", "probe_neighbor": "nearest neighbor"}


def write(workdir: pathlib.Path, spec: datasets.DatasetSpec, results: dict) -> None:
    """Write index.html and results.csv of a run, if a variant was evaluated.

    Args:
        workdir: folder of the run.
        spec: facts of its data set.
        results: content of its results.json.
    """
    shown = variants.of(workdir, results)
    if not shown:
        return
    for side in _SIDES:
        text = _render(workdir, spec, shown, results, side)
        if len(text.encode()) <= MAX_BYTES:
            break
    contents = {PAGE: text, TABLE: images_table.as_csv(shown, spec.class_names)}
    for name, content in contents.items():
        if content:
            with replacing(workdir / name) as temporary:
                temporary.write_text(content, encoding="utf-8")


def _render(workdir, spec, shown, results, side) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = run_table.percent
    run = results.get("run") or {}
    pictures = [(v.title, page_pictures.groups(v, spec, side)) for v in shown]
    names = ("right", "missed", "wrong")
    colors = (page_pictures.RIGHT, page_pictures.MISSED, page_pictures.WRONG)
    return environment.get_template("page.html").render(
        workdir=str(workdir),
        name=workdir.resolve().name,
        dataset=spec.name,
        variants=shown,
        scores=run_table.SCALARS,
        classes=_classes(spec, shown),
        is_many=spec.num_classes >= MANY_CLASSES,
        matrices=[(v.title, confusion_table.of(v.results, spec, MANY_CLASSES)) for v in shown],
        examples=pictures,
        legend=[(name, _color(spec, k)) for k, name in enumerate(spec.class_names)],
        error_colors=dict(zip(names, map(_css, colors), strict=True)),
        curves=_curves(shown),
        probe=_probe(workdir, results),
        pseudo=_pseudo_labels(shown, spec),
        settings=_settings(workdir, run),
        run=run,
        stages=_stages(shown),
        doctor=_json(workdir / "doctor" / "results.json"),
        has_model=(workdir / "export" / "saved_model").exists(),
    )


def _classes(spec, shown) -> list[dict]:
    """Return a row for each class; with many classes sorted by the IoU of the first variant."""
    matrix = np.asarray(shown[0].results["confusion_matrix"])
    total = max(1, int(matrix.sum()))
    rows = [
        {
            "id": k,
            "name": name,
            "color": _color(spec, k),
            "share": float(matrix[k].sum() / total),
            "ious": [v.results["per_class_iou"][name] for v in shown],
            "intervals": [v.intervals.get("per_class_iou", {}).get(name) for v in shown],
        }
        for k, name in enumerate(spec.class_names)
    ]
    if spec.num_classes >= MANY_CLASSES:
        rows.sort(key=lambda row: -1 if row["ious"][0] is None else row["ious"][0], reverse=True)
    return rows


def _curves(shown: Sequence[Variant]) -> list[dict]:
    """Return the drawings of each stage that trains; the variants share a drawing."""
    found = []
    for stage in ("proxy", "mm", "teacher", "segment"):
        logs = {v.title: log_entries(v.folder / stage / "metrics.jsonl") for v in shown}
        logs = {title: lines for title, lines in logs.items() if lines}
        names = {key for lines in logs.values() for line in lines for key in line}
        names -= {"step", "non_finite", *_PROBES}
        drawings = [
            curves.svg(name, {title: _points(lines, name) for title, lines in logs.items()})
            for name in sorted(names, key=lambda name: (name not in _FIRST_CURVES, name))
        ]
        if drawings:
            found.append({"stage": stage, "lines": list(logs), "drawings": drawings})
    return found


def _probe(workdir, results) -> dict | None:
    """Return the drawing and the figures of the probe of stage mm; None for a run without it."""
    scores = results.get("probe")
    if not scores:
        return None
    lines = log_entries(workdir / "mm" / "metrics.jsonl")
    series = {title: _points(lines, name) for name, title in _PROBES.items()}
    series = {title: [p for p in points if p[1] is not None] for title, points in series.items()}
    rows = [(title, scores["start"][name], scores["end"][name]) for name, title in _PROBES.items()]
    drawing = curves.svg("balanced accuracy, percent", series)
    return {**scores, "drawing": drawing, "rows": rows}


def _pseudo_labels(shown: Sequence[Variant], spec) -> list[dict]:
    """Return the figures of stage pseudo of each variant that has it."""
    found = []
    for variant in shown:
        figures = variant.results.get("pseudo_labels")
        if figures:
            rows = [(name, figures["classes"][name]) for name in spec.class_names]
            found.append({**figures, "title": variant.title, "rows": rows})
    return found


def _points(lines, name):
    return [(line["step"], line.get(name)) for line in lines]


def _settings(workdir, run) -> list[dict]:
    """Return key, value and origin of each setting of the run."""
    defaults, flat = config.flatten(config.Experiment()), run.get("settings", {})
    defaults = {key: _plain(value) for key, value in defaults.items()}
    origins = _origins(workdir)
    return [
        {
            "key": key,
            "value": _text(value),
            "origin": origins.get(key, "default" if value == defaults.get(key) else "Python"),
            "is_default": value == defaults.get(key),
        }
        for key, value in flat.items()
    ]


def _origins(workdir) -> dict[str, str]:
    """Return the origin of each value; for a remembered value, its origin in an earlier start."""
    found: dict[str, str] = {}
    for start in provenance.read(workdir):
        found = {
            key: found.get(key, text) if text.endswith(provenance.SETTINGS) else text
            for key, text in start.get("origins", {}).items()
        }
    return found


def _stages(shown) -> list[dict]:
    return [
        {"title": f"{v.title} {name}", "seconds": cost["seconds"], "bytes": cost["peak_bytes"]}
        for v in shown
        for name, cost in v.results["stages"].items()
    ]


def _json(path) -> dict | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _color(spec, label) -> str:
    """Return the color of a class; empty for the background, which has the color of the paper."""
    return "" if label == spec.background_label else _css(spec.colors[label])


def _css(color) -> str:
    return f"rgb({color[0]}, {color[1]}, {color[2]})"


def _plain(value):
    """Return a value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def _text(value) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "(empty)"
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
