"""Holes in images: shapes, shares, golden figures, the inputs of the context encoder."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.batches import Order, View, holes


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of three images, one of them gray."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for k, shape in enumerate([(60, 50, 3), (20, 12, 3), (33, 90)]):
        Image.fromarray(rng.integers(0, 200, shape, "uint8")).save(folder / f"{k}.png")
    return sorted(str(file) for file in folder.iterdir())


def _drawn(size, shape, number):
    draw = tf.function(lambda seed: holes.draw_hole(size, shape, seed))
    return np.stack([draw(tf.constant([k, 7])) for k in range(number)])


def test_the_central_hole_is_the_middle_half(golden):
    hole = holes.draw_hole(128, "central").numpy()
    assert hole.mean() == golden("starts")["central"]["no overlap"]["share"]
    assert hole[32:96, 32:96].all()


@pytest.mark.parametrize("size", [64, 128])
def test_regions_have_the_golden_shares(golden, size):
    expected = golden("starts")["random_region"][str(size)]
    found = holes.region_candidates(size, 1500, 3).numpy().mean(axis=(1, 2))
    assert abs(found.mean() - expected["share_of_ones_mean_se"][0]) < 0.01
    accepted = found[(found > 0.2) & (found < 0.3)]
    assert abs(len(accepted) / len(found) - expected["accepted_mean_se"][0]) < 0.04
    assert abs(accepted.mean() - expected["share_of_accepted_mean_se"][0]) < 0.01


@pytest.mark.parametrize("shape", ["region", "block"])
def test_holes_are_drawn_anew_for_each_seed(shape):
    found = _drawn(64, shape, 6)
    shares = found.mean(axis=(1, 2))
    assert len(np.unique(found.reshape(6, -1), axis=0)) == 6
    assert np.all(shares > (0.2 if shape == "region" else 0.17))
    assert np.all(shares < 0.3) and (shape == "region" or np.all(shares <= 0.25))
    np.testing.assert_array_equal(found, _drawn(64, shape, 6))


def test_blocks_have_the_golden_share(golden):
    expected = golden("starts")["random_block"]
    shares = _drawn(128, "block", 60).mean(axis=(1, 2))
    error = 4 * expected["sd"] / np.sqrt(60)
    assert abs(shares.mean() - expected["share_mean_se"][0]) < error
    assert shares.max() <= expected["max_share"]


@pytest.mark.parametrize("shape", holes.SHAPES)
def test_the_smallest_crop_has_a_hole(shape):
    hole = holes.draw_hole(8, shape, 1).numpy()
    assert hole.shape == (8, 8) and hole.dtype == bool


@pytest.mark.parametrize("shape", holes.SHAPES)
def test_batches_hide_the_hole_from_the_image_alone(files, shape):
    view, order = View(crop=32, enlarge=True), Order(num_images=3, num_steps=2, seed=1)
    color = (250, 249, 251)  # no pixel has it
    first, second = holes.batches(files, view, order, shape, color).as_numpy_iterator()
    image, target = first["image"], first["target"]
    assert image.shape == (3, 32, 32, 3) and target.shape == (3, 32, 32, 4)
    hidden = target[..., 3] == 1
    assert np.all(image[hidden] == color) and not np.any(np.all(image[~hidden] == color, -1))
    np.testing.assert_array_equal(image[~hidden], target[..., :3][~hidden])
    assert not np.any(np.all(target[..., :3] == color, axis=-1))
    later = dataclasses.replace(order, start_step=1)
    (again,) = holes.batches(files, view, later, shape, color).as_numpy_iterator()
    np.testing.assert_array_equal(again["target"], second["target"])


@pytest.mark.parametrize(
    ("crop", "shape", "message"), [(7, "block", "at least 8"), (32, "star", "shape must be one of")]
)
def test_wrong_arguments_are_rejected(files, crop, shape, message):
    with pytest.raises(ValueError, match=message):
        holes.batches(files, View(crop=crop), Order(num_images=1), shape, (0, 0, 0))
