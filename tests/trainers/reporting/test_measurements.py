"""Measurements on finished runs, compared with stage evaluate and with plain loops."""

import numpy as np
import pytest

from mm_keras import backbones, metrics
from trainers import config
from trainers.reporting import measurements
from trainers.runs import finished as finished_runs


def test_confusions_of_images_add_up_to_the_confusion_of_stage_evaluate(finished):
    (run, naive), dataset = finished
    confusions = measurements.per_image_confusions(run, dataset)
    assert confusions.shape == (4, 9, 9) and confusions.dtype == np.int32
    assert confusions.sum(axis=0).tolist() == run.results["confusion_matrix"]
    assert not np.array_equal(confusions, measurements.per_image_confusions(naive, dataset))
    path = run.folder / "evaluate" / "per_image.npz"
    written = path.stat().st_mtime_ns
    np.testing.assert_array_equal(measurements.per_image_confusions(run, dataset), confusions)
    assert path.stat().st_mtime_ns == written


def test_predictions_have_the_order_of_the_requested_images(finished):
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


def test_confusions_with_another_miou_are_refused(finished, tmp_path):
    (run, _), dataset = finished
    wrong = finished_runs.Run(run.workdir, run.variant, run.recorded, {"miou": 0.9}, run.costs)
    with pytest.raises(config.UserError, match="stage evaluate found 90.00"):
        measurements.per_image_confusions(wrong, dataset)


def test_patches_are_cut_from_the_evaluation_split(finished):
    (run, _), dataset = finished
    pixels, labels, positions = measurements.patches(run.experiment(), dataset, 24)
    assert sorted(positions) == [k for k in range(4) for _ in range(6)]
    assert pixels.shape == (24, 32, 32, 3) and pixels.dtype == np.uint8
    seen = {int(k) for _, label in measurements.images(dataset, range(4)) for k in np.unique(label)}
    assert set(labels.tolist()) <= seen - {255} and len(set(labels.tolist())) > 1
    few, *_ = measurements.patches(run.experiment(), dataset, 3)
    assert len(few) == 3


def test_embeddings_differ_before_and_after_training(finished):
    (run, naive), dataset = finished
    pixels, *_ = measurements.patches(run.experiment(), dataset, 24)
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


def test_neighbor_agreement_equals_plain_loops():
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(30, 5)), rng.integers(0, 3, 30)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    positions = np.repeat(np.arange(15), 2)
    right = 0
    for i in range(30):
        others = [j for j in range(30) if abs(positions[i] - positions[j]) >= 4]
        distances = [np.sum((points[i] - points[j]) ** 2) for j in others]
        right += labels[others[np.argmin(distances)]] == labels[i]
    ours = measurements.neighbor_agreement(points, labels, positions, min_distance=4)
    assert ours == pytest.approx(right / 30)


def test_near_frames_of_a_film_are_no_neighbors():
    """Each scene of ten frames has its own direction and one class; scenes repeat the classes."""
    frames = np.arange(80)
    scenes = frames // 10
    points = np.eye(8)[scenes] + 0.1 * np.eye(8)[(scenes + 1) % 8]
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    labels = scenes % 2
    assert measurements.neighbor_agreement(points, labels, frames, min_distance=1) == 1
    assert measurements.neighbor_agreement(points, labels, frames) < 0.5  # other scenes


def test_patches_of_one_image_are_no_neighbors():
    points, labels = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([3, 3, 5])
    assert measurements.neighbor_agreement(points, labels, np.array([0, 0, 9])) == 0
    assert np.isnan(measurements.neighbor_agreement(points, labels, np.zeros(3)))


def test_patches_outside_of_the_image_have_the_pad_color_of_the_backbone(finished):
    (run, _), dataset = finished
    experiment = run.experiment()
    for key, value in (("mm.crop", 400), ("mm.max_size", 400), ("mm.min_size", 400)):
        experiment = config.replace(experiment, key, value)  # much larger than the images
    pixels = measurements.patches(experiment, dataset, 8).pixels
    colors = {tuple(pixel) for patch in pixels for pixel in patch[[0, -1]].reshape(-1, 3).tolist()}
    assert backbones.PIXELS["bgr"].pad_color in colors and (0, 0, 0) not in colors
