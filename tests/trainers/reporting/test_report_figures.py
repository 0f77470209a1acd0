"""Figures of a report, on made-up runs and made-up measurements."""

import types

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from pipelines import datasets
from trainers import config
from trainers.config import presets
from trainers.reporting import report_figures
from trainers.runs import finished as finished_runs

NAMES = ("road", "car", "sky")
IDS = ("a", "b", "c", "d", "e")
OPTIONS = report_figures.Options(num_images=2, num_patches=24)


@pytest.fixture
def measured(monkeypatch):
    """Names of the measurements that the figures use, made-up ones of five images."""
    rng, calls = np.random.default_rng(0), []

    def backbone(kind):
        return lambda run, dataset: calls.append((kind, run.variant)) or (kind, run.variant)

    fake = types.SimpleNamespace(
        per_image_confusions=lambda run, dataset: rng.integers(1, 9, (5, 3, 3)),
        image_mious=lambda confusions: np.array([0.5, 0.1, np.nan, 0.3, 0.2]),
        images=lambda dataset, numbers: [_image(k) for k in numbers],
        predictions=lambda run, dataset, numbers: [_image(k)[1] for k in numbers],
        patches=lambda experiment, dataset, number: (None, np.arange(number) % 3, None),
        initial_backbone=backbone("initial"),
        tuned_backbone=backbone("tuned"),
        fine_tuned_backbone=backbone("fine-tuned"),
        embeddings=lambda backbone, pixels: rng.normal(size=(24, 4)),
        neighbor_agreement=lambda points, labels, positions: 0.25,
    )
    monkeypatch.setattr(report_figures, "measurements", fake)
    return calls


def _image(number):
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (12, 16, 3), "uint8"), rng.integers(0, 3, (12, 16), "uint8")


@pytest.fixture
def dataset(monkeypatch):
    """The settings with which the data set was loaded; five images of three classes."""
    loaded = []
    colors = ((128, 64, 128), (0, 0, 142), (70, 130, 180))
    spec = datasets.DatasetSpec("made", NAMES, colors, None, "")
    split = types.SimpleNamespace(ids=IDS, title="val", num_images=5)
    made = types.SimpleNamespace(spec=spec, eval=split)
    monkeypatch.setattr(
        report_figures, "load_dataset", lambda data, channels: loaded.append(data) or made
    )
    return loaded


@pytest.fixture
def make_runs(make_run, tmp_path):
    """Function(name, *variants) -> runs of preset tuned with IoUs of three classes."""

    def make(name, *variants, seed=0, **changes):
        experiment = config.replace(presets.experiment("tuned"), "seed", seed)
        for key, value in changes.items():
            experiment = config.replace(experiment, key.replace("__", "."), value)
        ious = {"road": 0.6, "car": 0.4, "sky": None}
        folder = tmp_path / "runs" / name
        for variant in variants:
            make_run(folder, experiment, 0.5, ious, variant, (4, 5), seconds=300.0)
        return finished_runs.find([folder])

    return make


def _draw(runs, output, options=OPTIONS):
    output.mkdir()
    lines = []
    paths = list(report_figures.draw(runs, output, options, lines.append))
    assert all(path.exists() for path in paths)
    return [path.name for path in paths], lines


@pytest.mark.slow
def test_a_pair_of_variants_has_all_figures(measured, dataset, make_runs, tmp_path):
    names, lines = _draw(make_runs("pair", "", "naive"), tmp_path / "report")
    kinds = ("per-class", "examples", "worst", "patches", "patches-fine-tuned")
    assert names == [f"pair-{kind}.png" for kind in kinds] and not lines
    assert measured == [("initial", ""), ("tuned", ""), ("fine-tuned", "naive"), ("fine-tuned", "")]


def test_a_naive_run_has_galleries_only(measured, dataset, make_runs, tmp_path):
    names, _ = _draw(make_runs("alone", "", mm__steps=0), tmp_path / "report")
    assert names == ["alone-examples.png", "alone-worst.png"] and not measured


