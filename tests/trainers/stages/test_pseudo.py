"""Stage pseudo: thresholds, images left out, continuation, with a predictor without training."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.batches import views
from pipelines.datasets import tiles
from trainers import config
from trainers.runs import stage_scope
from trainers.stages import find
from trainers.training import networks, pseudo_labels


class Brightness:
    """Predict class 1 with the brightness of each pixel as confidence; class 2 below 50."""

    def __init__(self):
        self.num_calls = 0

    def predict(self, images):
        self.num_calls += 1
        gray = images[..., 0].astype(np.float32)
        return tf.constant(np.where(gray < 50, 2, 1)), tf.constant(gray / 255)


@pytest.fixture
def predictor(monkeypatch):
    predictor = Brightness()
    monkeypatch.setattr(networks, "predictor", lambda *_: predictor)
    return predictor


@pytest.fixture
def photos(tmp_path, tiny_data):
    """Folder: a bright image, a half-dark one, a dark one, a training image, a damaged file."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    pixels = np.full((20, 30, 3), 250, np.uint8)
    Image.fromarray(pixels).save(folder / "bright.png")
    pixels[:, 15:] = 40
    Image.fromarray(pixels).save(folder / "half.png")
    Image.fromarray(np.full_like(pixels, 40)).save(folder / "more" / "dark.png")
    Image.open(tiny_data / "images" / "train" / "0.png").save(folder / "known.bmp")
    (folder / "damaged.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def run_pseudo(make_runtime, tmp_path, predictor):
    run = make_runtime(tmp_path / "run")

    def pseudo(folder, **values):
        values = {"labels": str(folder), **values}
        changes = {f"data.pseudo_{key}": value for key, value in values.items()}
        experiment = config.changed(config.Experiment(), changes)
        stage_scope.run_stage(find("pseudo"), experiment, run)
        return run.result("pseudo")["figures"]

    pseudo.run = run
    return pseudo


def _index(run):
    return json.loads((run.folder("pseudo") / "images.json").read_text())


def test_unsure_pixels_are_void_and_unsure_images_are_left_out(run_pseudo, photos):
    figures = run_pseudo(photos, min_share=0.4)
    entries = {entry["name"]: entry for entry in _index(run_pseudo.run)}
    assert sorted(entries) == ["bright", "half"]
    label = views.read_label(str(run_pseudo.run.folder("pseudo") / entries["half"]["label"]))
    assert (label[:, :15] == 1).numpy().all() and (label[:, 15:] == 255).numpy().all()
    assert figures["num_images"] == 5 and figures["num_used"] == 2 and figures["num_unsure"] == 1
    assert figures["num_known"] == 1 and figures["skipped"] == [str(photos / "damaged.png")]
    assert figures["share_of_pixels"] == pytest.approx(900 / 1800)
    assert figures["classes"]["wall"] == {"pixels": 900, "share_kept": 1.0}
    assert figures["classes"]["sky"] == {"pixels": 0, "share_kept": 0.0}
    assert figures["classes"]["ground"] == {"pixels": 0, "share_kept": None}


def test_a_stopped_stage_continues_and_half_a_line_is_ignored(run_pseudo, photos, predictor):
    first = run_pseudo(photos, min_share=0.4)
    folder = run_pseudo.run.folder("pseudo")
    before = _index(run_pseudo.run)
    for name in ("results.json", "images.json"):
        (folder / name).unlink()
    with (folder / "journal.jsonl").open("a") as stream:
        stream.write('{"name": "x", "ima')
    num_calls = predictor.num_calls
    assert run_pseudo(photos, min_share=0.4) == first
    assert _index(run_pseudo.run) == before and predictor.num_calls == num_calls


def test_no_confident_image_is_an_error_with_the_best_share(run_pseudo, photos):
    with pytest.raises(config.UserError, match="best image has 50.0% .* asks for 60.0%"):
        (photos / "bright.png").unlink()
        run_pseudo(photos, min_share=0.6)
    assert not run_pseudo.run.folder("pseudo").exists()  # another threshold needs no --overwrite
    assert run_pseudo(photos, min_share=0.5)["num_used"] == 1


def test_a_folder_of_training_images_alone_is_an_error(run_pseudo, tiny_data):
    with pytest.raises(config.UserError, match="None of the 2 images .* 2 belong to the data set"):
        run_pseudo(tiny_data / "images" / "train")


def test_an_image_that_tensorflow_would_not_turn_is_copied_upright(run_pseudo, photos):
    image = Image.fromarray(np.full((20, 30, 3), 250, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(photos / "turned.jpg", exif=exif)
    run_pseudo(photos)
    entry = next(entry for entry in _index(run_pseudo.run) if entry["name"] == "turned")
    folder = run_pseudo.run.folder("pseudo")
    image, label = views.read(str(folder / entry["image"]), str(folder / entry["label"]))
    assert image.shape == (30, 20, 3) and label.shape == (30, 20)


def test_a_large_image_becomes_tiles(run_pseudo, photos, monkeypatch):
    monkeypatch.setattr(tiles, "LARGEST", 400)
    monkeypatch.setattr(tiles, "SIDE", 16)
    run_pseudo(photos)
    names = {entry["name"] for entry in _index(run_pseudo.run)}
    assert {"bright_y0_x0", "bright_y0_x15", "bright_y10_x0", "half_y0_x0"} <= names
    assert "half_y0_x15" not in names


def test_left_out_training_images_are_labelled(run_pseudo, tiny_dataset):
    run = run_pseudo.run
    few = dataclasses.replace(tiny_dataset, train=tiny_dataset.train.take([0]))
    run.dataset = dataclasses.replace(few, left_out=tiny_dataset.train.take([1]))
    figures = run_pseudo("rest", threshold=0.0)
    assert figures["num_images"] == figures["num_used"] == 1
    assert [entry["image"] for entry in _index(run)] == [tiny_dataset.train.image_files[1]]


def test_training_lists_labelled_images_more_often(run_pseudo, photos, tiny_dataset):
    for k in range(4):
        pixels = np.full((20, 30, 3), 251 + k, np.uint8)
        Image.fromarray(pixels).save(photos / f"bright{k}.png")
    run_pseudo(photos)
    experiment = config.replace(config.Experiment(), "data.pseudo_labels", str(photos))
    split = pseudo_labels.joined(tiny_dataset.train, experiment, run_pseudo.run)
    assert split.ids == ("0", "1") * 3 + (
        "bright",
        "bright0",
        "bright1",
        "bright2",
        "bright3",
        "half",
    )
    for image, label in zip(split.image_files, split.label_files, strict=True):
        views.read(image, label)


def test_a_damaged_list_names_the_command(run_pseudo, photos, tiny_dataset):
    run_pseudo(photos)
    (run_pseudo.run.folder("pseudo") / "images.json").write_text("[{")
    experiment = config.replace(config.Experiment(), "data.pseudo_labels", str(photos))
    with pytest.raises(config.UserError, match="images.json is damaged.*--stage=pseudo"):
        pseudo_labels.joined(tiny_dataset.train, experiment, run_pseudo.run)
