"""Input pipelines of labelled images: element k is the data of training step k.

Each element is a pure function of (seed, k); see `pipelines.batches.order`.
"""

from collections.abc import Callable

import tensorflow as tf

from pipelines import amounts
from pipelines.batches import augmentation, mix, order, views
from pipelines.datasets.spec import Split


def patches(
    split: Split,
    sampling: mix.PatchSampling,
    view: views.View,
    order: order.Order,
    changes: amounts.Augmentation = amounts.NONE,
) -> tf.data.Dataset:
    """Build the data of mix-and-match tuning: labelled patches of some images (M&M paper, Mix).

    An image is scaled, mirrored and placed in a canvas by `views.draw_view`. Patches are drawn and
    cut inside the canvas by `mix.sample_boxes` and `mix.cut`. Pixels outside the canvas or the
    image have the color `view.pad_color`.

    Args:
        split: the images, each with at least one labelled pixel. `image_files` and `label_files`
            have the same length.
        sampling: how patches are drawn.
        view: how an image is scaled and placed.
        order: which images a step shows. In a share, only its images are yielded.
        changes: the augmentation of each image. All patches of an image get the same changes. `mix`
            is not used.

    Returns:
        Dataset of {"patches" uint8 [N, patch_size, patch_size, bands], "labels" int32 [N],
        "label_share" float32 [N]}, where N is order.num_own * sampling.patches_per_image. The
        patches of an image are adjacent.

    Raises:
        ValueError: if the split is empty.

    Example:
        >>> from pipelines import batches, datasets
        >>> data = datasets.load("texture_scenes")  # doctest: +SKIP
        >>> sampling = batches.PatchSampling(patches_per_image=8, min_size=28, max_size=110)
        >>> view, order = batches.View(crop=160), batches.Order(num_images=4)
        >>> batches.patches(data.train, sampling, view, order)  # doctest: +SKIP
    """

    views.check_pad_color(view.pad_color, split.num_bands)

    def example(pair, seed):
        image, label, name = pair
        view_seed, seed = tf.unstack(tf.random.split(seed))
        mirror, bounds = False, None
        if changes.changes_nothing:
            placement, label = views.draw_view(label, view, view_seed, name)
            image, _ = views.view_image(image, placement)
            mirror, bounds = placement.mirror, _canvas_in_part(placement)
        else:
            image, label, _ = augmentation.scene(image, label, view, changes, view_seed, name)
        chosen = mix.sample_boxes(label, sampling, seed, mirror, bounds)
        pixels = mix.cut(image, chosen.boxes, sampling.patch_size, view.pad_color)
        return {"patches": pixels, "labels": chosen.labels, "label_share": chosen.shares}

    batches = _batches(split, example, order)
    num_patches = order.num_own * sampling.patches_per_image
    joined = _side_by_side(batches, num_patches, sampling.patch_size)
    return joined.prefetch(tf.data.AUTOTUNE)


def _canvas_in_part(placement):
    """Return the canvas as a box int32 [4] relative to the part of the image inside it."""
    offset = tf.maximum(-placement.origin, 0)
    return tf.concat([-offset, placement.crop - offset], axis=0)


def _side_by_side(batches, num_patches, patch_size):
    """Join the images of a step and the patches of an image to one axis."""

    def join(step):
        bands = step["patches"].shape[-1]
        return {
            "patches": tf.reshape(step["patches"], [num_patches, patch_size, patch_size, bands]),
            "labels": tf.reshape(step["labels"], [num_patches]),
            "label_share": tf.reshape(step["label_share"], [num_patches]),
        }

    return batches.map(join)


