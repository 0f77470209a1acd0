"""Images of any number of bands: geometry for all bands, colors only where they are defined."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines import datasets
from pipelines.amounts import of_strength
from pipelines.batches import (
    NONE,
    Order,
    PatchSampling,
    View,
    colors,
    images,
    jigsaw,
    labelled,
    neighbors,
    permutations,
)
from pipelines.datasets import planes

BANDS = 5
PAD = (1, 2, 3, 4, 5)
ORDER = Order(num_images=2, num_steps=2)


@pytest.fixture
def split(tmp_path):
    """Two images of five bands; band b is the row, plus b."""
    files = []
    for k in range(2):
        rows = np.arange(40)[:, None, None] + np.arange(BANDS) + np.zeros([1, 50, 1], int)
        (tmp_path / f"{k}.png").write_bytes(planes.encode(rows.astype(np.uint8)))
        Image.fromarray(np.full([40, 50], k, np.uint8)).save(tmp_path / f"{k}_label.png")
        files.append((str(tmp_path / f"{k}.png"), str(tmp_path / f"{k}_label.png")))
    names = tuple(zip(*files, strict=True))
    return datasets.Split("train", ("0", "1"), *names, (True, True), 40, num_bands=BANDS)


@pytest.mark.parametrize("strength, crop", [("none", 64), ("strong", 24)])
def test_crops_show_all_bands_through_one_geometry(split, strength, crop):
    changes = NONE
    if strength == "strong":
        changes = of_strength("strong", color_share=0.0, blur_share=0.0, noise_share=0)
    view = View(crop=crop, shorter_side=30, pad_color=PAD)
    for step in labelled.crops(split, view, ORDER, changes).as_numpy_iterator():
        image = step["image"].astype(int)
        assert image.shape == (2, crop, crop, BANDS)
        # Inside the image neighbors differ by 1, and the pad color is chosen to do so, too.
        assert np.abs(np.diff(image, axis=-1) - 1).max() <= 1
        assert (image[step["label"] == datasets.VOID] == PAD).all()


def test_patches_show_all_bands(split):
    sampling = PatchSampling(patches_per_image=3, min_size=8, max_size=60, patch_size=16)
    view = View(crop=32, pad_color=PAD)
    step = next(labelled.patches(split, sampling, view, ORDER).as_numpy_iterator())
    assert step["patches"].shape == (6, 16, 16, BANDS)
    assert np.abs(np.diff(step["patches"].astype(int), axis=-1) - 1).max() <= 1


@pytest.mark.parametrize("pad_color", [(0, 0, 0), (0,) * 6])
def test_a_pad_color_of_other_bands_is_refused(split, pad_color):
    view = View(crop=32, pad_color=pad_color)
    with pytest.raises(ValueError, match="pad_color needs an integer for each of 5 bands"):
        labelled.crops(split, view, ORDER)


def test_unlabelled_crops_have_the_bands_of_the_pad_color(split):
    view = View(crop=16, pad_color=PAD, enlarge=True)
    step = next(images.batches(split.image_files, view, ORDER).as_numpy_iterator())
    assert step["image"].shape == (2, 16, 16, BANDS)


def test_puzzles_and_neighbors_have_all_bands(split):
    orders = permutations.permutation_set(4)
    puzzle = jigsaw.Puzzle(shorter_side=None, cell=12, tile=10, gray_share=1.0)
    found = next(
        jigsaw.batches(split.image_files, orders, puzzle, ORDER, BANDS).as_numpy_iterator()
    )
    assert found["tiles"].shape == (2, 9, 10, 10, BANDS)
    assert (found["tiles"] == found["tiles"][..., :1]).all()  # gray_share
    pair = neighbors.Pair(patch=8, gap=4, jitter=1, color="drop")
    found = next(neighbors.batches(split.image_files, pair, ORDER, BANDS).as_numpy_iterator())
    assert found["tiles"].shape == (2, 2, 8, 8, BANDS)


def test_brightness_and_contrast_change_each_band_by_itself():
    pixels = tf.constant([[[10.0, 100.0], [30.0, 120.0]]])
    # The means are 20 and 110: 1.5 (20 - 0.5 * 10) = 22.5, 1.5 (110 + 0.5 * 10) = 172.5.
    changed = colors.change(pixels, colors.Change(1.5, 0.5, 0.3, 0.2))
    np.testing.assert_allclose(changed, [[[22.5, 157.5], [37.5, 172.5]]])


@pytest.mark.parametrize("num_bands", [1, 4])
def test_saturation_and_hue_alone_change_nothing(num_bands):
    pixels = tf.random.stateless_uniform([6, 6, num_bands], [0, 1], 0, 255)
    changed = colors.change(pixels, colors.Change(1.0, 1.0, 0.0, 0.3))
    np.testing.assert_allclose(changed, pixels, atol=1e-4)


def test_blur_and_noise_change_all_bands():
    pixels = tf.random.stateless_uniform([9, 9, 4], [0, 1], 50, 200)
    blurred = colors.blur(pixels, tf.constant(1.0), 1.0)
    alone = [
        colors.blur(tf.repeat(pixels[..., k : k + 1], 3, -1), tf.constant(1.0), 1.0)
        for k in range(4)
    ]
    expected = tf.stack([part[..., 0] for part in alone], axis=-1)
    np.testing.assert_allclose(blurred, expected, atol=1e-3)
    noisy = colors.add_noise(pixels, tf.constant(5.0), tf.constant([1, 2]))
    assert (np.abs(noisy - pixels).mean(axis=(0, 1)) > 1).all()
