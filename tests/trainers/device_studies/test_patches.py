"""The Mix step on the accelerator follows the rules of `pipelines.batches.mix`."""

import numpy as np
import pytest
import tensorflow as tf

jax = pytest.importorskip("jax")
from jax import numpy as jnp  # noqa: E402
from jax import random  # noqa: E402

from pipelines.batches import colorization, mix  # noqa: E402
from pipelines.patch_sampling import PatchSampling  # noqa: E402
from trainers.device_studies import colors, patches  # noqa: E402

SAMPLING = PatchSampling(6, 4, 12, 8, background_label=0, class_balanced=True)


@pytest.mark.parametrize("seed", range(5))
def test_greedy_rejection_keeps_the_boxes_that_the_pipeline_keeps(seed):
    rng = np.random.default_rng(seed)
    corners, sides = rng.integers(0, 20, (60, 2)), rng.integers(3, 12, (60, 1))
    boxes = np.concatenate([corners, corners + sides], axis=1).astype("int32")
    is_allowed = rng.uniform(size=60) < 0.8
    theirs = mix._kept_paper(tf.constant(boxes), tf.constant(is_allowed), 60).numpy()
    ours = np.flatnonzero(patches.greedy(jnp.array(boxes), jnp.array(is_allowed)))
    assert 5 < len(theirs) < 50
    np.testing.assert_array_equal(ours, theirs)


def test_boxes_are_cut_and_resized_as_in_the_pipeline():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 30, 3)).astype("uint8")
    boxes = np.array([[0, 0, 8, 8], [-3, -5, 9, 7], [15, 25, 29, 39], [4, 6, 8, 10]], "int32")
    theirs = mix.cut(tf.constant(image), boxes, 8, (9, 8, 7)).numpy()
    ours = patches.cut(jnp.array(image, jnp.float32), jnp.array(boxes), 8, (9, 8, 7))
    difference = np.abs(np.array(ours) - theirs)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # rounding


sample_boxes = jax.jit(patches.sample_boxes, static_argnums=2)


def sampled(label, sampling=SAMPLING, seed=0):
    boxes, labels = sample_boxes(random.key(seed), jnp.array(label, jnp.int32), sampling)
    return np.array(boxes), np.array(labels)


@pytest.mark.slow
def test_a_label_is_the_class_of_the_center_and_the_last_patch_is_background():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (5, 5)).repeat(6, 0).repeat(6, 1)  # 30 x 30
    for seed in range(10):
        boxes, labels = sampled(label, seed=seed)
        sides = boxes[:, 2] - boxes[:, 0]
        assert ((sides >= 4) & (sides <= 12) & (sides % 2 == 0)).all()
        centers = boxes[:, :2] + sides[:, None] // 2
        np.testing.assert_array_equal(labels, label[tuple(centers.T)])
        assert (labels[:5] > 0).all() and labels[5] == 0


def test_classes_are_drawn_balanced():
    label = np.full((30, 30), 1)
    label[:6, :6] = 2  # 4 % of the pixels
    shares = []
    for is_balanced in (False, True):
        sampling = PatchSampling(6, 2, 2, 8, class_balanced=is_balanced)
        drawn = [sampled(label, sampling, seed)[1] for seed in range(30)]
        shares.append((np.concatenate(drawn) == 2).mean())
    assert shares[0] < 0.15 and 0.35 < shares[1] < 0.65, shares


@pytest.mark.parametrize("value", [0, 2, 255])
def test_a_map_of_one_class_gives_this_class(value):
    _, labels = sampled(np.full((30, 30), value))
    assert (labels == value).all()


def test_hue_and_chroma_are_those_of_the_pipeline():
    pixels = np.random.default_rng(0).integers(0, 256, (200, 3)).astype("float32")
    pixels[:20] = pixels[:20, :1]  # grays
    ours, theirs = colors.hue_and_chroma(jnp.array(pixels)), colorization.hue_and_chroma(pixels)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_color_targets_are_those_of_the_pipeline():
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype("uint8")
    batch = colors.batch(random.key(0), jnp.array(image[None], jnp.float32), 50, 3, 32)
    points = np.array(batch["points"][0])
    assert points.min() >= 3 and points.max() < 17
    theirs = colorization.color_targets(tf.constant(image), tf.constant(points), 32)
    for name, values in theirs.items():
        np.testing.assert_allclose(batch[name][0], values, atol=1e-5, err_msg=name)
