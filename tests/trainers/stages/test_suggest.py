"""Stage suggest: its order, its tables and its page, with a predictor that needs no training."""

import csv
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mm_keras import backbones
from trainers import config
from trainers.runs import stage_scope
from trainers.stages import find
from trainers.training import networks


class Confident:
    """Predict class 0 with the image's mean brightness as probability."""

    def __init__(self):
        self.models = [types.SimpleNamespace(backbone=backbones.build("testing"))]

    def predict(self, images):
        probability = np.full(images.shape[:3], images.mean() / 255, np.float32)
        return tf.zeros(images.shape[:3], tf.int32), tf.constant(probability)


def _experiment(**values):
    return config.changed(
        config.Experiment(), {f"suggest.{key}": value for key, value in values.items()}
    )


def _rows(path):
    return list(csv.DictReader(path.open()))


@pytest.fixture
def photos(tmp_path):
    """Folder with three images of different brightness, one copy, and one damaged file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, value in (("bright", 250), ("dim", 40), ("gray", 120)):
        Image.fromarray(np.full((20, 30, 3), value, np.uint8)).save(folder / f"{name}.png")
    (folder / "damaged.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def run_suggest(make_runtime, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "predictor", lambda *_: Confident())
    run = make_runtime(tmp_path / "run")

    def suggest(**values):
        stage_scope.run_stage(find("suggest"), _experiment(**values), run)
        return run.result("suggest"), tmp_path / "run" / "suggest"

    return suggest


def test_new_images_are_ranked_and_damaged_ones_named(run_suggest, photos):
    results, folder = run_suggest(images=str(photos), number=2)
    rows = _rows(folder / "unlabelled.csv")
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert all(row["image"].startswith(str(photos)) for row in rows)
    assert results["num_new"] == 3 and results["skipped"] == [str(photos / "damaged.png")]
    scores = {row["image"]: float(row["uncertainty"]) for row in _rows(folder / "unlabelled.csv")}
    for path, score in scores.items():
        brightness = np.asarray(Image.open(path)).mean() / 255
        assert score == pytest.approx(1 - brightness, abs=1e-4)


def test_masks_that_the_network_contradicts_are_listed(run_suggest):
    results, folder = run_suggest(number=5)
    rows = _rows(folder / "labelled.csv")
    assert results["num_labelled"] == 2 and len(rows) == 2
    doubts = [float(row["doubt"]) for row in rows]
    assert doubts == sorted(doubts, reverse=True) and 0 < doubts[-1] <= doubts[0] <= 1
    assert _rows(folder / "unlabelled.csv") == []


def test_the_page_shows_each_image_without_network_access(run_suggest, photos):
    _, folder = run_suggest(images=str(photos))
    page = (folder / "index.html").read_text()
    assert page.count("<figure>") == 3 + 2
    assert page.count("data:image/jpeg") == 3 * 2 + 2 * 3
    assert "http" not in page and "<script" not in page


def test_a_folder_without_images_is_refused(run_suggest, tmp_path):
    with pytest.raises(config.UserError, match="suggest.images"):
        run_suggest(images=str(tmp_path / "nothing"))
