"""The order of training, tested without images."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines.batches import order


def numbered(image_id, seed):
    return {"id": image_id, "seed": seed}


def arrays(num_files, **options):
    dataset = order.batches(num_files, numbered, order.Order(**options))
    return list(dataset.as_numpy_iterator())


def test_each_epoch_shows_each_file_once_and_epochs_end_within_steps():
    ids = np.concatenate([step["id"] for step in arrays(7, num_images=3, num_steps=21)])
    epochs = ids.reshape(9, 7)
    assert (np.sort(epochs, axis=1) == np.arange(7)).all()
    assert len({tuple(epoch) for epoch in epochs}) > 5


def test_every_image_of_every_step_has_its_own_seed():
    seeds = np.concatenate([step["seed"] for step in arrays(2, num_images=5, num_steps=40)])
    assert len(np.unique(seeds, axis=0)) == 200


@pytest.mark.parametrize("start_step", [1, 6, 9, 12])
def test_a_resumed_order_continues_the_same_sequence(start_step):
    whole = arrays(5, num_images=2, num_steps=12, seed=3)
    resumed = arrays(5, num_images=2, num_steps=12, seed=3, start_step=start_step)
    assert len(resumed) == 12 - start_step
    for step, other in zip(resumed, whole[start_step:], strict=True):
        np.testing.assert_array_equal(step["id"], other["id"])
        np.testing.assert_array_equal(step["seed"], other["seed"])


@pytest.mark.parametrize("count", [2, 3, 6])
def test_shares_together_equal_the_whole_step(count):
    """This includes epochs that end within a share, and a start step above 0."""
    whole = arrays(7, num_images=6, num_steps=9, start_step=2, seed=5)
    shares = [
        arrays(7, num_images=6, share=order.Share(k, count), num_steps=9, start_step=2, seed=5)
        for k in range(count)
    ]
    for step, *parts in zip(whole, *shares, strict=True):
        for key in ("id", "seed"):
            np.testing.assert_array_equal(step[key], np.concatenate([part[key] for part in parts]))


def test_a_step_built_inside_another_dataset_equals_the_step():
    """A data service distributes single steps in this form."""
    whole = arrays(5, num_images=3, num_steps=8, seed=1)
    inner = tf.data.Dataset.range(8).flat_map(
        lambda step: order.batches(
            5, numbered, order.Order(num_images=3, start_step=step, num_steps=step + 1, seed=1)
        )
    )
    for step, expected in zip(inner.as_numpy_iterator(), whole, strict=True):
        np.testing.assert_array_equal(step["seed"], expected["seed"])
        np.testing.assert_array_equal(step["id"], expected["id"])


@pytest.mark.parametrize(
    "num_files, change, message",
    [
        (0, {}, "no images"),
        (3, {"num_images": 0}, "num_images .* got 0"),
        (3, {"num_images": 4, "share": order.Share(0, 3)}, "num_images=4 and .*count=3"),
        (3, {"num_images": 4, "share": order.Share(2, 2)}, "num_images=4 and .*index=2"),
        (3, {"start_step": -1}, "start_step .* -1 to"),
        (3, {"start_step": 7, "num_steps": 6}, "7 to 6"),
    ],
)
def test_wrong_arguments_raise_an_error_with_their_name(num_files, change, message):
    with pytest.raises(ValueError, match=message):
        order.batches(num_files, numbered, order.Order(**({"num_images": 2} | change)))


def test_settings_at_their_bounds_are_accepted():
    assert arrays(1, num_images=1, start_step=3, num_steps=3) == []
    assert order.Order(num_images=6, share=order.Share(2, 3)).num_own == 2


def test_the_default_seed_is_zero():
    for step, other in zip(
        arrays(5, num_images=3, num_steps=4),
        arrays(5, num_images=3, num_steps=4, seed=0),
        strict=True,
    ):
        np.testing.assert_array_equal(step["id"], other["id"])
        np.testing.assert_array_equal(step["seed"], other["seed"])
