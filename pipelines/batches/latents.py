"""Image crops with random codes, the inputs of BiGAN."""

from collections.abc import Sequence

import tensorflow as tf

from pipelines.amounts import check_at_least_one
from pipelines.batches import images, order, views


def batches(
    files: Sequence[str], view: views.View, order: order.Order, num_codes: int
) -> tf.data.Dataset:
    """Build image crops and codes for a generator.

    Args:
        files: paths of JPEG, PNG or BMP images; `unlabelled.find` returns them.
        view: how an image is scaled and placed.
        order: which images a step shows.
        num_codes: values of a code, at least 1.

    Returns:
        Dataset of {"image": uint8 [N, crop, crop, 3], "z": float32 [N, num_codes], uniform in
        -1..1}.

    Raises:
        ValueError: if there is no file, or a code has no value.

    Example:
        >>> batches(files, views.View(crop=64, enlarge=True), order, 200)  # doctest: +SKIP
    """
    check_at_least_one(num_codes=num_codes)

    def with_codes(_, seed):
        return {"z": tf.random.stateless_uniform([num_codes], seed, -1.0, 1.0)}

    return images.batches(files, view, order, with_codes)
