"""Images of more than 8 bits and of other bands: the mapping to 8 bits, no data, and refusals."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines import datasets
from pipelines.batches import views
from pipelines.datasets import raw_images
from pipelines.datasets import tiles as large_tiles

tifffile = pytest.importorskip("tifffile")


@pytest.fixture
def write(tmp_path):
    """Function (name, pixels, extra tags) that writes an image and its mask of two classes."""
    root = tmp_path / "data"

    def function(name, pixels, **options):
        for folder in ("images", "masks"):
            (root / folder).mkdir(exist_ok=True, parents=True)
        tifffile.imwrite(root / "images" / f"{name}.tif", pixels, **options)
        mask = np.zeros(pixels.shape[:2], np.uint8)
        mask[:, 1:] = 1
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
        return root

    return function


def tiles(write, num_bands=4, dtype=np.uint16, **options):
    for k, name in enumerate("abcde"):
        pixels = np.random.default_rng(k).integers(100, 3000, [40, 40, num_bands]).astype(dtype)
        root = write(name, pixels, photometric="minisblack", planarconfig="contig", **options)
    return root


def shown(data):
    return tf.io.decode_png(tf.io.read_file(data.train.image_files[0])).numpy()


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.float64, np.uint32])
def test_three_channels_are_the_first_bands_mapped_by_percentiles(write, dtype):
    root = tiles(write, dtype=dtype)
    data = datasets.load("folder", root, reading=datasets.Reading(channels=3))
    window = data.spec.window
    assert window.num_bands == 4 and window.bands == (0, 1, 2)
    assert all(100 <= low < 200 for low in window.low) and all(h > 2900 for h in window.high)
    raw = tifffile.imread(root / "images" / f"{data.train.ids[0]}.tif")
    np.testing.assert_array_equal(shown(data), raw_images.apply(window, raw))
    assert any("1 of 4 bands are not used" in line for line in data.messages)


@pytest.mark.parametrize("num_bands", [2, 4, 5])
def test_all_bands_are_used_where_nothing_is_set(write, num_bands):
    root = tiles(write, num_bands)
    data = datasets.load("folder", root)
    window = data.spec.window
    assert window.bands == tuple(range(num_bands)) and data.spec.num_bands == num_bands
    assert len(window.low) == len(window.high) == num_bands
    assert data.train.num_bands == data.eval.num_bands == num_bands
    example = next(iter(datasets.examples(data.train)))
    raw = tifffile.imread(root / "images" / f"{data.train.ids[0]}.tif")
    np.testing.assert_array_equal(example["image"], raw_images.apply(window, raw))
    np.testing.assert_array_equal(
        views.read_image(data.train.image_files[0], num_bands), example["image"]
    )
    (line,) = (line for line in data.messages if "mapped to 8 bits" in line)
    assert f"The network takes {num_bands} bands." in line
    assert ("With channels=3 it takes the first three" in line) == (num_bands > 3)


@pytest.mark.parametrize(
    "reading, expected",
    [
        ({"channels": 2}, (0, 1)),
        ({"channels": 1}, (0,)),
        ({"bands": (4, 2)}, (3, 1)),
        ({"bands": (2,)}, (1, 1, 1)),
        ({"bands": (2,), "channels": 1}, (1,)),
        ({"bands": (1, 2, 3, 4), "channels": 4}, (0, 1, 2, 3)),
    ],
)
def test_channels_and_bands_choose_the_bands(write, reading, expected):
    data = datasets.load("folder", tiles(write), reading=datasets.Reading(**reading))
    assert data.spec.window.bands == expected


@pytest.mark.parametrize(
    "reading, message",
    [
        (
            {"channels": 5},
            r"channels=5 is not the number of bands \(4\). Change channels, or leave",
        ),
        ({"channels": 2, "bands": (1, 2, 3)}, r"channels=2 .* \(3, from bands=\(1, 2, 3\)\)"),
        ({"bands": (5,)}, "must name bands 1 to 4"),
    ],
)
def test_bands_that_do_not_exist_are_refused(write, reading, message):
    with pytest.raises(datasets.DatasetError, match=message):
        datasets.load("folder", tiles(write), reading=datasets.Reading(**reading))


def test_a_band_that_is_declared_as_alpha_is_not_used_unless_asked_for(write):
    for k, name in enumerate("abcde"):
        pixels = np.random.default_rng(k).integers(0, 9000, [40, 40, 4]).astype(np.uint16)
        root = write(name, pixels, photometric="rgb", extrasamples=["unassalpha"])
    assert datasets.load("folder", root).spec.window.bands == (0, 1, 2)
    reading = datasets.Reading(channels=4)
    assert datasets.load("folder", root, reading=reading).spec.window.bands == (0, 1, 2, 3)


def test_more_bands_than_networks_take_are_refused(write):
    root = tiles(write, num_bands=65)
    with pytest.raises(datasets.DatasetError, match="have 65 bands; at most 64 can be used"):
        datasets.load("folder", root)


def test_large_images_of_four_bands_become_tiles(write, monkeypatch):
    monkeypatch.setattr(large_tiles, "LARGEST", 1000)
    monkeypatch.setattr(large_tiles, "SIDE", 25)
    data = datasets.load("folder", tiles(write))
    shapes = {tuple(example["image"].shape) for example in datasets.examples(data.train)}
    assert shapes == {(20, 20, 4)}


def test_the_user_fixes_window_and_bands(write):
    root = tiles(write)
    reading = datasets.Reading(window=(0.0, 4000.0), bands=(4, 3, 2))
    data = datasets.load("folder", root, reading=reading)
    raw = tifffile.imread(root / "images" / f"{data.train.ids[0]}.tif").astype(float)
    expected = np.floor(raw[..., [3, 2, 1]] * (255 / 4000) + 0.5)
    assert np.abs(shown(data) - expected).max() <= 1
    with pytest.raises(datasets.DatasetError, match="bands 1 to 4"):
        datasets.load("folder", root, reading=datasets.Reading(bands=(5,)))


def test_pixels_without_data_in_all_bands_are_void(write):
    for k, name in enumerate("abc"):
        pixels = np.random.default_rng(k).integers(1, 3000, [40, 40, 4], np.uint16)
        pixels[:5] = 0
        pixels[6, 6, 0] = 0  # one band alone
        tag = [(42113, "s", 2, "0", True)]
        root = write(name, pixels, photometric="minisblack", planarconfig="contig", extratags=tag)
    data = datasets.load("folder", root)
    label = tf.io.decode_png(tf.io.read_file(data.train.label_files[0])).numpy()[..., 0]
    assert (label[:5] == 255).all() and (label[5:] < 255).all()
    assert min(data.spec.window.low) >= 1


def test_an_image_with_other_bands_is_refused(write):
    root = tiles(write)
    write("z", np.ones([40, 40, 2], np.uint16), photometric="minisblack", planarconfig="contig")
    with pytest.raises(datasets.DatasetError, match="2 bands, not 4"):
        datasets.load("folder", root)


def test_gray_png_of_16_bits_keeps_its_range(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in "abc":
        pixels = np.linspace(0, 60_000, 1600).reshape(40, 40).astype(np.uint16)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray((pixels > 30_000).astype(np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    data = datasets.load("folder", tmp_path, reading=datasets.Reading(window=(0.0, 60_000.0)))
    assert shown(data).min() == 0 and shown(data).max() == 255


def test_images_of_8_bits_stay_as_they_are(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in "abc":
        Image.new("RGB", (40, 40), (9, 9, 9)).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(np.eye(40, dtype=np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    data = datasets.load("folder", tmp_path)
    assert data.spec.window is None
    assert data.train.image_files[0] == str(tmp_path / "images" / f"{data.train.ids[0]}.png")


def test_a_data_set_with_a_format_of_its_own_takes_three_channels_only():
    assert datasets.plan("texture_scenes", reading=datasets.Reading(channels=3)).spec.num_bands == 3
    reading = datasets.Reading(channels=2, unlabelled="void")
    with pytest.raises(
        datasets.DatasetError, match="^unlabelled='void', channels=2 is for data set"
    ):
        datasets.plan("texture_scenes", reading=reading)
