"""The order of training: element k is the data of training step k, a pure function of (seed, k).

Nothing is shuffled through a buffer and no random op holds state: step k names its images, and each
image of a step has a seed of its own. A run that starts at step k therefore continues the very
sequence of an unbroken run, whatever the number of workers.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from pipelines.batches import views


class Share(NamedTuple):
    """The part of each step's images that one of several replicas gets: number `index` of `count`
    equal parts, in their order. All parts together are the step of a single replica.
    """

    index: int = 0
    count: int = 1


WHOLE = Share()


def batches(
    num_files: int,
    example: Callable,
    *,
    num_images: int,
    share: Share = WHOLE,
    seed: int | tf.Tensor = 0,
    start_step: int | tf.Tensor = 0,
    num_steps: int | tf.Tensor | None = None,
    num_parallel: int = tf.data.AUTOTUNE,
) -> tf.data.Dataset:
    """Builds the batches of what `example` makes of each image of a step.

    An epoch shows each file once, in an order of its own; epochs may end within a step.

    Args:
        num_files: images to choose from.
        example: function(image_id, seed) -> dict of tensors, traced into the graph: image_id is
            an int64 scalar in 0..num_files - 1, seed is int32 [2].
        num_images: images of a step, of all shares together.
        share: the part of them to yield.
        seed: int or int32 [2].
        start_step: the first step to yield; a scalar tensor inside of another dataset.
        num_steps: the step to stop before, so num_steps - start_step elements come; None for no
            end.
        num_parallel: images worked on at once; it changes the speed, not the data.

    Returns:
        Dataset of what `example` returns, stacked over the images of a step, or over the
        num_images / share.count of a share; not prefetched.

    Raises:
        ValueError: an argument is out of range, share.count does not divide num_images, or there is
            no file.
    """
    _check(num_files, num_images, share, start_step, num_steps)
    order_seed, data_seed = tf.unstack(tf.random.split(views.as_seed(seed)))
    num_own = num_images // share.count

    def is_own(position, _):
        return position % num_images // num_own == share.index

    def numbered(position, image_id):
        return example(image_id, _fold_in(data_seed, position))

    start = start_step * num_images
    end = tf.int64.max if num_steps is None else num_steps * num_images
    positions = tf.data.Dataset.range(start, end)
    numbers = tf.data.Dataset.zip(positions, _image_ids(num_files, order_seed, start))
    own = numbers if share.count == 1 else numbers.filter(is_own)
    return own.map(numbered, num_parallel_calls=num_parallel, deterministic=True).batch(
        num_own, drop_remainder=True
    )


def check_at_least_one(**sizes: int) -> None:
    """Raises a ValueError that names the first of `sizes` that is below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")


def _image_ids(num_images, seed, start):
    """The endless sequence of image ids from position `start` on, a permutation for each epoch.

    Of the epochs before, none is drawn, and the first is cut, not run through: a data service
    builds each step by itself.
    """
    first = start // num_images

    def epoch_ids(epoch):
        ids = tf.range(num_images, dtype=tf.int64)
        shuffled = tf.random.experimental.stateless_shuffle(ids, _fold_in(seed, epoch))
        num_shown = tf.where(epoch == first, start % num_images, 0)
        return tf.data.Dataset.from_tensor_slices(shuffled[num_shown:])

    return tf.data.Dataset.range(first, tf.int64.max).flat_map(epoch_ids)


def _fold_in(seed, number):
    return tf.random.fold_in(seed, tf.cast(number, tf.int32))


def _check(num_files, num_images, share, start_step, num_steps):
    if num_files < 1:
        raise ValueError("There are no images to train on.")
    check_at_least_one(num_images=num_images)
    if not 0 <= share.index < share.count or num_images % share.count:
        raise ValueError(
            f"num_images, the images of a step, must be a multiple of the number of replicas, got "
            f"num_images={num_images} and {share}."
        )
    if tf.is_symbolic_tensor(start_step):
        return
    if start_step < 0 or (num_steps is not None and num_steps < start_step):
        raise ValueError(
            f"Steps run from start_step to num_steps, got {start_step} to {num_steps}: expected "
            "0 <= start_step <= num_steps."
        )
