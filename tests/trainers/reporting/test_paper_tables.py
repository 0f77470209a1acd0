"""The paper's tables: published numbers, and our results in the right cells only."""

import csv
import io
import json
import statistics

import pytest

from trainers.config import paper_cells, presets
from trainers.reporting import paper_tables
from trainers.runs import finished


def cells(text, number):
    """{row labels: [texts]} of a table of the report."""
    lines = text.split(f"Table {number}:")[1].split("\n\n")[1].splitlines()
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    return rows[0], rows[2:]


def found(*folders):
    return finished.find(folders)


def test_the_published_numbers_agree_with_each_other():
    """The mIoU of Table 2 includes background, which has no column. The IoU of background that
    follows from the other numbers must be plausible.
    """
    for method in {cell.row for cell in paper_cells.CELLS if cell.table == 2}:
        row = [cell for cell in paper_cells.CELLS if cell.row == method]
        assert [cell.column for cell in row] == [*paper_cells.CLASSES_OF_TABLE_2, "mIoU"]
        classes, miou = [cell.paper for cell in row[:-1]], row[-1].paper
        assert [cell.class_number for cell in row] == [*range(1, 21), None]
        assert 85 < 21 * miou - sum(classes) < 96
    both = {(c.row, c.column): c.paper for c in paper_cells.CELLS if c.table == 3}
    assert both[("VOC2012", "AlexNet", "random"), "baseline"] == 19.8
    assert both[("VOC2012", "AlexNet", "random"), "M&M"] == 43.6
    assert both[("Cityscapes", "VGG-16", "colorization"), "M&M"] == 66.4
    assert both[("Cityscapes", "VGG-16", "random"), "ImageNet"] == 67.9
    first = {c.row: c.paper for c in paper_cells.CELLS if c.table == 1}
    assert first["AlexNet", "k-means"] == 32.6 and len(first) == 17
    assert first["AlexNet", "M&M, random triplets, from colorization"] == 40.9


def test_columns_of_our_results_are_empty_without_a_fitting_run(make_preset_run):
    runs = found(make_preset_run("quick", "tuned", 0.3))
    text = paper_tables.paper_tables(runs)
    head, rows = cells(text, 3)
    assert head[3:] == [
        "baseline paper",
        "baseline ours",
        "M&M paper",
        "M&M ours",
        "ImageNet paper",
        "ImageNet ours",
    ]
    assert rows[0] == ["VOC2012", "AlexNet", "random", "19.8", "", "43.6", "", "48.0", ""]
    lines = list(csv.DictReader(io.StringIO(paper_tables.paper_csv(runs))))
    assert len(lines) == 17 + 4 * 21 + 7 * 3
    assert {(line["ours"], line["num_runs"]) for line in lines} == {("", "0")}
    assert not paper_tables.is_in_the_paper(runs[0])


def test_results_fill_their_cells(make_preset_run):
    tuned = make_preset_run("a", "table3/voc-vgg16-random", 0.55)
    make_preset_run("a", "table3/voc-vgg16-random", 0.333, variant="naive")
    runs = found(tuned)
    assert [run.kind for run in runs] == [presets.TUNED, presets.NAIVE]
    _, rows = cells(paper_tables.paper_tables(runs), 3)
    filled = [row for row in rows if row[4] or row[6] or row[8]]
    assert filled == [
        ["VOC2012", "VGG-16", "random", "35.0", "33.3", "56.7", "55.0", "64.2", ""],
    ]
    _, rows = cells(paper_tables.paper_tables(runs), 1)  # the same network stands in Table 1
    assert [row for row in rows if row[3]] == [["VGG-16", "random", "35.0", "33.3"]]


def test_class_ious_fill_the_columns_of_their_classes(make_preset_run):
    ious = {"background": 0.9} | {f"class{k}": k / 100 for k in range(1, 21)}
    folder = make_preset_run("a", "table2/vgg16-colorization", 0.5, ious=ious)
    head, rows = cells(paper_tables.paper_tables(found(folder)), 2)
    ours = {(row[0], row[1]): row[2:] for row in rows}
    assert head[2:] == [*paper_cells.CLASSES_OF_TABLE_2, "mIoU"]
    assert ours["M&M", "ours"] == [*(f"{k}.0" for k in range(1, 21)), "50.0"]
    assert ours["M&M", "paper"][:2] == ["83.1", "37.0"]
    assert ours["colorization", "ours"] == [""] * 21


def test_several_seeds_are_averaged(make_preset_run):
    values = (0.40, 0.42, 0.47)
    folders = [
        make_preset_run(f"s{seed}", "table1/alexnet-random", value, seed=seed)
        for seed, value in enumerate(values)
    ]
    cell = next(c for c in paper_cells.CELLS if c.row == ("AlexNet", "M&M, graph, from random"))
    figure = paper_tables.figure(cell, found(*folders))
    assert figure.values == pytest.approx([40, 42, 47])
    assert figure.text == f"43.0 ± {statistics.stdev([40, 42, 47]):.1f} (3 runs)"
    line = next(
        line
        for line in csv.DictReader(io.StringIO(paper_tables.paper_csv(found(*folders))))
        if line["preset"] == "table3/voc-alexnet-random" and line["column"] == "M&M"
    )
    assert (line["ours"], line["num_runs"], line["paper"]) == ("43.00", "3", "43.6")
    assert line["ours_sd"] == f"{statistics.stdev([40, 42, 47]):.2f}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"network__width": 0.25}, "network.width 0.25 instead of 1.0"),
        ({"mm__steps": 4000}, "mm.steps 4000 instead of 8000"),
        ({"evaluate__protocol": "native"}, "evaluate.protocol native instead of pascal"),
        ({"data__holdout": 60}, "data.holdout 60 instead of 0"),
        ({"facts": (1464, 1449)}, "num_train_images 1464 instead of 10582"),
        ({"facts": (10582, 160)}, "num_eval_images 160 instead of 1449"),
    ],
)
def test_a_run_with_other_settings_fills_no_cell_and_the_differing_key_is_named(
    make_preset_run, changes, reason
):
    (run,) = found(make_preset_run("a", "table3/voc-vgg16-random", 0.5, **changes))
    assert not paper_tables.is_in_the_paper(run)
    assert reason in paper_tables.near_miss(run) and "vgg16-random" in paper_tables.near_miss(run)


