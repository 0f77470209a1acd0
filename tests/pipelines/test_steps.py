"""The order of training, without any images."""

import numpy as np
import pytest

from pipelines import steps


def numbered(image_id, seed):
    return {"id": image_id, "seed": seed}


def arrays(num_files, **options):
    return list(steps.batches(num_files, numbered, **options).as_numpy_iterator())


def test_each_epoch_shows_each_file_once_and_epochs_end_within_steps():
    ids = np.concatenate([step["id"] for step in arrays(7, num_images=3, num_steps=21)])
    epochs = ids.reshape(9, 7)
    assert (np.sort(epochs, axis=1) == np.arange(7)).all()
    assert len({tuple(epoch) for epoch in epochs}) > 5


def test_every_image_of_every_step_has_its_own_seed():
    seeds = np.concatenate([step["seed"] for step in arrays(2, num_images=5, num_steps=40)])
    assert len(np.unique(seeds, axis=0)) == 200


@pytest.mark.parametrize("start_step", [1, 6, 9, 12])
def test_resuming_continues_the_very_sequence(start_step):
    whole = arrays(5, num_images=2, num_steps=12, seed=3)
    resumed = arrays(5, num_images=2, num_steps=12, seed=3, start_step=start_step)
    assert len(resumed) == 12 - start_step
    for step, other in zip(resumed, whole[start_step:], strict=True):
        np.testing.assert_array_equal(step["id"], other["id"])
        np.testing.assert_array_equal(step["seed"], other["seed"])


@pytest.mark.parametrize(
    "num_files, change, message",
    [
        (0, {}, "no images"),
        (3, {"num_images": 0}, "num_images .* got 0"),
        (3, {"start_step": -1}, "start_step .* -1 to"),
        (3, {"start_step": 7, "num_steps": 6}, "7 to 6"),
    ],
)
def test_wrong_arguments_are_named_at_once(num_files, change, message):
    with pytest.raises(ValueError, match=message):
        steps.batches(num_files, numbered, **({"num_images": 2} | change))
