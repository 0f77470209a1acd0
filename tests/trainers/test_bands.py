"""A GeoTIFF data set of four bands of 16 bits, from the files to the predictions of new images."""

import dataclasses
import io

import numpy as np
import pytest
import rich.console
from PIL import Image

from mm_keras import inference
from pipelines.datasets import new_images
from pipelines.datasets.spec import PixelWindow
from trainers import config, experiment
from trainers.predictions import folder as predictions

tf = pytest.importorskip("tensorflow")
tifffile = pytest.importorskip("tifffile")

NODATA = 0


def write(file, rng, mask):
    """Write four bands, of which the last one tells the class; the first rows have no data."""
    pixels = rng.integers(400, 900, (*mask.shape, 4)).astype(np.uint16)
    pixels[..., 3] += mask * np.uint16(2500)
    pixels[:3] = NODATA
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    tags = [(42113, "s", 0, str(NODATA), True), (33550, "d", 3, (10.0, 10.0, 0.0), True)]
    tags += [(33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 5e6, 0.0), True)]
    tifffile.imwrite(file, pixels, extratags=tags, **options)
    return pixels


@pytest.fixture(scope="module")
def four_bands(tmp_path_factory):
    """Folder of 12 images of 40 x 56 pixels with masks of two classes."""
    root, rng = tmp_path_factory.mktemp("bands"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for k in range(12):
        mask = np.zeros((40, 56), np.uint8)
        y, x = rng.integers(2, 20, 2)
        mask[y : y + 20, x : x + 30] = 1
        write(root / "images" / f"{k:02}.tif", rng, mask)
        Image.fromarray(mask).save(root / "masks" / f"{k:02}.png")
    (root / "classes.txt").write_text("ground\nfield\n")
    return root


def settings(root, **network):
    base = config.Experiment()
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, dataset="folder", data_dir=str(root)),
        network=dataclasses.replace(base.network, backbone="testing", **network),
        mm=dataclasses.replace(base.mm, steps=1, drops=(), num_images=2, patch_size=16, crop=24),
        segment=dataclasses.replace(
            base.segment, steps=1, drops=(), num_images=2, crop=24, augmentation="strong"
        ),
        evaluate=dataclasses.replace(base.evaluate, boundary=False),
    )


@pytest.fixture(scope="module")
def run(four_bands, tmp_path_factory):
    """(working folder, results, printed text) of a run of all stages with tiny steps."""
    workdir = tmp_path_factory.mktemp("run")
    console = rich.console.Console(file=io.StringIO(), width=400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(workdir / "records"))
        results = experiment.run_experiment(
            settings(four_bands), ["all"], workdir / "run", console=console
        )
    return workdir / "run", results, console.file.getvalue()


@pytest.mark.slow
def test_four_bands_train_and_evaluate_where_nothing_is_set(run):
    workdir, results, text = run
    assert 0 <= results["miou"] <= 1
    assert "The network takes 4 bands. With channels=3 it takes the first three" in text
    stored = (workdir / "segment" / "config.json").read_text()
    assert '"network.channels": 4' in stored
    assert (workdir / "index.html").exists()


@pytest.mark.slow
def test_the_saved_model_takes_the_raw_values(run, four_bands):
    workdir, _, _ = run
    model = tf.saved_model.load(str(workdir / "export" / "saved_model"))
    predictor = inference.load_predictor(workdir)
    assert predictor.num_bands == 4
    window = PixelWindow(**predictor.classes.window)
    for file in sorted((four_bands / "images").iterdir())[:3]:
        values = tf.constant(tifffile.imread(file)[None].astype(np.float32))
        raw = model.signatures["serve_raw"](values=values)
        expected = predictor(new_images.read(file, window).pixels)
        np.testing.assert_array_equal(raw["class_ids"][0], expected.class_ids)


@pytest.mark.slow
def test_new_images_of_four_bands_are_predicted_with_their_place(run, four_bands, tmp_path):
    workdir, _, _ = run
    summary = predictions.predict(workdir, [str(four_bands / "images")], tmp_path)
    assert summary.num_predicted == 12 and not summary.skipped
    predictor = inference.load_predictor(workdir)
    window = PixelWindow(**predictor.classes.window)
    mask = tmp_path / "masks" / "00.tif"
    assert Image.open(mask).tag_v2[33922][3:5] == (5e5, 5e6)
    pixels = new_images.read(four_bands / "images" / "00.tif", window).pixels
    np.testing.assert_array_equal(np.asarray(Image.open(mask)), predictor(pixels).class_ids)
    assert Image.open(tmp_path / "overlays" / "00.jpg").size == (56, 40)


@pytest.fixture
def refused(four_bands, tmp_path, monkeypatch):
    """Function (stages, settings) -> the message of the error of a run."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "records"))

    def function(changed):
        with pytest.raises(config.ConfigError) as caught:
            experiment.run_experiment(changed, ["all"], tmp_path / "run")
        return str(caught.value)

    return function


def test_a_pretext_task_of_colors_is_refused_before_training(refused, four_bands):
    message = refused(settings(four_bands, init="colorization"))
    assert "network.init=colorization needs images of red, green and blue" in message
    assert "these have 4 bands. Set network.channels=3" in message and "jigsaw" in message


def test_channels_of_a_data_set_of_color_images_are_refused(refused, tiny_data):
    message = refused(settings(tiny_data, channels=4))
    assert "channels=4 is not the number of bands (3)" in message


def test_a_data_set_without_files_has_three_bands(refused):
    base = settings(None, channels=2)
    generated = dataclasses.replace(base.data, dataset="texture_scenes", data_dir=None)
    message = refused(dataclasses.replace(base, data=generated))
    assert message.startswith("channels=2 is for data set 'folder'; texture_scenes has a format")