def test_galleries_show_the_requested_images(measured, dataset, make_runs, tmp_path, monkeypatch):
    galleries = []

    def gallery(images, labels, columns, *_, captions):
        galleries.append(captions)
        assert list(columns) == ["baseline", "M&M"] and len(images) == len(labels) == 2
        return np.zeros((4, 4, 3), "uint8")

    monkeypatch.setattr(report_figures.visualize, "segmentation_gallery", gallery)
    report = tmp_path / "report"
    _draw(make_runs("pair", "", "naive"), report)
    examples, worst = galleries
    assert worst == [
        f"{id}: mIoU baseline {miou}, M&M {miou}" for id, miou in (("b", "10.0"), ("e", "20.0"))
    ]
    assert [caption[0] for caption in examples] == [IDS[k] for k in datasets.spread(2, 5)]
    assert np.asarray(Image.open(report / "pair-worst.png")).shape == (4, 4, 3)


def test_the_folder_of_the_data_set_can_be_replaced(measured, dataset, make_runs, tmp_path):
    runs = make_runs("alone", "", mm__steps=0, data__data_dir="recorded")
    _draw(runs, tmp_path / "a")
    _draw(runs, tmp_path / "b", report_figures.Options(data_dir="given", num_images=1))
    assert [data.data_dir for data in dataset] == ["recorded", "given"]


def test_figures_are_left_out_without_the_data_set(make_runs, tmp_path, monkeypatch):
    def fail(data, channels):
        raise config.ConfigError("there is no such folder")

    monkeypatch.setattr(report_figures, "load_dataset", fail)
    names, lines = _draw(make_runs("pair", "", "naive"), tmp_path / "report")
    assert names == [] and "pair: no figures" in lines[0] and "no such folder" in lines[0]


def test_runs_of_several_graph_sizes_have_one_figure(measured, dataset, make_runs, tmp_path):
    runs = make_runs("small", "") + make_runs("large", "", mm__num_images=16)
    points = []
    original = report_figures.plots.graph_sizes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            report_figures.plots,
            "graph_sizes",
            lambda *arguments: points.append(arguments) or original(*arguments),
        )
        names, _ = _draw(runs, tmp_path / "report")
    assert names[0] == "graph-sizes-1.png"
    nodes, mious, seconds, title = points[0]
    assert (nodes, mious, seconds) == ([24, 192], [50.0, 50.0], [0.375, 0.375])
    assert title == "texture_scenes, vgg16 from random"


def test_bars_of_several_seeds_have_deviations(measured, dataset, make_runs, tmp_path, monkeypatch):
    runs = [
        run
        for seed in (0, 1)
        for run in make_runs(f"study/tuned/seed{seed}", "", "naive", seed=seed)
    ]
    bars = []
    original = report_figures.plots.per_class_bars

    def per_class_bars(*arguments, **options):
        bars.append((arguments, options))
        return original(*arguments, **options)

    monkeypatch.setattr(report_figures.plots, "per_class_bars", per_class_bars)
    _draw(runs, tmp_path / "report")
    ((_, _, series, deviations), options), *_ = bars
    np.testing.assert_allclose(series["M&M"], [60, 40, np.nan])
    np.testing.assert_allclose(deviations["M&M"], [0, 0, np.nan])
    assert options["title"].endswith("means and standard deviations of 2 seeds")


@pytest.mark.slow
def test_every_figure_of_a_pair_of_real_networks_is_drawn(finished, tmp_path):
    runs, _ = finished
    lines = []
    options = report_figures.Options(num_images=3, num_patches=24)
    paths = list(report_figures.draw(runs, tmp_path, options, lines.append))
    names = ("per-class", "examples", "worst", "patches", "patches-fine-tuned")
    assert [path.name for path in paths] == [f"pair-{name}.png" for name in names]
    assert all(path.stat().st_size > 5000 for path in paths) and not lines
