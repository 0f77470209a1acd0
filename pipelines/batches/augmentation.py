"""Random changes of training images: geometry, colors, blur, noise and cutout.

All random numbers of an image are drawn once, from its own seed, and applied to the image and its
label map alike. Labels are only ever copied from the file, never interpolated. Pixels outside the
image become the pad color and void. All functions run in graph mode in tf.data.
"""

import math
from typing import NamedTuple

import tensorflow as tf

from pipelines.amounts import Augmentation
from pipelines.batches import affine, colors, views
from pipelines.datasets.spec import VOID

NUM_TRIES = 4
"""Draws of the geometry before an image is shown without augmentation. Source: ours."""


class Scene(NamedTuple):
    """The crop of one image.

    Attributes:
        image: uint8 [crop, crop, bands].
        label: uint8 [crop, crop], 255 = void, at least one other pixel.
        is_augmented: bool scalar, False where no draw of the geometry left a labelled pixel.
    """

    image: tf.Tensor
    label: tf.Tensor
    is_augmented: tf.Tensor


def scene(
    image: tf.Tensor,
    label: tf.Tensor,
    view: views.View,
    augmentation: Augmentation,
    seed: int | tf.Tensor = 0,
    name: str | tf.Tensor = "",
) -> Scene:
    """Show one labelled image through a random view with random changes.

    The geometry is drawn up to `NUM_TRIES` times, until the crop holds a labelled pixel. Otherwise
    the result is the view without augmentation (`views.draw_view`).

    Args:
        image: uint8 [height, width, bands].
        label: uint8 [height, width], 255 = void.
        view: size of the crop, mirror and pad color.
        augmentation: amounts of the changes.
        seed: int or int32 [2].
        name: string scalar, the label map's file for the error message.

    Raises:
        tf.errors.InvalidArgumentError: if no pixel of the label map is labelled.
    """
    view_seed, pixel_seed, box_seed = tf.unstack(tf.random.split(views.as_seed(seed), 3))
    placement, canvas, is_augmented = _accepted_placement(label, view, augmentation, view_seed)

    def augmented():
        shown = affine.show_image(image, placement)
        pixels = views.round_to_uint8(change_pixels(shown.pixels, augmentation, pixel_seed))
        pixels = _paint(pixels, tf.logical_not(shown.is_inside), view.pad_color)
        return cut_out(pixels, canvas, augmentation, view.pad_color, box_seed)

    def unchanged():
        return views.draw_canvas(image, label, view, view_seed, name)

    pixels, labels = tf.cond(is_augmented, augmented, unchanged)
    crop = view.crop
    return Scene(
        tf.ensure_shape(pixels, [crop, crop, image.shape[-1]]),
        tf.ensure_shape(labels, [crop, crop]),
        is_augmented,
    )


def can_augment(
    label: tf.Tensor, view: views.View, augmentation: Augmentation, seed: int | tf.Tensor
) -> tf.Tensor:
    """Return `Scene.is_augmented` of `scene` with the same arguments, without any image."""
    view_seed, _, _ = tf.unstack(tf.random.split(views.as_seed(seed), 3))
    return _accepted_placement(label, view, augmentation, view_seed)[2]


def _accepted_placement(label, view, augmentation, seed):
    """Draw placements until one shows the wanted pixels.

    Returns the last one, its label map, and whether it shows them.
    """
    wanted = views.draw_wanted(label, view, seed)
    tries_seed, _ = tf.unstack(tf.random.split(seed))

    def draw(attempt):
        attempt_seed = tf.random.fold_in(tries_seed, attempt)
        drawn = draw_placement(tf.shape(label), view, augmentation, wanted, attempt_seed)
        return drawn, affine.show_label(label, drawn)

    def is_rejected(_, __, canvas):
        return tf.logical_not(views.shows(canvas, wanted))

    def again(attempt, _, __):
        return (attempt + 1, *draw(attempt))

    _, placement, canvas = tf.while_loop(
        is_rejected, again, (1, *draw(0)), maximum_iterations=NUM_TRIES - 1
    )
    placement = placement._replace(crop=view.crop)  # the loop makes a tensor of the constant
    return placement, canvas, views.shows(canvas, wanted)