def crops(
    split: Split,
    view: views.View,
    order: order.Order,
    changes: amounts.Augmentation = amounts.NONE,
) -> tf.data.Dataset:
    """Build the data of fine-tuning: square crops of some images with their label maps.

    Args:
        split: the images, each with at least one labelled pixel.
        view: how an image is scaled and placed.
        order: which images a step shows.
        changes: the augmentation of each image; see `augmentation.scene` and `augmentation.mix`.

    Returns:
        Dataset of {"image" uint8 [order.num_own, crop, crop, bands], "label" uint8 [order.num_own,
        crop, crop]}. Outside the image they are view.pad_color and 255.

    Raises:
        ValueError: if the split is empty, or if images are mixed and a share has an odd number.

    Example:
        >>> from pipelines import batches, datasets
        >>> data = datasets.load("texture_scenes")  # doctest: +SKIP
        >>> batches.crops(  # doctest: +SKIP
        ...     data.train, batches.View(crop=160), batches.Order(num_images=4)
        ... )
    """

    views.check_pad_color(view.pad_color, split.num_bands)
    mixes = changes.mixes_images
    if mixes and order.num_own % 2 and order.share.count > 1:
        raise ValueError(
            "Two images of a step exchange a box (mix), so each replica needs an even number of "
            f"images, got {order.num_own}: change num_images or set mix_share to 0."
        )

    def example(pair, seed):
        image, label, name = pair
        view_seed, mix_seed = tf.unstack(tf.random.split(seed))
        if changes.changes_nothing:
            image, label = views.draw_canvas(image, label, view, view_seed, name)
        else:
            image, label, _ = augmentation.scene(image, label, view, changes, view_seed, name)
        crop = {"image": image, "label": label}
        return crop | {"mix_seed": mix_seed} if mixes else crop

    def mixed(step):
        image, label = augmentation.mix(step["image"], step["label"], changes, step["mix_seed"])
        return {"image": image, "label": label}

    batches = _batches(split, example, order)
    batches = batches.map(mixed, order.num_parallel, deterministic=True) if mixes else batches
    return batches.prefetch(tf.data.AUTOTUNE)


def num_unaugmented(
    split: Split,
    view: views.View,
    step_order: order.Order,
    changes: amounts.Augmentation,
) -> int:
    """Count the images of `crops` whose geometry stays as it is; see `augmentation.scene`.

    No draw of their geometry left a labelled pixel. Label maps are read, and images are not.

    Args:
        split: the images, each with at least one labelled pixel.
        view: how an image is scaled and placed.
        step_order: the steps to count; `num_steps` must be set.
        changes: the augmentation.

    Raises:
        ValueError: if the split is empty, or `num_steps` is None.
    """
    if step_order.num_steps is None:
        raise ValueError("num_unaugmented counts a finite number of steps: set num_steps.")
    _check_split(split)
    label_files = tf.constant(split.label_files)

    def example(image_id, seed):
        label = views.read_label(tf.gather(label_files, image_id))
        view_seed, _ = tf.unstack(tf.random.split(seed))
        return {"is_augmented": augmentation.can_augment(label, view, changes, view_seed)}

    steps = order.batches(len(split.label_files), example, step_order)
    return sum(int((~step["is_augmented"]).sum()) for step in steps.as_numpy_iterator())


def _batches(split, of_pair: Callable, step_order):
    """Build the batches of the dicts that `of_pair` returns for each image of a step.

    Its arguments are (image, label map, file of the label map) and a seed.
    """
    _check_split(split)
    image_files, label_files = tf.constant(split.image_files), tf.constant(split.label_files)

    def example(image_id, seed):
        image_file, label_file = tf.gather(image_files, image_id), tf.gather(label_files, image_id)
        pair = views.read(image_file, label_file, split.num_bands)
        return of_pair((*pair, label_file), seed)

    return order.batches(len(split.image_files), example, step_order)


def _check_split(split):
    if not len(split.image_files):
        raise ValueError(
            "The split holds no images: check its name, and that some pixel of it is labelled."
        )
    if len(split.image_files) != len(split.label_files):
        raise ValueError(
            f"A split needs one label file for each image file, got {len(split.image_files)} image "
            f"files and {len(split.label_files)} label files."
        )
