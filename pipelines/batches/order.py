"""The order of training: element k is the data of training step k, a pure function of (seed, k).

No shuffle buffer and no random op with state is used. Step k determines its images, and each image
of a step has its own seed. A run that starts at step k therefore continues the exact sequence of an
unbroken run, for any number of workers.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from pipelines.amounts import check_at_least_one
from pipelines.batches import views


class Share(NamedTuple):
    """The images of each step that one of several replicas gets.

    A step is cut into `count` equal shares, in order; this is share number `index`. All shares
    together are the step of a single replica.
    """

    index: int = 0
    count: int = 1


WHOLE = Share()


@dataclasses.dataclass(frozen=True)
class Order:
    """The settings that determine which image appears in which step.

    Attributes:
        num_images: int, images of a step, over all shares.
        share: the share of each step's images to yield.
        seed: int or int32 [2].
        start_step: int, the first step to yield, or a scalar tensor inside another dataset.
        num_steps: int, the step to stop before: num_steps - start_step elements are yielded. None
            means an endless dataset.
        num_parallel: int, images processed at the same time. It changes the speed, not the data.

    Raises:
        ValueError: if a value is out of range, or if share.count does not divide num_images.

    Example:
        >>> Order(num_images=4, share=Share(1, 2)).num_own
        2
        >>> Order(num_images=0)
        Traceback (most recent call last):
        ValueError: num_images must be at least 1, got 0.
    """

    num_images: int
    share: Share = WHOLE
    seed: int | tf.Tensor = 0
    start_step: int | tf.Tensor = 0
    num_steps: int | tf.Tensor | None = None
    num_parallel: int = tf.data.AUTOTUNE

    def __post_init__(self):
        check_at_least_one(num_images=self.num_images)
        if not 0 <= self.share.index < self.share.count or self.num_images % self.share.count:
            raise ValueError(
                "num_images, the images of a step, must be a multiple of the number of replicas, "
                f"got num_images={self.num_images} and {self.share}."
            )
        if tf.is_symbolic_tensor(self.start_step):
            return
        if self.start_step < 0 or (self.num_steps is not None and self.num_steps < self.start_step):
            raise ValueError(
                f"Steps run from start_step to num_steps, got {self.start_step} to "
                f"{self.num_steps}: expected 0 <= start_step <= num_steps."
            )

    @property
    def num_own(self) -> int:
        """The number of images of a step in this share."""
        return self.num_images // self.share.count


def batches(num_files: int, example: Callable, order: Order) -> tf.data.Dataset:
    """Build a dataset that calls `example` for each image and stacks the results of a step.

    An epoch shows each file once, in its own order. Epochs may end within a step.

    Args:
        num_files: int, images to choose from.
        example: function(image_id, seed) -> dict of tensors, traced into the graph. image_id is
            an int64 scalar in 0..num_files - 1, seed is int32 [2].
        order: the settings.

    Returns:
        Dataset of the dicts of `example`, stacked over the `order.num_own` images of a step; not
        prefetched.

    Raises:
        ValueError: if there is no file.

    Example:
        >>> def example(image_id, seed):
        ...     return {"id": image_id}
        >>> steps = batches(3, example, Order(num_images=3, num_steps=2))
        >>> [sorted(step["id"].tolist()) for step in steps.as_numpy_iterator()]
        [[0, 1, 2], [0, 1, 2]]
    """
    if num_files < 1:
        raise ValueError("There are no images to train on.")
    order_seed, data_seed = tf.unstack(tf.random.split(views.as_seed(order.seed)))
    num_images, share = order.num_images, order.share

    def is_own(position, _):
        return position % num_images // order.num_own == share.index

    def numbered(position, image_id):
        return example(image_id, _fold_in(data_seed, position))

    start = order.start_step * num_images
    end = tf.int64.max if order.num_steps is None else order.num_steps * num_images
    positions = tf.data.Dataset.range(start, end)
    numbers = tf.data.Dataset.zip(positions, _image_ids(num_files, order_seed, start))
    own = numbers if share.count == 1 else numbers.filter(is_own)
    return own.map(numbered, num_parallel_calls=order.num_parallel, deterministic=True).batch(
        order.num_own, drop_remainder=True
    )


def _image_ids(num_images, seed, start):
    """Return the endless sequence of image ids from position `start`, one permutation per epoch.

    Earlier epochs are not drawn. The first epoch is cut, because a data service builds each step
    separately and must not iterate to it.
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
