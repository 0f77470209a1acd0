"""Stage proxy: the tasks, the images that they use, and the files of the stage."""

import io
import json
import shutil

import numpy as np
import pytest
import rich.console
import tensorflow as tf
from PIL import Image

from mm_keras import backbones
from pipelines import datasets
from trainers import config
from trainers.runs import runtime, stage_scope
from trainers.stages import find, proxy
from trainers.training import proxy_tasks

KEYS = {
    "network.backbone": "testing",
    **{
        f"{task}.{key}": value
        for task in config.PROXIES
        for key, value in (("steps", 3), ("drops", ()), ("num_images", 2), ("log_every", 1))
    },
    "colorization.crop": 32,
    "colorization.num_points": 16,
    "jigsaw.shorter_side": None,
    "jigsaw.cell": 16,
    "jigsaw.tile": 12,
    "jigsaw.num_permutations": 5,
    "color_classes.crop": 32,
    "color_classes.shorter_side": None,
    "split_brain.crop": 80,
    "split_brain.shorter_side": None,
    "context_prediction.patch": 12,
    "context_prediction.gap": 4,
    "context_prediction.jitter": 2,
    "context_encoder.crop": 32,
    "context_encoder.shorter_side": None,
    "context_encoder.decoder": (4,),
    "bigan.crop": 32,
    "bigan.side": 16,
    "bigan.num_codes": 4,
    "bigan.channels": 4,
    "bigan.statistics_steps": 0,
    "mm.crop": 32,
}
FIGURES = {
    "colorization": {f"{n}{m}_cross_entropy" for n in ("hue", "chroma") for m in ("", "_mean")},
    "jigsaw": {"accuracy", "chance"},
    "context_prediction": {"accuracy", "chance"},
    "context_encoder": {
        f"{name}_error" for name in ("hole", "fill", "mean_fill", "visible_fill", "nearest_fill")
    },
    "bigan": {
        "reconstruction_ratio",
        "other_image_ratio",
        "sample_deviation",
        "collapsed_deviation",
    },
    "split_brain": {
        f"{name}{kind}_cross_entropy" for name in ("color", "lightness") for kind in ("", "_prior")
    },
    "color_classes": {"color_cross_entropy", "color_prior_cross_entropy", "color_auc", "gray_auc"},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Twenty images, two of them gray."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for k in range(20):
        pixels = rng.integers(0, 256, (50, 60, 1 if k < 2 else 3), "uint8")
        Image.fromarray(pixels.repeat(3 // pixels.shape[2], axis=2)).save(folder / f"{k}.png")
    return folder


def _experiment(init, folder):
    experiment = config.Experiment()
    network = {"network.backbone": "alexnet", "network.width": 1 / 32}
    for key, value in (
        KEYS | {"network.init": init} | (network if init == "split_brain" else {})
    ).items():
        experiment = config.replace(experiment, key, value)
    return config.replace(experiment, "data.unlabelled_dir", str(folder) if folder else None)


def _runtime(workdir, files=()):
    split = datasets.Split("train", tuple(files), tuple(files), (), (), 50)
    spec = datasets.DatasetSpec("made", ("a", "b"), ((0, 0, 0), (1, 1, 1)), None, "")
    dataset = datasets.Dataset(spec, split, split, ())
    console = rich.console.Console(file=io.StringIO(), width=1000)
    return runtime.Runtime(workdir, dataset, console)


def test_every_task_has_settings_and_an_entry():
    assert list(proxy_tasks.TASKS) == list(config.PROXIES)
    for name, task in proxy_tasks.TASKS.items():
        assert isinstance(getattr(config.Experiment(), name), config.ProxyTask)
        assert task.pixels in backbones.PIXELS


QUICKEST = ("jigsaw",)
"""The tasks that the default tests train."""


@pytest.mark.parametrize(
    "init",
    [
        pytest.param(init, marks=() if init in QUICKEST else pytest.mark.slow)
        for init in config.PROXIES
    ],
)
def test_a_task_trains_and_writes_weights_scores_and_a_picture(init, images, tmp_path):
    run = _runtime(tmp_path)
    stage_scope.run_stage(find("proxy"), _experiment(init, images), run)
    assert (run.folder("proxy") / "backbone.weights.h5").exists()
    assert set(run.result("proxy")["figures"]) == FIGURES[init]
    lines = (run.folder("proxy") / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    text = run.console.file.getvalue()
    needs_color = proxy_tasks.TASKS[init].needs_color
    assert f"{18 if needs_color else 20} of 20 unlabelled images are used" in text
    assert ("Left out 2 gray images" in text) == needs_color
    assert any("held_out" in tag for tag in _tags(run.folder("proxy") / "logs"))


@pytest.mark.slow
@pytest.mark.parametrize("init", config.PROXIES)
def test_a_task_runs_on_three_images(init, images, tmp_path):
    (tmp_path / "few").mkdir()
    for k in (4, 5, 6):
        shutil.copy(images / f"{k}.png", tmp_path / "few")
    run = _runtime(tmp_path / "run")
    stage_scope.run_stage(find("proxy"), _experiment(init, tmp_path / "few"), run)
    assert set(run.result("proxy")["figures"]) == FIGURES[init]


def test_weights_that_cannot_be_scored_are_kept_with_a_warning(images, tmp_path, monkeypatch):
    def measure(*_):
        raise ValueError("No point has any color.")

    monkeypatch.setattr(proxy_tasks.Jigsaw, "measure", measure)
    run = _runtime(tmp_path)
    stage_scope.run_stage(find("proxy"), _experiment("jigsaw", images), run)
    assert run.result("proxy")["figures"] == {}
    assert run.needed("proxy", "backbone.weights.h5").exists()
    assert "warning: the weights were not scored: No point has any color" in (
        run.console.file.getvalue()
    )


def _tags(folder):
    (file,) = folder.glob("events*")
    return [
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    ]


def test_the_training_images_are_the_default(images, tmp_path):
    files = sorted(str(file) for file in images.glob("*.png"))
    run = _runtime(tmp_path, files)
    train, held_out = proxy._files(_experiment("jigsaw", None), run, proxy_tasks.Jigsaw)
    assert sorted((*train, *held_out)) == files and len(held_out) == 2
    assert (
        "18 training images of texture_scenes; measured on 2 others" in run.console.file.getvalue()
    )


def test_a_folder_without_images_is_a_config_error(tmp_path):
    with pytest.raises(config.ConfigError, match="No images in"):
        proxy._files(_experiment("jigsaw", tmp_path), _runtime(tmp_path), proxy_tasks.Jigsaw)


@pytest.mark.parametrize("init", [name for name, t in proxy_tasks.TASKS.items() if t.needs_color])
def test_gray_images_alone_are_a_config_error_for_tasks_with_colors(init, tmp_path):
    for k in range(3):
        pixels = np.full((9, 9, 3), 50 * k, "uint8")
        Image.fromarray(pixels if k else pixels[..., 0]).save(tmp_path / f"{k}.png")
    with pytest.raises(config.ConfigError, match="None of 3 .*1 stored as gray, 2 stored in color"):
        proxy.run(_experiment(init, tmp_path), _runtime(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("init", config.PROXIES)
def test_images_of_a_few_pixels_are_enlarged_or_padded(init, tmp_path):
    rng = np.random.default_rng(0)
    for k in range(20):
        pixels = rng.integers(0, 256, (1 + k % 3, 1 + k % 2, 3), "uint8")
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    run = _runtime(tmp_path / "run")
    stage_scope.run_stage(find("proxy"), _experiment(init, tmp_path), run)
    assert np.all(np.isfinite(list(run.result("proxy")["figures"].values())))


@pytest.mark.parametrize(("num_files", "num_shown"), [(3, 258), (30, 256), (300, 288)])
def test_few_images_give_several_puzzles_each(num_files, num_shown):
    class Recorder:
        def batches(self, files, order):
            return files, order

    _, order = proxy_tasks._once(Recorder(), ["a"] * num_files, least=256)
    assert order.num_images * order.num_steps == num_shown


@pytest.mark.parametrize(("num_files", "num_shown"), [(1, 1), (7, 7), (16, 16), (34, 32)])
def test_each_held_out_image_is_measured_at_most_once(num_files, num_shown):
    class Recorder:
        def batches(self, files, order):
            return files, order

    files, order = proxy_tasks._once(Recorder(), ["a"] * num_files)
    assert order.num_images * order.num_steps == num_shown <= len(files)


@pytest.mark.parametrize(
    ("figures", "names"),
    [
        ({"accuracy": 0.3, "chance": 0.04}, []),
        ({"accuracy": 0.03, "chance": 0.04}, ["accuracy"]),
        ({"hue_cross_entropy": 2.0, "hue_mean_cross_entropy": 2.5}, []),
        ({"hue_cross_entropy": 2.5, "hue_mean_cross_entropy": 2.5}, ["hue"]),
        ({"chroma_cross_entropy": float("nan"), "chroma_mean_cross_entropy": 2.5}, ["chroma"]),
    ],
)
def test_a_score_that_a_guess_reaches_is_reported(figures, names):
    assert [text.split()[0] for text in proxy.not_better(figures)] == names


def test_pairs_are_arranged_around_the_middle():
    found = proxy_tasks._arranged(np.array([0, 7]))
    assert found[:, :2].tolist() == [[4, 0], [4, 8]]
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(9), (2, 1)))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("context_prediction.jitter", 3, r"half of the gap.*section context_prediction"),
        ("bigan.crop", 8, r"Crops of 8 pixels leave no cell.*section bigan"),
    ],
)
def test_settings_that_a_task_refuses_are_a_config_error(images, tmp_path, key, value, message):
    experiment = config.replace(_experiment(key.partition(".")[0], images), key, value)
    network = {"network.backbone": "alexnet_one_column", "network.width": 0.05}
    experiment = config.changed(experiment, network)
    with pytest.raises(config.ConfigError, match=message):
        proxy.run(experiment, _runtime(tmp_path))
