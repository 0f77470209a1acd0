"""Crops of unlabelled images, for pretext tasks that make their targets from the crop itself."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from pipelines.batches import order, views


def batches(
    files: Sequence[str],
    view: views.View,
    order: order.Order,
    more: Callable[[tf.Tensor, tf.Tensor], dict] | None = None,
) -> tf.data.Dataset:
    """Build batches of image crops.

    The view of an image is drawn by `views.draw_unlabelled_view`.

    Args:
        files: paths of JPEG, PNG or BMP images; `unlabelled.find` returns them.
        view: how an image is scaled and placed. With `enlarge` a crop has no padding. Its pad color
            has a value for each band of the images.
        order: which images a step shows.
        more: function(crop, seed) -> dict of further tensors of an image. crop is uint8 [crop,
            crop, bands], seed is int32 [2].

    Returns:
        Dataset of {"image": uint8 [N, crop, crop, bands]} and the tensors of `more`, where N is
        order.num_own.

    Raises:
        ValueError: if there is no file.

    Example:
        >>> batches(files, views.View(crop=112, enlarge=True), order)  # doctest: +SKIP
    """
    return _batches(files, view, order, more).prefetch(tf.data.AUTOTUNE)


def _batches(files, view, step_order, more):
    paths = tf.constant(list(files), tf.string)

    def example(image_id, seed):
        view_seed, more_seed = tf.unstack(tf.random.split(seed))
        image = views.read_image(paths[image_id], len(view.pad_color))
        placement = views.draw_unlabelled_view(tf.shape(image)[:2], view, view_seed)
        crop = views.image_canvas(*views.view_image(image, placement), view)
        return {"image": crop} | (more(crop, more_seed) if more else {})

    return order.batches(len(files), example, step_order)
