"""Images of more than 8 bits and of other bands: the mapping to 8 bits, no data, and refusals."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines import datasets
from pipelines.datasets import raw_images

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
def test_four_bands_are_mapped_to_the_first_three_by_percentiles(write, dtype):
    root = tiles(write, dtype=dtype)
    data = datasets.load("folder", root)
    window = data.spec.window
    assert window.num_bands == 4 and window.bands == (0, 1, 2)
    assert all(100 <= low < 200 for low in window.low) and all(h > 2900 for h in window.high)
    raw = tifffile.imread(root / "images" / f"{data.train.ids[0]}.tif")
    np.testing.assert_array_equal(shown(data), raw_images.apply(window, raw))
    assert any("1 of 4 bands are not used" in line for line in data.messages)


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
