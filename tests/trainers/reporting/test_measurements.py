"""What is measured on finished runs, against stage evaluate and plain loops."""

import dataclasses
import io

import keras
import numpy as np
import pytest
import rich.console

from mm_keras import metrics
from trainers import config, report
from trainers.config import presets
from trainers.reporting import measurements
from trainers.runs import files, runtime, stage_scope
from trainers.runs import finished as finished_runs
from trainers.runs.dataset import load_dataset
from trainers.stages import find
from trainers.training import networks

SETTINGS = {
    "network.backbone": "testing",
    "network.width": 1.0,
    "data.shorter_side": 48,
    "data.num_train_images": 6,
    "data.holdout": 4,
    "mm.steps": 1,
    "mm.patch_size": 32,
    "evaluate.num_pictures": 1,
}


def _experiment():
    experiment = presets.experiment("quick")
    for key, value in SETTINGS.items():
        experiment = config.replace(experiment, key, value)
    return experiment


def _save_networks(experiment, run):
    """Weights as the stages leave them, each with traits of its own."""
    backbone = networks.backbone(experiment)
    _shake(backbone, 1)
    files.save_weights(backbone, run.folder("mm") / "backbone.weights.h5")
    segmenter = networks.segmenter(experiment, run.dataset.spec.num_classes)
    _shake(segmenter, 2)
    files.save_weights(segmenter, run.folder("segment") / "segmenter.weights.h5")


def _shake(model, seed):
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(variable.numpy() + rng.normal(0, 0.1, variable.shape))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(run, dataset) of a pair of arms whose stage evaluate is done."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(folder / "records"))
        experiment = _experiment()
        dataset = load_dataset(experiment.data)
    experiment = config.resolve(experiment, dataset.train.shorter_side)
    console = rich.console.Console(file=io.StringIO())
    tuned = runtime.Runtime(folder / "pair", dataset, console)
    naive = tuned.naive()
    for stage, run in (("mm", tuned), ("segment", tuned), ("segment", naive)):
        untrained = dataclasses.replace(find(stage), run=lambda *_: {})
        stage_scope.run_stage(untrained, experiment, run)
    _save_networks(experiment, tuned)
    segmenter = networks.segmenter(experiment, dataset.spec.num_classes)
    _shake(segmenter, 3)
    files.save_weights(segmenter, naive.folder("segment") / "segmenter.weights.h5")
    for run in (tuned, naive):
        stage_scope.run_stage(find("evaluate"), experiment, run)
    yield finished_runs.find([folder / "pair"]), dataset
    keras.backend.clear_session()


def test_images_add_up_to_what_stage_evaluate_found(finished):
    (run, naive), dataset = finished
    confusions = measurements.per_image_confusions(run, dataset)
    assert confusions.shape == (4, 9, 9) and confusions.dtype == np.int32
    assert confusions.sum(axis=0).tolist() == run.results["confusion_matrix"]
    assert not np.array_equal(confusions, measurements.per_image_confusions(naive, dataset))
    path = run.folder / "evaluate" / "per_image.npz"
    written = path.stat().st_mtime_ns
    np.testing.assert_array_equal(measurements.per_image_confusions(run, dataset), confusions)
    assert path.stat().st_mtime_ns == written


def test_predictions_belong_to_their_images(finished):
    (run, _), dataset = finished
    confusions = measurements.per_image_confusions(run, dataset)
    numbers = [2, 0]
    pairs = measurements.images(dataset, numbers)
    for (_, label), prediction, number in zip(
        pairs, measurements.predictions(run, dataset, numbers), numbers, strict=True
    ):
        matrix = metrics.ConfusionMatrix(9)
        matrix.update_state(label, prediction)
        np.testing.assert_array_equal(matrix.result(), confusions[number])
    mious = measurements.image_mious(confusions)
    assert mious[2] == pytest.approx(metrics.mean_iou(confusions[2])) and len(mious) == 4


def test_matrices_of_other_weights_are_refused(finished, tmp_path):
    (run, _), dataset = finished
    wrong = finished_runs.Run(run.workdir, run.variant, run.recorded, {"miou": 0.9}, run.costs)
    with pytest.raises(config.UserError, match="stage evaluate found 90.00"):
        measurements.per_image_confusions(wrong, dataset)


def test_patches_come_from_the_evaluated_images(finished):
    (run, _), dataset = finished
    pixels, labels = measurements.patches(run.experiment(), dataset, 24)
    assert pixels.shape == (24, 32, 32, 3) and pixels.dtype == np.uint8
    seen = {int(k) for _, label in measurements.images(dataset, range(4)) for k in np.unique(label)}
    assert set(labels.tolist()) <= seen - {255} and len(set(labels.tolist())) > 1
    few, _ = measurements.patches(run.experiment(), dataset, 3)
    assert len(few) == 3


def test_embeddings_before_and_after(finished):
    (run, naive), dataset = finished
    pixels, labels = measurements.patches(run.experiment(), dataset, 24)
    networks_by_name = {
        "initial": measurements.initial_backbone(run, dataset),
        "tuned": measurements.tuned_backbone(run, dataset),
        "fine-tuned": measurements.fine_tuned_backbone(run, dataset),
        "naive": measurements.fine_tuned_backbone(naive, dataset),
    }
    points = {name: measurements.embeddings(b, pixels) for name, b in networks_by_name.items()}
    for name, values in points.items():
        assert len(values) == 24
        np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-5)
        others = [other for key, other in points.items() if key != name]
        assert not any(np.allclose(values, other) for other in others)


def test_neighbors_by_plain_loops():
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(30, 5)), rng.integers(0, 3, 30)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    right = 0
    for i in range(30):
        distances = [np.sum((points[i] - points[j]) ** 2) for j in range(30)]
        distances[i] = np.inf
        right += labels[np.argmin(distances)] == labels[i]
    assert measurements.neighbor_agreement(points, labels) == pytest.approx(right / 30)


@pytest.mark.slow
def test_every_figure_of_a_pair_is_drawn(finished, tmp_path):
    pytest.importorskip("sklearn")
    from trainers.reporting import report_figures

    runs, _ = finished
    said = []
    options = report_figures.Options(num_images=3, num_patches=24)
    paths = list(report_figures.draw(runs, tmp_path, options, said.append))
    names = ("per-class", "examples", "worst", "patches", "patches-fine-tuned")
    assert [path.name for path in paths] == [f"pair-{name}.png" for name in names]
    assert all(path.stat().st_size > 5000 for path in paths) and not said


def test_report_of_made_runs(make_preset_run, tmp_path):
    make_preset_run("a", "table3/voc-vgg16-random", 0.5)
    make_preset_run("b", "table3/voc-vgg16-random", 0.5, mm__steps=4000)
    text = report.write_up(finished_runs.find([tmp_path]))
    assert "Table 3:" in text and "| 56.7      | 50.0     |" in text
    assert "mm.steps 4000 instead of 8000" in text
    quick = make_preset_run("c", "quick", 0.3)
    assert "Table" not in report.write_up(finished_runs.find([quick]))


def test_the_list_of_presets():
    text = report.list_presets()
    for name in presets.PRESETS:
        assert f"\n{name}\n" in f"\n{text}"
    assert "expected: naive 60.2, M&M 64.5" in text
    assert "3.5 h of M&M on one TITAN-X" in text and "a curve, its values not stated" in text