def test_settings_of_mm_are_ignored_for_runs_without_mm(make_preset_run):
    naive = make_preset_run("a", "table3/voc-vgg16-random", 0.35, variant="naive", mm__margin=1.0)
    no_steps = make_preset_run("b", "table3/voc-vgg16-random", 0.36, mm__steps=0, mm__drops="")
    cell = next(c for c in paper_cells.CELLS if c.row == ("VGG-16", "random"))
    assert paper_tables.figure(cell, found(naive, no_steps)).values == pytest.approx([35, 36])


def test_paths_and_logging_intervals_are_ignored(make_preset_run):
    (run,) = found(
        make_preset_run(
            "a",
            "table3/cityscapes-vgg16-random",
            0.5,
            facts=(2975, 500),
            data__data_dir="/elsewhere",
            mm__log_every=3,
            seed=7,
        )
    )
    assert paper_tables.departures(run, "table3/cityscapes-vgg16-random", presets.TUNED) == {}
    assert paper_tables.departures(run, "table3/cityscapes-vgg16-random", presets.NAIVE) is None


def test_settings_of_a_pretext_task_are_compared_only_for_runs_that_trained_it(make_preset_run):
    folder = make_preset_run("a", "table3/voc-alexnet-colorization", 0.4)
    (trained_here,) = found(folder)
    assert trained_here.recorded["colorization.fc6_size"] == 6
    path = folder / "evaluate" / "config.json"
    others = {k: v for k, v in trained_here.recorded.items() if not k.startswith("colorization.")}
    path.write_text(json.dumps(others))
    (published,) = found(folder)
    path.write_text(json.dumps(trained_here.recorded | {"colorization.steps": 9}))
    (short,) = found(folder)
    name = "table3/voc-alexnet-colorization"
    assert paper_tables.departures(trained_here, name, presets.TUNED) == {}
    assert paper_tables.departures(published, name, presets.TUNED) == {}
    assert paper_tables.departures(short, name, presets.TUNED) == {
        "colorization.steps": (9, 100000)
    }


def test_a_quick_run_is_close_to_no_cell(make_preset_run):
    (run,) = found(make_preset_run("a", "tuned", 0.3))
    assert paper_tables.near_miss(run) == ""


def test_the_plain_table_has_settings_and_scores_of_each_run(make_preset_run):
    runs = found(make_preset_run("a", "tuned", 0.3, data__dataset="camvid", data__holdout=60))
    head, _, row = [
        [part.strip() for part in line.strip("|").split("|")]
        for line in paper_tables.plain_table(runs).splitlines()
    ]
    line = dict(zip(head, row, strict=True))
    assert line["data set"] == "camvid, 60 held out" and line["network"] == "vgg16 x0.25"
    assert (line["mIoU"], line["pixel accuracy"], line["nodes"]) == ("30.0", "90.0", "24")
    assert (line["seconds"], line["M&M steps"], line["seed"]) == ("30", "800", "0")


def test_markdown_columns_have_equal_width():
    text = paper_tables.markdown(["a", "long head"], [["1", "2"], ["wide cell", ""]])
    assert {len(line) for line in text.splitlines()} == {len("| wide cell | long head |")}


def make_ensemble(folder, members, miou=0.66):
    """Write the files of an ensemble; its record has the settings of the members by folder."""
    recorded = {"ensemble": [str(member.folder) for member in members]}
    for member in members:
        recorded |= {f"{member.folder} {key}": value for key, value in member.recorded.items()}
    first = members[0].recorded
    shared = ("data.", "evaluate.", "classes", "num_")
    recorded |= {key: value for key, value in first.items() if key.startswith(shared)}
    results = {"miou": miou, "per_class_iou": dict.fromkeys(first["classes"], miou)}
    place = folder / "evaluate"
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(recorded))
    (place / "results.json").write_text(json.dumps(results | {"seconds": 1.0, "peak_bytes": 1}))
    return folder


def test_the_papers_ensemble_is_recognized_by_its_members(make_preset_run, tmp_path):
    (imagenet,) = found(make_preset_run("i", "table2/vgg16-imagenet", 0.6))
    (tuned,) = found(make_preset_run("t", "table2/vgg16-colorization", 0.6))
    (other,) = found(make_preset_run("o", "table2/vgg16-colorization", 0.6, mm__steps=4000))
    cell = next(
        c for c in paper_cells.CELLS if c.variant == presets.ENSEMBLE and c.column == "mIoU"
    )
    for name, members, values in (
        ("right", [tuned, imagenet], (66,)),
        ("wrong", [other, imagenet], ()),
        ("twice", [tuned, tuned], ()),
        ("three", [tuned, imagenet, imagenet], ()),
    ):
        runs = found(make_ensemble(tmp_path / name, members))
        assert runs[0].kind == presets.ENSEMBLE
        assert paper_tables.figure(cell, runs).values == pytest.approx(values)
        assert (
            "ensemble of" in paper_tables.plain_table(runs)
            and paper_tables.near_miss(runs[0]) == ""
        )
        assert finished.compare(runs) == finished.graph_studies(runs) == []