def draw_placement(
    size: tf.Tensor,
    view: views.View,
    augmentation: Augmentation,
    wanted: views.Wanted,
    seed: tf.Tensor,
) -> affine.Placement:
    """Draw scale, aspect, rotation, mirror and position of one crop.

    The position is drawn as in `views.draw_unlabelled_view`, at the drawn size and before the
    rotation. The crop then turns around its center. Where a class is wanted, its pixel takes a
    uniform place in the crop, as far as the crop then stays in the image.

    Args:
        size: int32 [2], (height, width) of the image.
        view: size of the crop and mirror.
        augmentation: the amounts.
        wanted: the class and pixel that the crop should show.
        seed: int32 [2].
    """
    factor_seed, origin_seed = tf.unstack(tf.random.split(seed))
    scale, aspect, turns, angle, coin, mirror = tf.unstack(
        tf.random.stateless_uniform([6], factor_seed)
    )
    factor = tf.exp((2 * scale - 1) * math.log(augmentation.scale))
    stretch = tf.exp((aspect - 0.5) * math.log(augmentation.aspect))
    factors = tf.stack([factor / stretch, factor * stretch])
    scaled = tf.cast(views.scaled_size(size, view), tf.float32) * factors
    scaled = tf.maximum(tf.cast(tf.round(scaled), tf.int32), 1)
    is_rotated = coin < augmentation.rotation_share
    degrees = tf.where(is_rotated, (2 * angle - 1) * augmentation.rotation, 0.0)
    if augmentation.quarter_turns:
        degrees += 90 * tf.floor(4 * turns)
    placement = affine.Placement(
        size=scaled,
        origin=tf.zeros([2], tf.int32),
        angle=degrees * (math.pi / 180),
        mirror=view.mirror & (mirror < 0.5),
        crop=view.crop,
    )
    return placement._replace(origin=_draw_origin(placement, size, view, wanted, origin_seed))


def _draw_origin(placement, size, view, wanted, seed):
    lowest, highest = views.origins(placement.size, view.crop)
    origin = views.uniform(lowest, highest, seed)
    if not view.rare_share:
        return origin
    place = views.uniform(tf.zeros_like(size), tf.fill([2], view.crop - 1), seed)
    shown = affine.origin_that_shows(placement, size, wanted.pixel, place)
    return tf.where(wanted.label < VOID, tf.clip_by_value(shown, lowest, highest), origin)


