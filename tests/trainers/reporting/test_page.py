"""The page of a run: every figure equals results.json; sizes; many classes; names are escaped."""

import csv
import dataclasses
import io
import json
import re

import numpy as np
import pytest

from mm_keras import metrics
from pipelines.datasets.sources import texture_scenes
from trainers import config
from trainers.reporting import confusion_table, page
from trainers.runs import examples, files
from trainers.stages import evaluate


def _spec(num_classes):
    names = ("background", *(f"class <{k}>" for k in range(1, num_classes)))
    colors = tuple((k * 3, 255 - k * 3, 40) for k in range(num_classes))
    return dataclasses.replace(
        texture_scenes.SPEC, class_names=names, colors=colors, label_ids=None
    )


def _fill(folder, spec, seed=0, side=40):
    """Write the files of stage evaluate for four random images; return its results."""
    rng, num_classes = np.random.default_rng(seed), spec.num_classes
    kept, maps, matrices = examples.Examples(num_classes, limit=2), [], []
    for k in range(4):
        truth = rng.integers(0, max(2, num_classes - 3), (side, side)).astype(np.uint8)
        truth[:2] = 255
        wrong = rng.integers(0, max(2, num_classes - 3), truth.shape)
        prediction = np.where((rng.random(truth.shape) < 0.6) & (truth < 255), truth, wrong)
        image = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
        matrix = metrics.ConfusionMatrix(num_classes)
        matrix.update_state(truth, prediction)
        matrices.append(matrix.result())
        kept.update(examples.Example(f"im{k}", image, truth, prediction), matrices[-1])
        maps.append((truth, prediction))
    matrices = np.stack(matrices)
    (folder / "evaluate").mkdir(parents=True, exist_ok=True)
    ids = np.array([f"im{k}" for k in range(4)])
    files.save_arrays(folder / "evaluate" / "per_image.npz", confusion=matrices, id=ids)
    kept.save(folder / "evaluate" / "examples.npz")
    found = evaluate.figures(maps, spec.class_names, boundary=False)
    found["intervals"] = evaluate.intervals(matrices, spec.class_names)
    return found | {"stages": {"evaluate": {"seconds": 1.25, "peak_bytes": 2_000_000}}}


@pytest.fixture
def make(tmp_path):
    """Function(num_classes, compare) -> (text of the page, results, spec)."""

    def _make(num_classes, compare=False, side=40):
        spec = _spec(num_classes)
        results = _fill(tmp_path, spec, side=side)
        if compare:
            results["naive"] = _fill(tmp_path / "naive", spec, seed=1, side=side)
        origins = {"mm.margin": "flag"}
        settings = config.flatten(config.replace(config.Experiment(), "mm.margin", 1.5))
        start = {"preset": "quick", "command": "a <b>", "commit": None, "versions": {"keras": "3"}}
        results["run"] = json.loads(json.dumps(start | {"settings": settings, "origins": origins}))
        (tmp_path / "run.json").write_text(json.dumps({"starts": [results["run"]]}))
        results = json.loads(json.dumps(results))
        page.write(tmp_path, spec, results)
        return (tmp_path / "index.html").read_text(), results, spec

    return _make


def _cells(text, start):
    """Return the texts of the table cells of the row that begins with a text."""
    row = text[text.index(start) :].split("</tr>")[0]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)
    return [re.sub(r"<[^>]*>", "", cell).strip() for cell in cells]


@pytest.mark.parametrize("compare", [False, True])
def test_every_figure_of_a_class_equals_the_results(make, compare):
    text, results, spec = make(5, compare)
    variants = [results, results["naive"]] if compare else [results]
    total = np.sum(results["confusion_matrix"])
    for k, name in enumerate(spec.class_names):
        cells = _cells(text[text.index('id="classes"') :], f'<tr><td class="number">{k}</td>')
        expected = [str(k), name.replace("<", "&lt;").replace(">", "&gt;")]
        expected.append(f"{100 * np.sum(results['confusion_matrix'][k]) / total:.2f}")
        for variant in variants:
            iou = variant["per_class_iou"][name]
            bounds = variant["intervals"]["per_class_iou"][name]
            expected.append("-" if iou is None else f"{100 * iou:.1f}")
            expected.append(
                "" if bounds is None else "{:.1f} to {:.1f}".format(*(100 * b for b in bounds))
            )
        assert cells[: len(expected)] == expected


