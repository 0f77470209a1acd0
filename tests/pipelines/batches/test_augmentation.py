"""Augmentation: labels are copied and stay aligned with the image; amounts and shares are kept."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from pipelines.batches import Augmentation, View, augmentation, of_strength
from pipelines.datasets import VOID

IDS = np.array([0, 3, 100, 254, VOID], np.uint8)
GEOMETRY = Augmentation(scale=2.0, aspect=1.3, rotation=180.0, rotation_share=0.7)
PAD_COLOR = (10, 20, 30)


def paint(labels):
    """Return an image with one color per id; void has the pad color."""
    palette = np.random.default_rng(5).integers(0, 256, (256, 3)).astype(np.uint8)
    palette[VOID] = PAD_COLOR
    return palette[labels]


def random_maps(num, seed=0):
    """Return label maps [num, 48, 56] of 8 x 8 blocks with random ids."""
    blocks = np.random.default_rng(seed).choice(IDS, (num, 6, 7))
    blocks[:, 0, 0] = 3  # at least one block is labelled
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


def scenes(maps, view, changes, seed=0, seeds=None):
    """Return images [N, crop, crop, 3], labels [N, crop, crop] and flags [N] of all maps."""
    images = paint(maps)
    seeds = tf.random.split([seed, 1], len(maps)) if seeds is None else seeds

    def one(image, label, own_seed):
        return augmentation.scene(image, label, view, changes, own_seed)

    data = tf.data.Dataset.from_tensor_slices((images, maps, seeds)).map(one)
    batch = data.batch(len(maps)).get_single_element()
    return [part.numpy() for part in batch]


def inside_of_regions(labels, radius=2):
    """Return the pixels around which all labels within `radius` are equal."""
    shifts = range(-radius, radius + 1)
    near = [np.roll(labels, (y, x), (1, 2)) for y in shifts for x in shifts]
    inside = np.all([other == labels for other in near], axis=0)
    inside[:, :radius] = inside[:, -radius:] = False
    inside[:, :, :radius] = inside[:, :, -radius:] = False
    return inside


def check_labels(num, seed):
    """Check `num` random maps under random geometry."""
    maps = random_maps(num, seed)
    images, labels, is_augmented = scenes(maps, View(32, pad_color=PAD_COLOR), GEOMETRY, seed)
    for before, after in zip(maps, labels, strict=True):
        assert set(np.unique(after)) <= set(np.unique(before)) | {VOID}
    inside = inside_of_regions(labels)
    assert inside.mean() > 0.1 and is_augmented.mean() > 0.95
    # The void color appears under void only, and each class under its own color only.
    assert abs(images[inside].astype(int) - paint(labels)[inside]).max() <= 1


def test_labels_are_never_interpolated_and_stay_aligned_with_the_image():
    check_labels(200, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_ten_thousand_label_maps_are_never_interpolated(seed):
    check_labels(1000, seed)


def test_changes_of_pixels_leave_the_labels_and_the_padding_alone():
    strong = dataclasses.replace(of_strength("strong"), noise_share=1.0, blur_share=1.0, cutout=0.2)
    geometry = dataclasses.replace(
        strong, color_share=0.0, gray_share=0.0, noise=0.0, blur=0.0, cutout=0.0
    )
    maps, view = random_maps(20), View(32, pad_color=PAD_COLOR)
    images, labels, _ = scenes(maps, view, strong)
    plain_images, plain_labels, _ = scenes(maps, view, geometry)
    is_erased = labels != plain_labels
    assert 0.01 < is_erased.mean() < 0.2 and (labels[is_erased] == VOID).all()
    assert (images[is_erased] == PAD_COLOR).all()
    assert abs(images[~is_erased].astype(int) - plain_images[~is_erased]).mean() > 3


def test_a_scene_is_a_pure_function_of_its_seed():
    maps = np.concatenate([random_maps(3)] * 3)
    seeds = [[k, which] for which in (0, 0, 1) for k in range(3)]
    changes = of_strength("strong", cutout=0.3, quarter_turns=True)
    images, labels, _ = scenes(maps, View(32), changes, seeds=seeds)
    np.testing.assert_array_equal(images[:3], images[3:6])
    np.testing.assert_array_equal(labels[:3], labels[3:6])
    assert (images[:3] != images[6:]).any(axis=(1, 2, 3)).all()


def test_sizes_angles_and_shares_follow_the_amounts():
    changes = Augmentation(scale=2.0, aspect=1.5, rotation=30.0, rotation_share=0.4)
    view = View(20, shorter_side=100)
    nothing = augmentation.views.draw_wanted(tf.zeros([1, 1], tf.uint8), view, [0, 0])

    def one(seed):
        drawn = augmentation.draw_placement(tf.constant([200, 400]), view, changes, nothing, seed)
        return drawn.size, drawn.angle, drawn.mirror

    seeds = tf.data.Dataset.from_tensor_slices(tf.random.split([1, 2], 2000))
    sizes, angles, mirrors = (x.numpy() for x in seeds.map(one).batch(2000).get_single_element())
    factor = np.sqrt(sizes.prod(1) / (100 * 200))
    stretch = sizes[:, 1] / sizes[:, 0] / 2
    for values, largest in [(factor, 2.0), (stretch, 1.5)]:
        assert 1 / largest - 0.02 < values.min() < 1 / largest + 0.05
        assert largest - 0.05 < values.max() < largest + 0.02
        assert abs(np.log(values).mean()) < 0.05  # log-uniform
    degrees = np.rad2deg(angles)
    assert 29 < abs(degrees).max() <= 30 + 1e-3 and abs(degrees.mean()) < 1
    assert 0.36 < (angles != 0).mean() < 0.44 and 0.46 < mirrors.mean() < 0.54


def test_quarter_turns_are_multiples_of_90_degrees():
    maps = random_maps(30)
    view = View(24, mirror=False)
    images, labels, _ = scenes(maps, view, Augmentation(quarter_turns=True))
    np.testing.assert_array_equal(
        images, np.where(labels[..., None] == VOID, images, paint(labels))
    )
    assert (labels == VOID).mean() < 0.4  # the crop lies inside, without new corners


def test_sparse_labels_fall_back_to_the_view_and_are_counted():
    maps = np.full((40, 64, 64), VOID, np.uint8)
    maps[:, 20:26, 30:36] = 7
    changes = Augmentation(scale=1.5, brightness=0.5)
    images, labels, is_augmented = scenes(maps, View(8), changes)
    assert ((labels == 7).sum((1, 2)) >= 1).all()
    assert 0 < (~is_augmented).sum() < 40
    # Without augmentation, the labelled pixels keep their color.
    color = paint(np.array([7]))[0]
    hits = (labels == 7) & ~is_augmented[:, None, None]
    assert (images[hits] == color).all()


def test_an_all_void_label_map_raises_an_error_with_its_file_name():
    void = np.full((9, 9), VOID, np.uint8)
    draw = tf.function(
        lambda: augmentation.scene(paint(void), void, View(4), GEOMETRY, name="folder/mask.png")
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="folder/mask.png"):
        draw()


def test_rare_classes_appear_in_their_share_of_the_crops():
    maps = np.zeros((300, 64, 64), np.uint8)
    maps[:, 2:6, 58:62] = 9  # 0.4 % of the pixels
    changes = Augmentation(scale=1.5, rotation=20.0)
    _, labels, is_augmented = scenes(maps, View(16, rare_share=0.8), changes)
    found = (labels == 9).any((1, 2)).mean()
    # Two classes: half of the rare crops want class 9, and about 7 % of the others show it.
    assert is_augmented.mean() > 0.9 and 0.35 < found < 0.55


def test_two_images_exchange_the_same_box_of_pixels_and_labels():
    labels = np.arange(1, 6, dtype=np.uint8)[:, None, None] * np.ones((1, 20, 30), np.uint8)
    seeds = tf.random.split([3, 4], 5)
    changes = Augmentation(mix=0.4)
    images, mixed = augmentation.mix(
        tf.constant(paint(labels)), tf.constant(labels), changes, seeds
    )
    np.testing.assert_array_equal(images, paint(mixed.numpy()))
    for first, second in [(0, 1), (2, 3)]:
        is_other = mixed[first] == labels[second, 0, 0]
        np.testing.assert_array_equal(is_other, mixed[second] == labels[first, 0, 0])
        assert 0 < np.mean(is_other) < 0.45
        rows, columns = np.nonzero(is_other)
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)  # one box
    np.testing.assert_array_equal(mixed[4], labels[4])  # the last one has no neighbor


def test_an_image_that_would_become_void_is_not_mixed():
    labels = np.full((2, 10, 10), VOID, np.uint8)
    labels[0, 5, 5], labels[1, 0, 0] = 4, 9
    images, changes = paint(labels), Augmentation(mix=0.6)
    for k in range(60):
        mixed = np.asarray(augmentation.mix(images, labels, changes, [[k, 0], [k, 1]])[1])
        assert (mixed != VOID).any((1, 2)).all()


def test_cutout_leaves_a_labelled_pixel():
    label = np.full((10, 10), VOID, np.uint8)
    label[4, 4] = 1
    changes = Augmentation(cutout=1.0)
    for k in range(40):
        _, kept = augmentation.cut_out(paint(label), label, changes, PAD_COLOR, [k, 0])
        assert (np.asarray(kept) == 1).sum() == 1
