"""Crops of unlabelled images: geometry, further tensors, resume."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from pipelines.batches import Order, View, images


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of four images of several sizes, one of them a single pixel."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for k, size in enumerate([(40, 50), (20, 12), (1, 1), (33, 90)]):
        Image.fromarray(rng.integers(0, 256, (*size, 3), "uint8")).save(folder / f"{k}.png")
    return sorted(str(file) for file in folder.iterdir())


def _arrays(files, view, order, more=None):
    return list(images.batches(files, view, order, more).as_numpy_iterator())


def test_enlarged_crops_have_no_padding(files):
    view = View(crop=16, pad_color=(255, 0, 255), enlarge=True)
    (batch,) = _arrays(files, view, Order(num_images=4, num_steps=1))
    assert batch["image"].shape == (4, 16, 16, 3) and batch["image"].dtype == np.uint8
    assert not np.any(np.all(batch["image"] == (255, 0, 255), axis=-1))


def test_small_images_are_padded_without_enlargement(files):
    view = View(crop=16, pad_color=(255, 0, 255))
    (batch,) = _arrays(files[2:3], view, Order(num_images=1, num_steps=1))
    assert np.all(batch["image"] == (255, 0, 255), axis=-1).sum() == 255


def test_a_later_start_continues_the_sequence(files):
    view, order = View(crop=8, enlarge=True), Order(num_images=3, num_steps=4, seed=5)
    whole = _arrays(files, view, order)
    rest = _arrays(files, view, dataclasses.replace(order, start_step=2))
    for expected, found in zip(whole[2:], rest, strict=True):
        np.testing.assert_array_equal(found["image"], expected["image"])


def test_further_tensors_get_the_crop_and_a_seed_of_each_image(files):
    view, order = View(crop=8, enlarge=True), Order(num_images=4, num_steps=1)
    more = lambda crop, seed: {"first": crop[0, 0], "seed": seed}  # noqa: E731
    (batch,) = _arrays(files, view, order, more)
    np.testing.assert_array_equal(batch["first"], batch["image"][:, 0, 0])
    assert len(np.unique(batch["seed"], axis=0)) == 4


def test_no_file_is_refused():
    with pytest.raises(ValueError, match="no images"):
        images.batches([], View(crop=8), Order(num_images=1))