def change_pixels(pixels: tf.Tensor, augmentation: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Change colors, blur and add noise.

    Args:
        pixels: float32 [height, width, bands], 0..255. Saturation, hue and gray need three bands;
            other images keep them.
        augmentation: the amounts.
        seed: int32 [2].

    Returns:
        float32 of the same shape, 0..255.
    """
    color_seed, blur_seed, noise_seed = tf.unstack(tf.random.split(seed, 3))
    if augmentation.changes_colors:
        pixels = colors.change(pixels, _draw_color_change(augmentation, color_seed))
    if augmentation.blur * augmentation.blur_share > 0:
        deviation = _amount(augmentation.blur, augmentation.blur_share, blur_seed)
        pixels = colors.blur(pixels, deviation, augmentation.blur)
    if augmentation.noise * augmentation.noise_share > 0:
        draw_seed, noise_seed = tf.unstack(tf.random.split(noise_seed))
        deviation = _amount(augmentation.noise, augmentation.noise_share, draw_seed)
        pixels = colors.add_noise(pixels, deviation, noise_seed)
    return pixels


def _amount(largest, share, seed):
    """Return an amount uniform in 0..largest with probability `share`, else 0."""
    amount, coin = tf.unstack(tf.random.stateless_uniform([2], seed))
    return tf.where(coin < share, amount * largest, 0.0)


def _draw_color_change(augmentation, seed):
    brightness, contrast, saturation, hue, coin, gray = tf.unstack(
        tf.random.stateless_uniform([6], seed)
    )
    amount = tf.where(coin < augmentation.color_share, 1.0, 0.0)

    def around(draw, largest):
        return amount * (2 * draw - 1) * largest

    is_gray = gray < augmentation.gray_share
    return colors.Change(
        1 + around(brightness, augmentation.brightness),
        1 + around(contrast, augmentation.contrast),
        tf.where(is_gray, 0.0, 1 + around(saturation, augmentation.saturation)),
        around(hue, augmentation.hue),
    )


def cut_out(
    pixels: tf.Tensor,
    label: tf.Tensor,
    augmentation: Augmentation,
    pad_color: tuple[int, int, int],
    seed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Erase one box: the pad color in the image, void in the label map.

    A box that would erase all labelled pixels is left out. The labels below are void as in French
    et al. 2020, "Semi-supervised semantic segmentation needs strong, varied perturbations", who
    take erased pixels out of the loss.

    Args:
        pixels: uint8 [height, width, bands].
        label: uint8 [height, width].
        augmentation: `cutout` and `cutout_share`.
        pad_color: the color of the box.
        seed: int32 [2].

    Returns:
        (pixels, label) of the same shapes.
    """
    if not augmentation.cutout * augmentation.cutout_share > 0:
        return pixels, label
    is_erased = draw_box(
        tf.shape(label), (0.0, augmentation.cutout), augmentation.cutout_share, seed
    )
    remaining = tf.where(is_erased, tf.constant(VOID, tf.uint8), label)
    is_erased = is_erased & (tf.reduce_min(remaining) < VOID)
    return (
        _paint(pixels, is_erased, pad_color),
        tf.where(is_erased, tf.constant(VOID, tf.uint8), label),
    )


def _paint(pixels, mask, color):
    """Return uint8 pixels [height, width, bands] with one color where the mask is True."""
    # Most masks are empty, and broadcasting over the channels costs as much as a resampling.
    return tf.cond(
        tf.reduce_any(mask),
        lambda: tf.where(mask[..., None], tf.constant(color, tf.uint8), pixels),
        lambda: pixels,
    )


def mix(
    images: tf.Tensor, labels: tf.Tensor, augmentation: Augmentation, seeds: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Let neighbors exchange one box of pixels and labels (Yun et al. 2019, CutMix).

    Images 2 i and 2 i + 1 are neighbors. The last image of an odd number stays as it is. An image
    that would lose all labelled pixels stays as it is too.

    Args:
        images: uint8 [num, height, width, bands], with a static num.
        labels: uint8 [num, height, width].
        augmentation: `mix` and `mix_share`.
        seeds: int32 [num, 2], one per image.

    Returns:
        (images, labels) of the same shapes.
    """
    num_mixed = images.shape[0] // 2 * 2
    order = [i ^ 1 if i < num_mixed else i for i in range(images.shape[0])]
    areas = (min(MIX_AREA, augmentation.mix), augmentation.mix)
    boxes = [
        draw_box(tf.shape(labels)[1:], areas, augmentation.mix_share, seeds[i])
        for i in range(0, images.shape[0], 2)
    ]
    is_other = tf.repeat(tf.stack(boxes), 2, axis=0)[: images.shape[0]]
    mixed = tf.where(is_other, tf.gather(labels, order), labels)
    is_other &= (tf.reduce_min(mixed, axis=[1, 2]) < VOID)[:, None, None]
    return (
        tf.where(is_other[..., None], tf.gather(images, order), images),
        tf.where(is_other, mixed, labels),
    )


MIX_AREA = 0.02
"""Smallest share of the crop that a box of `mix` covers. Source: UniMatch V2."""


def draw_box(
    size: tf.Tensor, areas: tuple[float, float], share: float, seed: tf.Tensor
) -> tf.Tensor:
    """Return a mask, bool [height, width], that is True inside of one random box.

    The area is uniform, the side ratio log-uniform in 0.3..3.3 (UniMatch V2). The box lies inside.

    Args:
        size: int32 [2], (height, width).
        areas: smallest and largest area as shares of height * width.
        share: probability of a box; without one, the mask is False.
        seed: int32 [2].
    """
    area, ratio, y, x, coin = tf.unstack(tf.random.stateless_uniform([5], seed))
    area = areas[0] + area * (areas[1] - areas[0])
    stretch = tf.exp((ratio - 0.5) * math.log(BOX_RATIO))
    sides = tf.minimum(tf.sqrt(area) * tf.stack([stretch, 1 / stretch]), 1.0)
    height_and_width = tf.cast(size, tf.float32)
    start = tf.stack([y, x]) * (1 - sides) * height_and_width
    end = start + sides * height_and_width
    rows, columns = (
        (tf.range(length) + 0.5 >= first) & (tf.range(length) + 0.5 < last)
        for length, first, last in zip(
            *map(tf.unstack, (height_and_width, start, end)), strict=True
        )
    )
    return rows[:, None] & columns & (coin < share)


BOX_RATIO = 3.3
"""Largest ratio of the sides of an erased box. Source: UniMatch V2."""
