"""Inputs of the colorization proxy: image crops, and hue and chroma of some of their pixels.

The proxy is described in Larsson, Maire, Shakhnarovich, "Colorization as a proxy task", CVPR 2017.
The crops are in color. The model itself reduces them to lightness before the network sees them.
"""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from pipelines.amounts import check_at_least_one
from pipelines.batches import order, views
from pipelines.datasets.spec import suggest

TARGETS = ("pixel", "histogram")

# As a fraction of a bin. 8-bit colors lie on a bin's edge or at least 1/765 of a bin away from it,
# so with this margin rounding errors never change a bin.
_MARGIN = 1e-4


@dataclasses.dataclass(frozen=True)
class Points:
    """The settings of the points whose colors are predicted, and of their targets.

    Attributes:
        num_points: int, points of an image; 256 in the released colorize_hypercolumn.py, 128 in its
            variants and in 2016.
        border: int, smallest distance of the points from the canvas's border in pixels. None means
            32 pixels, as released for a crop of 224, and crop // 7 for smaller crops.
        targets: "pixel", class ids of the point's own color (2017), or "histogram", the color
            distribution in a window around the point (2016).
        num_bins: int, bins of hue and of chroma.
        window: int, side of the histogram's window in pixels, odd.

    Raises:
        ValueError: if a value is out of range.

    Example:
        >>> Points().border_of(224), Points().border_of(56)
        (32, 8)
    """

    num_points: int = 256
    border: int | None = None
    targets: str = "pixel"
    num_bins: int = 32
    window: int = 7

    def __post_init__(self):
        check_at_least_one(num_points=self.num_points, num_bins=self.num_bins, window=self.window)
        if self.window % 2 == 0:
            raise ValueError(
                f"window must be odd, so that it has a middle pixel, got {self.window}."
            )
        if self.targets not in TARGETS:
            raise ValueError(
                f"targets must be one of {', '.join(TARGETS)}, got {self.targets!r}."
                f"{suggest(str(self.targets), TARGETS)}"
            )

    def border_of(self, crop: int) -> int:
        """Return the border for a crop in pixels.

        Raises:
            ValueError: if the border leaves no pixel of the crop.
        """
        border = min(32, crop // 7) if self.border is None else self.border
        if not 0 <= 2 * border < crop:
            raise ValueError(
                f"border must leave pixels of the crop: 0 <= 2 * border < {crop}, got {border}."
            )
        return border


def batches(
    files: Sequence[str], points: Points, view: views.View, order: order.Order
) -> tf.data.Dataset:
    """Build the data of the colorization proxy: image crops with the colors of random points.

    The view of an image is drawn by `views.draw_unlabelled_view`. Points are uniform, with
    replacement, over the pixels of the image at least `border` pixels from the canvas's border.
    Along an axis where the image has no such pixel, they are uniform over all its pixels. No point
    is on padding, because padding has no true color. (The released code places points there too,
    for images smaller than the crop.)

    Args:
        files: paths of JPEG, PNG or BMP images; `unlabelled.find` returns them.
        points: the settings of points and targets.
        view: how an image is scaled and placed. The crop of the released code is 224 for VGG-16 and
            227 for AlexNet, and its pad color is black.
        order: which images a step shows.

    Returns:
        Dataset of dicts with these keys, where N is order.num_own:
        "image": uint8 [N, crop, crop, 3].
        "points": int32 [N, num_points, 2], (y, x).
        "hue" and "chroma": with targets="pixel" int32 [N, num_points] in 0..num_bins - 1, with
            "histogram" float32 [N, num_points, num_bins] with sum 1.
        "chroma_value" and "lightness": float32 [N, num_points] in 0..1, of the point's own color.

    Raises:
        ValueError: if the border leaves no pixel of the crop, or if there is no file.

    Example:
        >>> Points(num_points=16)
        Points(num_points=16, border=None, targets='pixel', num_bins=32, window=7)
        >>> batches(files, Points(), view, order)  # doctest: +SKIP
    """
    return _batches(files, points, view, order).prefetch(tf.data.AUTOTUNE)


def _batches(files, settings, view, step_order):
    crop, border = view.crop, settings.border_of(view.crop)
    window = settings.window if settings.targets == "histogram" else None
    paths = tf.constant(list(files), tf.string)

    def example(image_id, seed):
        view_seed, point_seed = tf.unstack(tf.random.split(seed))
        image = views.read_image(paths[image_id])
        placement = views.draw_unlabelled_view(tf.shape(image)[:2], view, view_seed)
        part, offset = views.view_image(image, placement)
        canvas = views.image_canvas(part, offset, view)
        size = tf.shape(part)[:2]
        points = draw_points(size, offset, crop, border, settings.num_points, point_seed)
        colors = color_targets(part, points, settings.num_bins, window)
        return {"image": canvas, "points": points + offset, **colors}

    return order.batches(len(files), example, step_order)


def draw_points(
    size: tf.Tensor,
    offset: tf.Tensor,
    crop: int,
    border: int,
    num_points: int,
    seed: int | tf.Tensor = 0,
) -> tf.Tensor:
    """Draw points of the part of an image inside a canvas; see `batches` for the rule.

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
    """Return the colors of an image at some points, as targets of a network.

    Args:
        image: uint8 [height, width, 3].
        points: int32 [P, 2] of (y, x), all in the image.
        num_bins: bins of hue and of chroma.
        window: side of the histogram's window in pixels, odd; None for class ids of the point
            itself.

    Returns:
        {"hue", "chroma", "chroma_value", "lightness"}, see `batches`, without the first axis.

    Example:
        >>> red = tf.constant([[[255, 0, 0]]], tf.uint8)
        >>> {k: float(v[0]) for k, v in color_targets(red, tf.constant([[0, 0]])).items()}
        {'hue': 0.0, 'chroma': 31.0, 'chroma_value': 1.0, 'lightness': 0.3333333432674408}
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
    """Return hue and chroma of colors.

    Hue is defined as in HSV: red 0, green 1/3, blue 2/3, and 0 for grays. Chroma is max - min.

    Args:
        pixels: uint8 or float [..., 3], RGB in 0..255.

    Returns:
        (hue float32 [...] in 0..1, 1 excluded, chroma float32 [...] in 0..1).

    Example:
        >>> hue, chroma = hue_and_chroma(tf.constant([[0, 0, 255], [7, 7, 7]]))
        >>> hue.numpy().round(3), chroma.numpy()
        (array([0.667, 0.   ], dtype=float32), array([1., 0.], dtype=float32))
    """
    pixels = tf.cast(pixels, tf.float32) / 255
    hue = tf.image.rgb_to_hsv(pixels)[..., 0]
    return hue, tf.reduce_max(pixels, axis=-1) - tf.reduce_min(pixels, axis=-1)


def bin_index(values: tf.Tensor, num_bins: int = 32) -> tf.Tensor:
    """Return min(num_bins - 1, floor(v * num_bins)) for values in 0..1; int32.

    This is the rule of 2016 (uniform_to_histogram_layer.cpp). The code of 2017 uses floor(v * 32 *
    0.99999), which differs only where v is a multiple of 1/32.

    Example:
        >>> bin_index(tf.constant([0.0, 0.5, 1.0])).numpy()
        array([ 0, 16, 31], dtype=int32)
    """
    index = tf.floor(tf.cast(values, tf.float32) * num_bins + _MARGIN)
    return tf.minimum(tf.cast(index, tf.int32), num_bins - 1)


def histogram(bins: tf.Tensor, inside: tf.Tensor, num_bins: int = 32) -> tf.Tensor:
    """Return the share of each bin among the entries that are `inside`.

    Args:
        bins: int32 [..., N], bin of each entry.
        inside: bool [..., N], True for entries to count; at least one.
        num_bins: int, number of bins.

    Returns:
        float32 [..., num_bins], sum 1.

    Example:
        >>> histogram(tf.constant([0, 1, 1]), tf.constant([True, True, False]), 2).numpy()
        array([0.5, 0.5], dtype=float32)
    """
    weights = tf.cast(inside, tf.float32)
    counts = tf.reduce_sum(tf.one_hot(bins, num_bins) * weights[..., None], axis=-2)
    return counts / tf.reduce_sum(weights, axis=-1, keepdims=True)


def _windows(image, points, window):
    """Return the colors [P, window^2, 3] of windows around points, and whether each is inside."""
    reach = tf.range(window) - window // 2
    around = tf.reshape(tf.stack(tf.meshgrid(reach, reach, indexing="ij"), -1), [-1, 2])
    places = points[:, None] + around
    size = tf.shape(image)[:2]
    inside = tf.reduce_all((places >= 0) & (places < size), axis=-1)
    return tf.gather_nd(image, tf.clip_by_value(places, 0, size - 1)), inside
