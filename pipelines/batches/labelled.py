"""tf.data pipelines of labelled images: element k is the data of training step k, a pure function
of (seed, k); see `pipelines.steps`.
"""

from collections.abc import Callable

import tensorflow as tf

from pipelines.batches import mix, order, views
from pipelines.datasets.spec import Split


def patches(
    split: Split,
    *,
    num_images: int,
    patches_per_image: int,
    min_size: int,
    max_size: int,
    patch_size: int = 128,
    crop: int,
    shorter_side: int | None = None,
    rule: str = "paper",
    background_label: int | None = None,
    background_share: float = 0.1,
    class_balanced: bool = False,
    pad_color: tuple[int, int, int] = (0, 0, 0),
    mirror: bool = True,
    share: order.Share = order.WHOLE,
    seed: int | tf.Tensor = 0,
    start_step: int | tf.Tensor = 0,
    num_steps: int | tf.Tensor | None = None,
    num_parallel: int = tf.data.AUTOTUNE,
) -> tf.data.Dataset:
    """Builds the data of mix-and-match tuning: labelled patches of some images (M&M paper, Mix).

    An image is scaled, mirrored and placed in a canvas as `ops.draw_view` says; patches are drawn
    and cut inside the canvas as `patches.sample_boxes` and `patches.cut` say. What lies outside of
    canvas or image is pad_color.

    Args:
        split: the images, each with a labelled pixel: `image_files` and `label_files`, equally
            many.
        num_images: images of a step, of all shares together.
        patches_per_image: patches of an image.
        min_size: smallest side of a box in pixels of the canvas, even.
        max_size: largest side, even.
        patch_size: side in pixels to which boxes are resized; 128 in the paper.
        crop: side of the canvas in pixels; 512 in the released code.
        shorter_side: images whose shorter side is larger are scaled down to it first; None for the
            images as they are.
        rule: overlap rule, "paper" or "release".
        background_label: id of the background class, None if there is none.
        background_share: share of patches centered on background.
        class_balanced: draw patch centers by class first.
        pad_color: color outside the image, three ints in 0..255.
        mirror: mirror images with probability 1/2.
        share: the part of each step's images to yield, for one of several replicas.
        seed: int or int32 [2].
        start_step: the first step to yield; a scalar tensor inside of another dataset.
        num_steps: the step to stop before, so num_steps - start_step elements come; None for no
            end.
        num_parallel: images worked on at once; it changes the speed, not the data.

    Returns:
        Dataset of {"patches" uint8 [num_images * patches_per_image, patch_size, patch_size, 3],
        "labels" int32 [num_images * patches_per_image]}, the patches of an image side by side; of
        a share, those of its images.

    Raises:
        ValueError: an argument is out of range, or the split is empty.
    """
    mix.check_sampling(
        patches_per_image, min_size, max_size, rule, background_label, background_share
    )
    order.check_at_least_one(patch_size=patch_size)
    mix.check_pad_color(pad_color)

    def from_view(part, label, view, seed):
        boxes, labels = mix.sample_boxes(
            label,
            num_patches=patches_per_image,
            min_size=min_size,
            max_size=max_size,
            rule=rule,
            background_label=background_label,
            seed=seed,
            background_share=background_share,
            class_balanced=class_balanced,
            mirror=view.mirror,
            bounds=_canvas_in_part(view),
        )
        return {"patches": mix.cut(part, boxes, patch_size, pad_color), "labels": labels}

    batches = _batches(
        split,
        from_view,
        num_images=num_images,
        crop=crop,
        shorter_side=shorter_side,
        mirror=mirror,
        share=share,
        seed=seed,
        start_step=start_step,
        num_steps=num_steps,
        num_parallel=num_parallel,
    )
    num_patches = num_images // share.count * patches_per_image
    joined = _side_by_side(batches, num_patches, patch_size)
    return joined.prefetch(tf.data.AUTOTUNE)


def _canvas_in_part(view):
    """The canvas as a box int32 [4] in the part of the image that lies in it."""
    offset = tf.maximum(-view.origin, 0)
    return tf.concat([-offset, view.crop - offset], axis=0)


def _side_by_side(batches, num_patches, patch_size):
    """Joins the images of a step and the patches of an image to one axis."""

    def join(step):
        return {
            "patches": tf.reshape(step["patches"], [num_patches, patch_size, patch_size, 3]),
            "labels": tf.reshape(step["labels"], [num_patches]),
        }

    return batches.map(join)


def crops(
    split: Split,
    *,
    num_images: int,
    crop: int,
    shorter_side: int | None = None,
    pad_color: tuple[int, int, int] = (0, 0, 0),
    mirror: bool = True,
    share: order.Share = order.WHOLE,
    seed: int | tf.Tensor = 0,
    start_step: int | tf.Tensor = 0,
    num_steps: int | tf.Tensor | None = None,
    num_parallel: int = tf.data.AUTOTUNE,
) -> tf.data.Dataset:
    """Builds the data of fine-tuning: each step, square crops of some images with their label maps.

    Args: see `patches`.

    Returns:
        Dataset of {"image" uint8 [num_images, crop, crop, 3], "label" uint8 [num_images, crop,
        crop]}; outside of the image they are pad_color and 255.

    Raises:
        ValueError: an argument is out of range, or the split is empty.
    """
    mix.check_pad_color(pad_color)

    def from_view(part, label, view, _):
        offset = tf.maximum(-view.origin, 0)
        image = views.pad(part, offset, crop - offset - tf.shape(part)[:2], pad_color)
        image = tf.ensure_shape(image, [crop, crop, 3])
        return {"image": image, "label": views.label_canvas(label, view)}

    batches = _batches(
        split,
        from_view,
        num_images=num_images,
        crop=crop,
        shorter_side=shorter_side,
        mirror=mirror,
        share=share,
        seed=seed,
        start_step=start_step,
        num_steps=num_steps,
        num_parallel=num_parallel,
    )
    return batches.prefetch(tf.data.AUTOTUNE)


def _batches(
    split,
    from_view: Callable,
    *,
    num_images,
    crop,
    shorter_side,
    mirror,
    share,
    seed,
    start_step,
    num_steps,
    num_parallel,
):
    """Batches of what `from_view` makes of each image of a step.

    Its arguments are the part of the image that lies in the canvas, that of the label map (not
    mirrored), the view, and a seed.
    """
    _check_split(split)
    order.check_at_least_one(crop=crop)
    if shorter_side is not None:
        order.check_at_least_one(shorter_side=shorter_side)
    image_files, label_files = tf.constant(split.image_files), tf.constant(split.label_files)

    def example(image_id, seed):
        view_seed, seed = tf.unstack(tf.random.split(seed))
        image_file, label_file = tf.gather(image_files, image_id), tf.gather(label_files, image_id)
        image, label = views.read(image_file, label_file)
        view, label = views.draw_view(label, crop, shorter_side, mirror, view_seed, name=label_file)
        part, _ = views.view_image(image, view)
        return from_view(part, label, view, seed)

    return order.batches(
        len(split.image_files),
        example,
        num_images=num_images,
        share=share,
        seed=seed,
        start_step=start_step,
        num_steps=num_steps,
        num_parallel=num_parallel,
    )


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
