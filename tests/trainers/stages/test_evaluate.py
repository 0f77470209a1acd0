"""Stage evaluate: its results and logs, and its scores compared with a plain script."""

import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

from pipelines import datasets
from pipelines.datasets import audit
from pipelines.datasets.sources import voc_sbd
from trainers import config
from trainers.runs import stage_scope
from trainers.stages import evaluate, find, predict
from trainers.training import networks


@pytest.fixture
def all_ground(monkeypatch):
    """Replace the predictor by one that predicts class 0 everywhere."""

    def class_ids(images):
        return types.SimpleNamespace(class_ids=tf.zeros(tf.shape(images)[:3], tf.int32))

    fake = types.SimpleNamespace(predict=class_ids)
    monkeypatch.setattr(networks, "predictor", lambda *_: fake)


def test_results_and_logs_have_all_scores(all_ground, make_runtime, tiny_dataset, tmp_path):
    run = make_runtime(tmp_path)
    experiment = config.replace(config.Experiment(), "evaluate.num_pictures", 2)
    stage_scope.run_stage(find("evaluate"), experiment, run)
    labels = np.stack(
        [example["label"].numpy() for example in datasets.examples(tiny_dataset.eval)]
    )
    ground, labelled = (labels == 0).sum(), (labels != 255).sum()
    results = run.result("evaluate")
    assert results["per_class_iou"] == {"ground": ground / labelled, "wall": 0, "sky": 0}
    assert results["confusion_matrix"][1] == [(labels == 1).sum(), 0, 0]
    assert 0 < results["boundary_iou"] < 1 and results["per_class_boundary_iou"]["sky"] == 0
    assert results["thin_iou"] is None and results["thin_share"] == 0  # blocks of 6 x 8 pixels
    events = event_accumulator.EventAccumulator(str(tmp_path / "evaluate" / "logs"))
    tags = events.Reload().Tags()["tensors"]
    pictures = {"evaluate/confusion", "evaluate/predictions"}
    scores = ("miou", "pixel_accuracy", "mean_accuracy", "boundary_iou")
    assert set(tags) == pictures | {f"evaluate/{name}" for name in scores}


@pytest.mark.parametrize(("predicted", "iou", "mean"), [(1, None, 1), (2, 0, (1 + 0.5 + 0) / 3)])
def test_a_class_without_pixels_counts_in_the_mean_if_it_is_predicted(predicted, iou, mean):
    """The data check states this rule in its finding."""
    truth, prediction = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, predicted]])
    results = evaluate.figures([(truth, prediction)], ("ground", "wall", "sky"), boundary=False)
    assert results["per_class_iou"]["sky"] == iou
    np.testing.assert_allclose(results["miou"], mean)
    assert "its IoU is 0 and counts" in audit.ABSENT_IN_EVALUATION.fix


def test_boundary_scores_can_be_disabled(all_ground, make_runtime, tmp_path):
    run = make_runtime(tmp_path)
    experiment = config.replace(config.Experiment(), "evaluate.boundary", False)
    stage_scope.run_stage(find("evaluate"), experiment, run)
    results = run.result("evaluate")
    assert "miou" in results and "boundary_iou" not in results and "thin_iou" not in results


@pytest.mark.slow
def test_scores_of_stored_voc_predictions_equal_a_plain_script(real_data, tmp_path, monkeypatch):
    """The predictions are the truth, moved by eleven pixels and with void replaced by class 0."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "records"))
    kit = real_data / "VOCdevkit" / "VOC2012"
    split = datasets.load("voc_sbd", real_data, train_split="val", eval_split="val").eval

    def moved(example):
        label = example["label"].numpy()
        return example["id"].numpy().decode(), np.roll(np.where(label == 255, 0, label), 11, 1)

    predict.write(tmp_path, map(moved, datasets.examples(split)), voc_sbd.SPEC)

    def stored():
        for example in datasets.examples(split):
            file = tmp_path / f"{example['id'].numpy().decode()}.png"
            yield example["label"].numpy(), np.asarray(Image.open(file))

    figures = evaluate.figures(stored(), voc_sbd.SPEC.class_names)

    names = (kit / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    histogram = np.zeros((21, 21))
    for name in names:
        truth = np.array(Image.open(kit / "SegmentationClass" / f"{name}.png")).ravel()
        found = np.array(Image.open(tmp_path / f"{name}.png")).ravel()
        np.add.at(histogram, (truth[truth < 21], found[truth < 21]), 1)
    hits = histogram.diagonal()
    present = histogram.sum(0) + histogram.sum(1) > 0
    ious = hits[present] / (histogram.sum(0) + histogram.sum(1) - hits)[present]
    assert abs(figures["miou"] - ious.mean()) < 1e-6
    assert 0.3 < figures["miou"] < 0.95
    assert figures["boundary_iou"] < figures["miou"]
    assert figures["thin_recall"] < figures["mean_accuracy"]
