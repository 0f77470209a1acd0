"""Large images become tiles that cover the image and its labels."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines import datasets
from pipelines.datasets import inspection, records, tiles


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(tiles, "LARGEST", 2000)
    monkeypatch.setattr(tiles, "SIDE", 40)


def test_edges_cover_a_side_in_equal_parts(small_limits):
    for length in range(1, 500):
        edges = np.array(tiles.edges(length))
        steps = np.diff(edges)
        assert edges[0] == 0 and edges[-1] == length
        assert steps.max() <= 40 and steps.max() - steps.min() <= 1


def test_tiles_hold_the_pixels_and_labels_of_the_image(small_limits):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, [90, 50, 3], np.uint8)
    label = rng.integers(0, 3, [90, 50], np.uint8)
    sample = inspection.Sample("a", b"", label)
    found = list(tiles.cut(sample, pixels, records.encode_png))
    assert [tile.id for tile in found[:3]] == ["a_y0_x0", "a_y0_x25", "a_y30_x0"]
    rows = [np.concatenate([tile.label for tile in found[k : k + 2]], 1) for k in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(rows), label)
    last = tf.io.decode_png(found[-1].image).numpy()
    np.testing.assert_array_equal(last, pixels[60:, 25:])


def test_a_small_image_stays_as_it_is():
    sample = inspection.Sample("a", b"", np.zeros([9, 9], np.uint8))
    assert list(tiles.cut(sample, np.zeros([9, 9, 3], np.uint8), None)) == [sample]


def test_a_large_image_is_loaded_as_tiles(folder, small_limits):
    for kind, mode in (("images", "RGB"), ("masks", "L")):
        Image.new(mode, (100, 90)).save(folder / kind / "train" / "large.png")
    data = datasets.load("folder", folder)
    names = [name for name in data.train.ids if name.startswith("large")]
    assert len(names) == 9 and len(data.train.ids) == 12
    assert any("1 images are large and are used as tiles" in line for line in data.messages)
    sizes = {tuple(example["label"].shape) for example in datasets.examples(data.train)}
    assert sizes == {(24, 32), (30, 33), (30, 34)}
