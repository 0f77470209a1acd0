"""Probes of stage mm: their scores, warnings and files, and training as without them."""

import io
import json

import numpy as np
import pytest
import rich.console
import tensorflow as tf

from mm_keras import backbones
from pipelines import datasets
from trainers import config
from trainers.runs import runtime, stage_scope
from trainers.stages import find
from trainers.training import probe

SETTINGS = {
    "network.backbone": "testing",
    "mm.loss": "softmax",
    "mm.steps": 4,
    "mm.drops": (),
    "mm.num_images": 2,
    "mm.patches_per_image": 4,
    "mm.patch_size": 16,
    "mm.min_size": 8,
    "mm.max_size": 12,
    "mm.crop": 30,
    "mm.learning_rate": 1e-3,
    "mm.log_every": 1,
    "mm.checkpoint_every": 2,
    "mm.probe_every": 2,
    "mm.probe_patches": 64,
}


@pytest.fixture(scope="module")
def tune(tiny_data, tmp_path_factory):
    """Function(settings) -> (folder of stage mm, its results, its log)."""

    def run(**settings):
        folder = tmp_path_factory.mktemp("run")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("records")))
            dataset = datasets.load("folder", data_dir=tiny_data)
        settings = {f"mm.{key}": value for key, value in settings.items()}
        experiment = config.changed(config.Experiment(), SETTINGS | settings)
        experiment = config.changed(
            experiment, {"data.dataset": "folder", "data.data_dir": str(tiny_data)}
        )
        console = rich.console.Console(file=io.StringIO(), width=1000)
        here = runtime.Runtime(folder, dataset, console)
        stage_scope.run_stage(find("mm"), experiment, here)
        results = json.loads((folder / "mm" / "results.json").read_text())
        return folder / "mm", results, console.file.getvalue()

    return run


@pytest.fixture(scope="module")
def probed(tune):
    return tune()


def entries(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_features_are_scored_at_the_start_at_intervals_and_at_the_end(probed):
    folder, results, log = probed
    scored = [line["step"] for line in entries(folder) if "probe_linear" in line]
    assert scored == [0, 2, 4]
    first, *_, last = entries(folder)
    for line, name in ((first, "start"), (last, "end")):
        scores = results["probe"][name]
        assert scores == {key: line[key] for key in ("probe_linear", "probe_neighbor")}
        assert all(0 <= score <= 100 for score in scores.values())
    text = (
        f"mm: linear probe {last['probe_linear']:.1f} %, at the start {first['probe_linear']:.1f} %"
    )
    assert text in log and results["probe"]["num_patches"] == 64


def test_tensorboard_shows_the_scores_and_the_confusions(probed):
    (file,) = (probed[0] / "logs").glob("events*")
    tags = {
        (value.tag, event.step)
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert {("mm/probe_linear", step) for step in (0, 2, 4)} <= tags
    assert ("mm/probe_confusion", 4) in tags


@pytest.mark.slow
def test_a_probe_changes_no_weight_and_no_metric(probed, tune):
    folder, results, _ = tune(probe_every=0)
    assert "probe" not in results
    ours, theirs = (
        [{k: v for k, v in line.items() if "probe" not in k} for line in entries(where)]
        for where in (probed[0], folder)
    )
    assert ours[1:] == theirs
    weights = [(where / "backbone.weights.h5").read_bytes() for where in (probed[0], folder)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_stage_without_a_gain_is_reported(tune):
    _, _, log = tune(learning_rate=0.0, steps=1, probe_every=1)
    assert "no better than the first ones (guessing gives 33.3 %)" in log


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["pixel_contrast", "supcon+proxy_anchor"])
def test_heads_are_no_part_of_the_weights_that_are_passed_on(tune, loss):
    folder, results, _ = tune(loss=loss, num_points=16)
    assert "probe" in results and all(np.isfinite(e.get("loss", 0)) for e in entries(folder))
    backbone = backbones.build("testing")
    before = backbone.get_layer("conv1_1").kernel.numpy()
    backbone.load_weights(folder / "backbone.weights.h5")
    assert np.any(before != backbone.get_layer("conv1_1").kernel.numpy())


@pytest.mark.slow
def test_a_short_stage_is_not_probed(tune):
    folder, results, _ = tune(steps=1)
    assert "probe" not in results and [line["step"] for line in entries(folder)] == [1]


def test_a_gain_is_more_than_two_standard_errors():
    labels = np.repeat([0, 1], 50)
    wrong = 1 - labels
    assert probe.is_gain(labels, wrong, labels)
    assert not probe.is_gain(labels, labels, labels) and not probe.is_gain(labels, labels, wrong)
    for num_better, expected in ((1, False), (3, True)):  # 2 % +- 2 * 1.4 %, 6 % +- 2 * 2.4 %
        better = np.where(np.arange(100) % 50 < num_better, labels, wrong)
        assert probe.is_gain(labels, wrong, better) is expected
