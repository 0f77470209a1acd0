"""Inputs of the colorization proxy (Larsson, Maire, Shakhnarovich, "Colorization as a proxy task",
CVPR 2017): image crops, and the hue and chroma of some of their pixels.

The crop is yielded in color; that the network sees its lightness alone is the model's duty.
"""

from collections.abc import Sequence

import tensorflow as tf

from pipelines.batches import mix, order, views
from pipelines.datasets.spec import suggest

TARGETS = ("pixel", "histogram")

# Of a bin. The bins of 8-bit colors lie on a bin's edge or at least 1/765 of a bin from it, so
# that with this margin rounding errors never decide.
_MARGIN = 1e-4


def batches(
    files: Sequence[str],
    *,
    num_images: int,
    crop: int = 224,
    num_points: int = 256,
    border: int | None = None,
    targets: str = "pixel",
    num_bins: int = 32,
    window: int = 7,
    shorter_side: int | None = None,
    enlarge: bool = False,
    pad_color: tuple[int, int, int] = (0, 0, 0),
    mirror: bool = True,
    share: order.Share = order.WHOLE,
    seed: int | tf.Tensor = 0,
    start_step: int | tf.Tensor = 0,
    num_steps: int | tf.Tensor | None = None,
    num_parallel: int = tf.data.AUTOTUNE,
) -> tf.data.Dataset:
    """Builds the data of the colorization proxy: each step, crops of some images with the colors
    of random points.

    The view of an image is drawn as `ops.draw_unlabelled_view` says. Points are uniform, with
    replacement, over the pixels of the image at least `border` pixels from the canvas's border;
    along an axis where the image has no such pixel, over all its pixels. None lies on padding,
    whose color is nobody's (the released code has points there too: images smaller than the crop).

    Args:
        files: paths of JPEG, PNG or BMP images, `unlabelled.find` has them.
        num_images: images of a step.
        crop: side of the square crop in pixels, 224 for VGG-16 and 227 for AlexNet in the released
            code.
        num_points: points of an image; 256 in the released colorize_hypercolumn.py, 128 in its
            variants and in 2016.
        border: distance of the points from the canvas's border in pixels; None for the released 32
            pixels of 224, and for smaller crops the same share of them, crop // 7.
        targets: "pixel", class ids of the point's own color (2017), or "histogram", the
            distribution over a window around it (2016).
        num_bins: bins of hue and of chroma.
        window: side of the histogram's window in pixels, odd.
        shorter_side: images whose shorter side is larger are scaled down to it first; None for the
            images as they are.
        enlarge: scale smaller images up so that they fill the crop, instead of padding them.
        pad_color: color outside the image, three ints in 0..255; black in the released code.
        mirror: mirror images with probability 1/2.
        share: the part of each step's images to yield, for one of several replicas.
        seed: int or int32 [2].
        start_step: the first step to yield; a scalar tensor inside of another dataset.
        num_steps: the step to stop before, so num_steps - start_step elements come; None for no
            end.
        num_parallel: images worked on at once; it changes the speed, not the data.

    Returns:
        Dataset of {"image" uint8 [num_images, crop, crop, 3]; "points" int32 [num_images,
        num_points, 2] as (y, x); "hue" and "chroma", with targets="pixel" int32 [num_images,
        num_points] of 0..num_bins - 1, with "histogram" float32 [num_images, num_points, num_bins]
        that sum to 1; "chroma_value" and "lightness", float32 [num_images, num_points] in 0..1, of
        the point's own color}.

    Raises:
        ValueError: an argument is out of range, or there is no file.
    """
    border = min(32, crop // 7) if border is None else border
    _check(crop, num_points, border, targets, num_bins, window, shorter_side)
    mix.check_pad_color(pad_color)
    paths = tf.constant(list(files), tf.string)

    def example(image_id, seed):
        view_seed, point_seed = tf.unstack(tf.random.split(seed))
        image = views.read_image(paths[image_id])
        size = tf.shape(image)[:2]
        view = views.draw_unlabelled_view(size, crop, shorter_side, mirror, view_seed, enlarge)
        part, offset = views.view_image(image, view)
        after = crop - offset - tf.shape(part)[:2]
        canvas = views.pad(part, offset, after, pad_color)
        points = draw_points(tf.shape(part)[:2], offset, crop, border, num_points, point_seed)
        colors = color_targets(part, points, num_bins, window if targets == "histogram" else None)
        image = tf.ensure_shape(canvas, [crop, crop, 3])
        return {"image": image, "points": points + offset, **colors}

    elements = order.batches(
        len(files),
        example,
        num_images=num_images,
        share=share,
        seed=seed,
        start_step=start_step,
        num_steps=num_steps,
        num_parallel=num_parallel,
    )
    return elements.prefetch(tf.data.AUTOTUNE)


def draw_points(
    size: tf.Tensor,
    offset: tf.Tensor,
    crop: int,
    border: int,
    num_points: int,
    seed: int | tf.Tensor = 0,
) -> tf.Tensor:
    """Draws points of the part of an image that lies in a canvas; see `batches` for the rule.

    Args:
        size: int32 [2], (height, width) of the part.
        offset: int32 [2], (y, x) of the part in the canvas.
        crop: side of the canvas in pixels.
        border: distance of the points from the canvas's border in pixels.
        num_points: number of points.
        seed: int or int32 [2].

    Returns:
        int32 [num_points, 2] of (y, x) in the part.
    """
    lowest = tf.maximum(border - offset, 0)
    highest = tf.minimum(crop - border - offset, size) - 1
    is_empty = lowest > highest
    lowest = tf.where(is_empty, 0, lowest)
    highest = tf.where(is_empty, size - 1, highest)
    shape = [num_points, 2]
    lowest, highest = tf.broadcast_to(lowest, shape), tf.broadcast_to(highest, shape)
    return views.uniform(lowest, highest, views.as_seed(seed))


def color_targets(
    image: tf.Tensor, points: tf.Tensor, num_bins: int = 32, window: int | None = None
) -> dict[str, tf.Tensor]:
    """The colors of an image at some points, as a network is to predict them.

    Args:
        image: uint8 [height, width, 3].
        points: int32 [P, 2] of (y, x), all in the image.
        num_bins: bins of hue and of chroma.
        window: side of the histogram's window in pixels, odd; None for class ids of the point
            itself.

    Returns:
        {"hue", "chroma", "chroma_value", "lightness"}, see `batches`, without the first axis.
    """
    colors = tf.gather_nd(image, points)
    hue, chroma = hue_and_chroma(colors)
    values = {"hue": hue, "chroma": chroma}
    if window is None:
        targets = {name: bin_index(value, num_bins) for name, value in values.items()}
    else:
        nearby, inside = _windows(image, points, window)
        values = dict(zip(values, hue_and_chroma(nearby), strict=True))
        targets = {
            name: histogram(bin_index(value, num_bins), inside, num_bins)
            for name, value in values.items()
        }
    lightness = tf.reduce_mean(tf.cast(colors, tf.float32), axis=-1) / 255
    return {**targets, "chroma_value": chroma, "lightness": lightness}


def hue_and_chroma(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Hue as in HSV, red 0, green 1/3, blue 2/3, 0 where there is no color; chroma max - min.

    Args:
        pixels: uint8 or float [..., 3], RGB in 0..255.

    Returns:
        (hue float32 [...] in 0..1, 1 excluded, chroma float32 [...] in 0..1).
    """
    pixels = tf.cast(pixels, tf.float32) / 255
    hue = tf.image.rgb_to_hsv(pixels)[..., 0]
    return hue, tf.reduce_max(pixels, axis=-1) - tf.reduce_min(pixels, axis=-1)


def bin_index(values: tf.Tensor, num_bins: int = 32) -> tf.Tensor:
    """min(num_bins - 1, floor(v * num_bins)) of values in 0..1; int32.

    This is the rule of 2016 (uniform_to_histogram_layer.cpp); the code of 2017 has floor(v * 32 *
    0.99999), which differs where v is a multiple of 1/32 alone.
    """
    index = tf.floor(tf.cast(values, tf.float32) * num_bins + _MARGIN)
    return tf.minimum(tf.cast(index, tf.int32), num_bins - 1)


def histogram(bins: tf.Tensor, inside: tf.Tensor, num_bins: int = 32) -> tf.Tensor:
    """Shares of the bins among those `inside`, of which there must be one.

    Args:
        bins: int32 [..., N].
        inside: bool [..., N].

    Returns:
        float32 [..., num_bins], sum 1.
    """
    weights = tf.cast(inside, tf.float32)
    counts = tf.reduce_sum(tf.one_hot(bins, num_bins) * weights[..., None], axis=-2)
    return counts / tf.reduce_sum(weights, axis=-1, keepdims=True)


def _windows(image, points, window):
    """Colors [P, window^2, 3] of the windows around points, and which of them the image has."""
    reach = tf.range(window) - window // 2
    around = tf.reshape(tf.stack(tf.meshgrid(reach, reach, indexing="ij"), -1), [-1, 2])
    places = points[:, None] + around
    size = tf.shape(image)[:2]
    inside = tf.reduce_all((places >= 0) & (places < size), axis=-1)
    return tf.gather_nd(image, tf.clip_by_value(places, 0, size - 1)), inside


def _check(crop, num_points, border, targets, num_bins, window, shorter_side):
    order.check_at_least_one(crop=crop, num_points=num_points, num_bins=num_bins, window=window)
    if shorter_side is not None:
        order.check_at_least_one(shorter_side=shorter_side)
    if not 0 <= 2 * border < crop:
        raise ValueError(
            f"border must leave pixels of the crop: 0 <= 2 * border < {crop}, got {border}."
        )
    if window % 2 == 0:
        raise ValueError(f"window must be odd, so that it has a middle pixel, got {window}.")
    if targets not in TARGETS:
        raise ValueError(
            f"targets must be one of {', '.join(TARGETS)}, got {targets!r}."
            f"{suggest(str(targets), TARGETS)}"
        )