def test_the_scores_and_their_interval_equal_the_results(make):
    text, results, _ = make(5)
    tiles = re.findall(r'<div class="tile">(.*?)</div>', text, re.DOTALL)
    found = {}
    for tile in tiles:
        name, value, *interval = re.findall(r">\s*([^<>\n]+?)\s*<", f">{tile}<")
        found[name] = (value, interval)
    assert set(found) == {"miou", "pixel_accuracy", "mean_accuracy"}
    for name, (value, _) in found.items():
        assert value == f"{100 * results[name]:.1f}"
    low, high = results["intervals"]["miou"]
    assert found["miou"][1] == [f"{100 * low:.1f} to {100 * high:.1f}"]


def test_the_cells_of_the_confusion_matrix_equal_the_results(make):
    text, results, _ = make(5)
    matrix = np.array(results["confusion_matrix"])
    titles = re.findall(r'title="[^"]* as [^"]*: ([\d,]+) pixels">(\d*)</td>', text)
    assert [int(count.replace(",", "")) for count, _ in titles] == matrix.ravel().tolist()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    expected = [f"{100 * share:.0f}" if share >= 0.005 else "" for share in shares.ravel()]
    assert [shown for _, shown in titles] == expected


def test_the_table_of_the_images_equals_their_matrices(make, tmp_path):
    _, results, spec = make(5, compare=True)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    with np.load(tmp_path / "evaluate" / "per_image.npz") as stored:
        matrices = stored["confusion"]
    assert [row["image"] for row in rows] == ["im0", "im1", "im2", "im3"]
    assert matrices.sum(axis=0).tolist() == results["confusion_matrix"]
    for row, matrix in zip(rows, matrices, strict=True):
        assert float(row["M&M miou"]) == pytest.approx(metrics.mean_iou(matrix), abs=1e-6)
        assert float(row["M&M IoU background"]) == pytest.approx(
            metrics.per_class_iou(matrix)[0], abs=1e-6
        )
        assert row["naive miou"] and row["M&M IoU class <4>"] == ""


def test_many_classes_are_sorted_shortened_and_absent_ones_are_folded(make):
    text, results, _ = make(59)
    table = text[text.index('id="classes"') : text.index('id="confusion"')]
    shown = [float(x) for x in re.findall(r"<b>([\d.]+)</b>", table)]
    assert shown == sorted(shown, reverse=True) and len(shown) == 56
    assert "3 classes without true or predicted pixels" in table
    assert "36 other classes are left out" in text
    worst = confusion_table.pairs(np.array(results["confusion_matrix"]), _spec(59).class_names)
    assert f"<td>{worst[0].truth}".replace("<class", "") and len(worst) == 12


def test_the_page_needs_no_other_file_and_no_network(make):
    text, *_ = make(5)
    assert not re.search(r'(?:src|href)="(?!data:|#|doctor/)', text)
    assert "<script" not in text and "@import" not in text and "url(" not in text


