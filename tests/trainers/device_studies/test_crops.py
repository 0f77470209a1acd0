"""Crops on the accelerator equal the input pipeline's for the same placements and amounts."""

import numpy as np
import pytest
import tensorflow as tf

jax = pytest.importorskip("jax")
from jax import numpy as jnp  # noqa: E402
from jax import random  # noqa: E402

from pipelines.amounts import Augmentation  # noqa: E402
from pipelines.batches import affine, colors  # noqa: E402
from trainers.device_studies import crops  # noqa: E402
from trainers.device_studies.scenes import padded  # noqa: E402

draw = jax.jit(crops.draw, static_argnums=3)


def image_and_label(rng, height=13, width=17):
    image = rng.integers(0, 256, (height, width, 3)).astype("uint8")
    return image, rng.integers(0, 4, (height, width)).astype("uint8")


def both_placements(rng, size, crop):
    """The same placement in both forms; it does not shrink, so nothing is reduced first."""
    scaled = np.array([size[0] + rng.integers(0, 9), size[1] + rng.integers(0, 9)])
    origin = np.array([rng.integers(-3, 9), rng.integers(-3, 9)])
    angle, mirror = rng.uniform(-1, 1), bool(rng.integers(2))
    theirs = affine.Placement(
        tf.constant(scaled, tf.int32),
        tf.constant(origin, tf.int32),
        tf.constant(angle, tf.float32),
        tf.constant(mirror),
        crop,
    )
    degrees = np.degrees(angle)
    ours = crops._placed(
        jnp.array(size), jnp.array(scaled), jnp.array(origin), degrees, jnp.array(mirror), crop
    )
    return theirs, ours


@pytest.mark.parametrize("seed", range(3))
def test_a_placement_shows_the_pixels_that_the_pipeline_shows(seed):
    rng = np.random.default_rng(seed)
    image, label = image_and_label(rng)
    theirs, ours = both_placements(rng, label.shape, crop=8)
    size = jnp.array(label.shape)
    np.testing.assert_array_equal(
        crops.show_label(jnp.array(label), size, ours, 8), affine.show_label(label, theirs)
    )
    pixels, is_inside = crops.show_image(jnp.array(image), size, ours, 8)
    shown = affine.show_image(tf.constant(image), theirs)
    np.testing.assert_array_equal(is_inside, shown.is_inside)
    np.testing.assert_allclose(pixels, shown.pixels, atol=0.05)


@pytest.mark.slow
def test_the_padding_of_small_images_is_never_shown():
    rng = np.random.default_rng(0)
    pair = image_and_label(rng, 9, 11)
    scenes = padded([pair[0]], [np.zeros_like(pair[1])], (20, 30))
    view = crops.View(7, Augmentation(scale=2.0, rotation=40.0), pad_color=(9, 8, 7))
    index = jnp.zeros(64, jnp.int32)
    images, labels = draw(random.key(0), jax.tree.map(jnp.asarray, scenes), index, view)
    is_void = np.array(labels == 255)
    assert 0 < is_void.mean() < 0.5
    assert (np.array(images)[is_void] == (9, 8, 7)).all()
    assert (np.array(images)[~is_void] >= 0).all()


@pytest.mark.slow
def test_without_changes_a_crop_is_a_part_of_the_image_or_of_its_mirror_image():
    rng = np.random.default_rng(1)
    image, label = image_and_label(rng)
    scenes = padded([image], [label], label.shape)
    images, labels = draw(
        random.key(2), jax.tree.map(jnp.asarray, scenes), jnp.zeros(20, jnp.int32), crops.View(5)
    )
    parts = {
        (picture[y : y + 5, x : x + 5].tobytes(), map_[y : y + 5, x : x + 5].tobytes())
        for picture, map_ in ((image, label), (image[:, ::-1], label[:, ::-1]))
        for y in range(9)
        for x in range(13)
    }
    shown = zip(np.array(images, np.uint8), np.array(labels, np.uint8), strict=True)
    drawn = {(pixels.tobytes(), classes.tobytes()) for pixels, classes in shown}
    assert drawn <= parts and len(drawn) > 10


@pytest.mark.slow
def test_a_wanted_class_is_in_the_crop():
    label = np.zeros((40, 40), np.uint8)
    label[35, 3] = 2
    scenes = padded([np.zeros((40, 40, 3), np.uint8)], [label], label.shape)
    scenes = jax.tree.map(jnp.asarray, scenes)
    index = jnp.zeros(200, jnp.int32)
    shares = []
    for rare_share in (0.0, 1.0):
        view = crops.View(10, Augmentation(scale=1.3), rare_share=rare_share)
        _, labels = draw(random.key(0), scenes, index, view)
        shares.append(float((labels == 2).any(axis=(1, 2)).mean()))
    # Half of the crops want class 2. Nearest neighbor may miss a single pixel that shrinks.
    assert shares[0] < 0.25 and 0.35 < shares[1] < 0.55, shares


def test_colors_change_as_in_the_pipeline(monkeypatch):
    rng = np.random.default_rng(3)
    pixels = rng.uniform(0, 255, (6, 5, 3)).astype("float32")
    draws = np.array([0.9, 0.2, 0.7, 0.3, 0.0, 1.0], np.float32)
    monkeypatch.setattr(crops.random, "uniform", lambda key, shape: jnp.array(draws))
    changes = Augmentation(brightness=0.3, contrast=0.4, saturation=0.5, hue=0.2)
    ours = crops._change_colors(random.key(0), jnp.array(pixels), changes)
    factors = 1 + (2 * draws[:3] - 1) * np.array([0.3, 0.4, 0.5])
    change = colors.Change(*map(np.float32, factors), np.float32((2 * draws[3] - 1) * 0.2))
    np.testing.assert_allclose(ours, colors.change(tf.constant(pixels), change), atol=2e-3)


def test_blur_is_that_of_the_pipeline():
    pixels = np.random.default_rng(4).uniform(0, 255, (9, 8, 3)).astype("float32")
    theirs = colors.blur(tf.constant(pixels), tf.constant(0.8), 1.0)
    np.testing.assert_allclose(crops._blur(jnp.array(pixels), 0.8, 1.0), theirs, atol=1e-2)
