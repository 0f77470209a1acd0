"""Prediction of folders: every file against known classes; resume, damage and foreign folders."""

import csv
import json

import filelock
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from mm_keras.inference import load_predictor
from trainers import config
from trainers.predictions import files, folder


def _pixels(height=8, width=10, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    pixels[:3, :, 0] = 0
    return pixels


def _class_ids(pixels):
    red = pixels[..., 0]
    return np.where(red == 0, 0, np.where(red < 100, 1, 2))


@pytest.fixture
def photos(tmp_path):
    """Folder with a.png, deep/b.png and a text file."""
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    Image.fromarray(_pixels()).save(tmp_path / "photos" / "a.png")
    Image.fromarray(_pixels(12, 7, seed=1)).save(tmp_path / "photos" / "deep" / "b.png")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def _rows(output):
    with (output / "areas.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_masks_hold_the_mask_values_and_the_table_the_areas(model, photos, tmp_path):
    output = tmp_path / "out"
    summary = folder.predict(model, [str(photos)], output)
    assert (summary.num_predicted, summary.num_done, summary.skipped) == (2, 0, ())
    for row, (name, pixels) in zip(
        _rows(output), {"a": _pixels(), "deep/b": _pixels(12, 7, seed=1)}.items(), strict=True
    ):
        class_ids = _class_ids(pixels)
        mask = Image.open(output / "masks" / f"{name}.png")
        np.testing.assert_array_equal(mask, np.array([0, 7, 9])[class_ids])
        colors = np.array([[0, 0, 0], [0, 0, 200], [250, 0, 0]])[class_ids]
        np.testing.assert_array_equal(mask.convert("RGB"), colors)
        areas = [int(row[key]) for key in ("background", "dark", "bright")]
        assert row["image"] == name and areas == np.bincount(class_ids.ravel()).tolist()
        assert [int(row["height"]), int(row["width"])] == list(pixels.shape[:2])
        assert float(row["confidence"]) == pytest.approx(0.9)
    assert (output / "overlays" / "deep" / "b.jpg").exists()
    assert not (output / "confidence").exists()


def test_the_overlay_keeps_the_background(model, photos, tmp_path):
    folder.predict(model, [str(photos / "a.png")], tmp_path / "out")
    painted = np.asarray(Image.open(tmp_path / "out" / "overlays" / "a.jpg")).astype(int)
    assert painted.shape == _pixels().shape
    pixels = np.full((64, 64, 3), (0, 120, 40), np.uint8)
    pixels[:, 32:] = (200, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "flat.png")
    folder.predict(model, [str(tmp_path / "flat.png")], tmp_path / "flat")
    painted = np.asarray(Image.open(tmp_path / "flat" / "overlays" / "flat.jpg")).astype(int)
    assert abs(painted[30, 4] - [0, 120, 40]).max() < 6  # JPEG
    assert abs(painted[30, 60] - [225, 0, 0]).max() < 6


def test_the_overlay_of_a_large_image_is_reduced(model, tmp_path, monkeypatch):
    pixels = np.full((41, 50, 3), (0, 120, 40), np.uint8)
    pixels[:, 24:] = (200, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    monkeypatch.setattr(files, "_OVERLAY_PIXELS", 41 * 50 // 3)
    monkeypatch.setattr(files, "_ROWS", 8)
    folder.predict(model, [str(tmp_path / "large.png")], tmp_path / "out")
    painted = np.asarray(Image.open(tmp_path / "out" / "overlays" / "large.jpg")).astype(int)
    assert painted.shape == (21, 25, 3)
    assert abs(painted[:, :8] - [0, 120, 40]).max() < 8
    assert abs(painted[:, 17:] - [225, 0, 0]).max() < 8
    assert Image.open(tmp_path / "out" / "masks" / "large.png").size == (50, 41)


def test_confidence_and_probabilities_are_written_if_asked_for(model, photos, tmp_path):
    kinds = files.Kinds(overlays=False, confidence=True, probabilities=True)
    folder.predict(model, [str(photos / "a.png")], tmp_path / "out", kinds)
    assert not (tmp_path / "out" / "overlays").exists()
    confidence = np.asarray(Image.open(tmp_path / "out" / "confidence" / "a.png"))
    assert confidence.shape == (8, 10) and (confidence == 230).all()  # 0.9 * 255 = 229.5
    with np.load(tmp_path / "out" / "probabilities" / "a.npz", allow_pickle=False) as stored:
        probabilities = stored["probabilities"]
    assert probabilities.dtype == np.float16 and probabilities.shape == (8, 10, 3)
    np.testing.assert_array_equal(probabilities.argmax(-1), _class_ids(_pixels()))


def test_finished_images_are_skipped_until_they_change(model, photos, tmp_path):
    output = tmp_path / "out"
    folder.predict(model, [str(photos / "a.png")], output)
    before = (output / "masks" / "a.png").stat().st_mtime_ns
    summary = folder.predict(model, [str(photos)], output)
    assert (summary.num_predicted, summary.num_done) == (1, 1)
    assert (output / "masks" / "a.png").stat().st_mtime_ns == before
    Image.fromarray(_pixels(9, 9, seed=2)).save(photos / "a.png")
    assert folder.predict(model, [str(photos)], output).num_predicted == 1
    assert _rows(output)[0]["height"] == "9"
    kinds = files.Kinds(confidence=True)  # a further kind of file
    assert folder.predict(model, [str(photos)], output, kinds).num_predicted == 2
    assert folder.predict(model, [str(photos)], output, overwrite=True).num_predicted == 2


def test_a_stopped_command_continues(model, photos, tmp_path, monkeypatch):
    output, write = tmp_path / "out", files.write

    def stop_at_b(place, name, *rest):
        if name == "deep/b":
            raise KeyboardInterrupt
        return write(place, name, *rest)

    monkeypatch.setattr(files, "write", stop_at_b)
    with pytest.raises(KeyboardInterrupt):
        folder.predict(model, [str(photos)], output)
    assert [row["image"] for row in _rows(output)] == ["a"]
    with (output / "predictions.jsonl").open("a") as stream:
        stream.write('{"name": "deep/')  # the process died in the middle of a line
    monkeypatch.setattr(files, "write", write)
    summary = folder.predict(model, [str(photos)], output)
    assert (summary.num_predicted, summary.num_done) == (1, 1)
    assert [row["image"] for row in _rows(output)] == ["a", "deep/b"]


def test_a_second_command_in_the_same_folder_is_refused(model, photos, tmp_path):
    held = filelock.FileLock(tmp_path / "out" / ".lock")
    (tmp_path / "out").mkdir()
    with held, pytest.raises(config.UserError, match="in use by .* choose another --output"):
        folder.predict(model, [str(photos)], tmp_path / "out")
    assert folder.predict(model, [str(photos)], tmp_path / "out").num_predicted == 2


def test_temporary_files_of_a_killed_command_are_removed(model, photos, tmp_path):
    name = f"{'0a' * 16}.tmp.png"
    left = [tmp_path / "out" / "masks" / name, tmp_path / "out" / "masks" / "deep" / name]
    folder.predict(model, [str(photos)], tmp_path / "out")
    for file in left:
        file.write_bytes(b"half")
    folder.predict(model, [str(photos)], tmp_path / "out")
    assert not any(file.exists() for file in left)


def test_damaged_and_unusable_images_are_named_and_skipped(model, photos, tmp_path):
    (photos / "cut.png").write_bytes((photos / "a.png").read_bytes()[:60])
    Image.fromarray(_pixels(2, 50)).save(photos / "thin.png")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(photos / "deep.png")
    summary = folder.predict(model, [str(photos)], tmp_path / "out")
    problems = {file.rpartition("/")[2]: problem for file, problem in summary.skipped}
    assert set(problems) == {"cut.png", "thin.png", "deep.png"} and summary.num_predicted == 2
    assert "at least 4 pixels per side" in problems["thin.png"]
    assert "more than 8 bits" in problems["deep.png"]
    assert [row["image"] for row in _rows(tmp_path / "out")] == ["a", "deep/b"]


def test_other_files_of_the_output_folder_stay(model, photos, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "letter.txt").write_text("mine")
    folder.predict(model, [str(photos)], output, overwrite=True)
    assert (output / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize("place", ["file", "file/deep"])
def test_an_output_that_cannot_be_a_folder_is_refused(model, photos, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(config.UserError, match="(is a file|cannot be created).* another --output"):
        folder.predict(model, [str(photos)], tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_damaged_model_is_named_with_the_fix(photos, tmp_path):
    place = tmp_path / "run" / "export" / "saved_model"
    (place / "assets.extra").mkdir(parents=True)
    table = {"class_names": ["a", "b"], "colors": [[0, 0, 0]] * 2, "mask_values": [0, 1]}
    (place / "assets.extra" / "classes.json").write_text(json.dumps(table))
    (place / "saved_model.pb").write_bytes(b"x" * 100)
    with pytest.raises(config.UserError, match="saved_model cannot be loaded.*Export the model ag"):
        folder.predict(tmp_path / "run", [str(photos)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["masks/a.png", "areas.csv"])
def test_files_that_the_program_did_not_make_are_not_replaced(model, photos, tmp_path, name):
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(config.UserError, match="was not made by this program"):
        folder.predict(model, [str(photos)], tmp_path / "out", overwrite=True)
    assert file.read_text() == "mine"


def test_predictions_of_another_model_are_refused(model, photos, tmp_path):
    output = tmp_path / "out"
    folder.predict(model, [str(photos)], output)
    lines = (output / "predictions.jsonl").read_text().splitlines()
    other = json.dumps({"model": "0" * 64})
    (output / "predictions.jsonl").write_text("\n".join([other, *lines[1:]]) + "\n")
    with pytest.raises(config.UserError, match="predictions of another model"):
        folder.predict(model, [str(photos)], output)
    assert folder.predict(model, [str(photos)], output, overwrite=True).num_predicted == 2


def test_a_geo_tiff_gives_a_mask_at_the_same_place(model, tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    places = {33550: (2.0, 2.0, 0.0), 33922: (0.0, 0.0, 0.0, 500000.0, 5.4e6, 0.0)}
    for tag, values in places.items():
        tags.tagtype[tag], tags[tag] = 12, values
    tags.tagtype[34735], tags[34735] = 3, (1, 1, 0, 1, 3072, 0, 1, 32632)
    Image.fromarray(_pixels()).save(tmp_path / "field.tif", tiffinfo=tags)
    folder.predict(model, [str(tmp_path / "field.tif")], tmp_path / "out")
    with Image.open(tmp_path / "out" / "masks" / "field.tif") as mask:
        np.testing.assert_array_equal(mask, np.array([0, 7, 9])[_class_ids(_pixels())])
        assert mask.tag_v2[33922][3:5] == (500000.0, 5.4e6) and mask.tag_v2[33550][0] == 2.0
        assert mask.tag_v2[34735][-1] == 32632


def test_images_of_more_bits_are_mapped_as_in_training(deep_model, tmp_path):
    values = np.array([[0, 100, 300, 900] * 2] * 8, np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    summary = folder.predict(deep_model, [str(tmp_path / "deep.png")], tmp_path / "out")
    assert summary.skipped == ()
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "deep.png"))
    assert mask[0, :4].tolist() == [0, 7, 7, 9]  # 8-bit values 0, 26, 77, 230


def test_photographs_are_predicted_upright(model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(_pixels()).save(tmp_path / "phone.png", exif=exif)
    summary = folder.predict(model, [str(tmp_path / "phone.png")], tmp_path / "out")
    expected = np.rot90(_class_ids(_pixels()), -1)
    mask = Image.open(tmp_path / "out" / "masks" / "phone.png")
    np.testing.assert_array_equal(mask, np.array([0, 7, 9])[expected])
    assert summary.num_turned == 1


def test_a_folder_without_a_model_is_named(photos, tmp_path):
    with pytest.raises(config.UserError, match="holds no exported model.*run stage export first"):
        folder.predict(tmp_path, [str(photos)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_output_below_the_input_is_not_predicted(model, photos):
    folder.predict(model, [str(photos)], photos / "out")
    assert folder.predict(model, [str(photos)], photos / "out").num_done == 2


def test_the_loaded_predictor_gives_the_same_classes(model):
    predictor = load_predictor(model)
    class_ids, probability = predictor(_pixels())
    np.testing.assert_array_equal(class_ids, _class_ids(_pixels()))
    assert class_ids.dtype == np.int32 and probability.shape == class_ids.shape
    assert predictor.classes.class_names == ("background", "dark", "bright")
