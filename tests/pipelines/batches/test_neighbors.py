"""Pairs of neighboring patches: labels, places, color rules, resume."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.batches import Order, neighbors

PAIR = neighbors.Pair(patch=12, gap=6, jitter=2, color="keep")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of an image whose pixels name their places, and of a tiny one."""
    folder = tmp_path_factory.mktemp("images")
    rows, columns = np.mgrid[:54, :54]
    places = np.stack([rows * 4, columns * 4, np.zeros_like(rows)], -1).astype("uint8")
    Image.fromarray(places).save(folder / "a.png")
    Image.fromarray(np.full((3, 5, 3), 77, "uint8")).save(folder / "b.png")
    return sorted(str(file) for file in folder.iterdir())


def test_labels_follow_the_golden_table(golden):
    expected = golden("starts")["doersch"]["offset_x_y_to_label"]
    for offset, label in expected.items():
        x, y = map(int, offset.split(","))
        cell = 3 * (y + 1) + x + 1
        assert neighbors.cells(np.array(label)) == cell


def test_patches_come_from_the_middle_and_from_the_cell_of_the_label(files, monkeypatch):
    monkeypatch.setattr(neighbors, "_RESAMPLED_SHARE", 0.0)
    order = Order(num_images=16, num_steps=4)
    seen, shifts = set(), []
    for batch in neighbors.batches(files[:1], PAIR, order).as_numpy_iterator():
        for tiles, label in zip(batch["tiles"], batch["permutation"], strict=True):
            corners = tiles[:, 0, 0, :2] // 4
            cell = np.array([neighbors.MIDDLE, neighbors.cells(label)])
            inside = corners - 18 * np.stack([cell // 3, cell % 3], -1)
            assert np.all((inside >= 1) & (inside <= 5))  # half a gap of 3, less or more 2
            shifts.extend(inside.ravel().tolist())
            seen.add(int(label))
    assert seen == set(range(8)) and set(shifts) == {1, 2, 3, 4, 5}


def test_small_images_are_enlarged_and_a_later_start_continues(files):
    order = Order(num_images=2, num_steps=3, seed=4)
    whole = list(neighbors.batches(files, PAIR, order).as_numpy_iterator())
    assert whole[0]["tiles"].shape == (2, 2, 12, 12, 3)
    later = dataclasses.replace(order, start_step=2)
    (last,) = neighbors.batches(files, PAIR, later).as_numpy_iterator()
    for key in whole[2]:
        np.testing.assert_array_equal(last[key], whole[2][key])


def test_the_projection_equals_the_golden_one(golden):
    expected = golden("starts")["doersch"]
    np.testing.assert_allclose(neighbors.PROJECTION, expected["colour_projection"], atol=1e-6)
    red = tf.constant([[[255, 0, 0]]], tf.uint8)
    found = neighbors.hide_aberration(red, "project").numpy()[0, 0]
    expected = np.clip(np.round(expected["projected_255_0_0"]), 0, 255)
    np.testing.assert_allclose(found, expected, atol=1)


def test_one_channel_is_kept_and_the_others_are_nearly_its_mean():
    patch = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype("uint8")
    kept = set()
    for seed in range(12):
        found = neighbors.hide_aberration(tf.constant(patch), "drop", seed).numpy()
        same = [
            channel for channel in range(3) if (found[..., channel] == patch[..., channel]).all()
        ]
        assert len(same) == 1
        others = np.delete(found, same[0], axis=-1).astype(float)
        assert np.abs(others - patch[..., same[0]].mean()).max() < 5
        kept.add(same[0])
    assert kept == {0, 1, 2}


def test_a_third_of_the_patches_is_resampled():
    patch = tf.constant(np.random.default_rng(0).integers(0, 256, (24, 24, 3)), tf.uint8)
    changed = [
        bool(np.any(neighbors._resampled(patch, tf.constant([k, 1])) != patch)) for k in range(90)
    ]
    assert 0.15 < np.mean(changed) < 0.55


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"jitter": 9, "gap": 10}, "jitter must be at most half"),
        ({"shorter_side": 100}, "shorter_side must be at least 432"),
        ({"color": "gray"}, "color must be one of"),
        ({"patch": 0}, "patch must be at least 1"),
    ],
)
def test_settings_out_of_range_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        neighbors.Pair(**arguments)