def test_pictures_become_smaller_until_the_page_fits(make, monkeypatch):
    text, *_ = make(3, side=320)  # noise is the worst case of JPEG
    sizes = []
    for limit in (10_000_000, len(text.encode()) // 2):
        monkeypatch.setattr(page, "MAX_BYTES", limit)
        text, results, spec = make(3, side=320)
        sizes.append(len(text.encode()))
        assert sizes[-1] <= limit and text.count("<figure>") == 6
    assert sizes[1] < sizes[0]


def test_names_and_commands_are_escaped(make):
    text, *_ = make(5)
    assert "class <" not in text and "a <b>" not in text and "class &lt;1&gt;" in text


def test_settings_have_their_origins(make):
    text, *_ = make(5)
    assert _cells(text, "<tr><td><code>mm.margin</code>") == ["mm.margin", "1.5", "flag"]
    assert _cells(text, "<tr><td><code>mm.steps</code>") == ["mm.steps", "8000", "default"]


def _page_with(make, tmp_path, **changes):
    _, results, spec = make(5)
    page.write(tmp_path, spec, results | changes)
    return (tmp_path / "index.html").read_text()


PROBE = {
    "split": "val",
    "num_patches": 512,
    "start": {"probe_linear": 19.25, "probe_neighbor": 18.125},
    "end": {"probe_linear": 53.5, "probe_neighbor": 40.75},
    "seconds": 3.0,
}


def test_the_probe_has_a_curve_and_its_figures(make, tmp_path):
    lines = [{"step": 0, **PROBE["start"]}, {"step": 20, "loss": 2.0}, {"step": 40, **PROBE["end"]}]
    (tmp_path / "mm").mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "mm" / "metrics.jsonl").write_text(text)
    text = _page_with(make, tmp_path, probe=PROBE)
    table = text[text.index('id="probe"') :]
    assert _cells(table, "<tr><td>linear") == ["linear classifier", "19.2", "53.5"]
    assert _cells(table, "<tr><td>nearest") == ["nearest neighbor", "18.1", "40.8"]
    drawing = text[text.index("drawings probe") : text.index('id="probe"')]
    assert [len(p.split()) for p in re.findall(r'points="([^"]*)"', drawing)] == [2, 2]
    assert "probe_linear" not in text and "512 patches of val" in text


def test_a_probe_that_was_not_logged_has_its_figures_alone(make, tmp_path):
    text = _page_with(make, tmp_path, probe=PROBE)
    assert 'id="probe"' in text and "<polyline" not in text


def test_every_figure_of_the_pseudo_labels_equals_the_results(make, tmp_path):
    *_, spec = make(5)
    classes = {name: {"pixels": 0, "share_kept": None} for name in spec.class_names}
    classes["background"] = {"pixels": 123456, "share_kept": 0.875}
    counts = {"num_images": 9, "num_used": 5, "num_unsure": 2, "num_known": 1, "skipped": ["a"]}
    text = _page_with(
        make, tmp_path, pseudo_labels={**counts, "share_of_pixels": 0.4567, "classes": classes}
    )
    assert "5 of 9 images without masks are used, with 45.7 % of the pixels" in text
    assert "2 have too few confident pixels, 1 belong to the data set, 1 are unreadable" in text
    table = text[text.index('class="pseudo"') :]
    assert _cells(table, "<tr><td>background") == ["background", "123,456", "87.5"]
    assert _cells(table, "<tr><td>class &lt;1") == ["class &lt;1&gt;", "0", "-"]


def test_findings_of_the_data_check_are_on_the_page(make, tmp_path):
    (tmp_path / "doctor").mkdir()
    finding = {"severity": "warning", "problem": "rare <class>", "fix": "Add it.", "names": ["a"]}
    (tmp_path / "doctor" / "results.json").write_text(json.dumps({"findings": [finding]}))
    text = _page_with(make, tmp_path)
    assert "<b>warning</b>: 1 &times; rare &lt;class&gt;<br>Add it." in text


def test_costs_of_the_stages_equal_the_results(make):
    text, *_ = make(5)
    assert _cells(text, "<tr><td>M&amp;M evaluate") == ["M&amp;M evaluate", "1.2", "2"]


def test_a_run_of_an_older_version_has_a_page_without_pictures(make, tmp_path):
    _, results, spec = make(5)
    for name in ("per_image.npz", "examples.npz"):
        (tmp_path / "evaluate" / name).unlink()
    (tmp_path / "results.csv").unlink()
    del results["intervals"]
    page.write(tmp_path, spec, results)
    text = (tmp_path / "index.html").read_text()
    assert "no pictures are stored" in text.replace("\n", " ")
    assert not (tmp_path / "results.csv").exists()


def test_a_run_that_was_not_evaluated_has_no_page(tmp_path):
    page.write(tmp_path, _spec(3), {"stages": {}})
    assert not list(tmp_path.iterdir())
