"""Show an image and its label map through one affine placement, resampled once.

Scale, aspect, rotation, mirror and crop are one map from pixels of the crop to pixels of the file.
Labels are the nearest pixel of the file. Images are bilinear. An image that shrinks is first
reduced with antialiasing to the wanted size, only where the crop needs it.

Coordinates are continuous: pixel i spans i..i + 1.
"""

from typing import NamedTuple

import tensorflow as tf

from pipelines.batches import views
from pipelines.datasets.spec import VOID


class Placement(NamedTuple):
    """One drawn crop of the image scaled to `size`.

    Attributes:
        size: int32 [2], (height, width) of the whole image after scaling, in pixels.
        origin: int32 [2], (y, x) of the crop's upper left pixel before it turns.
        angle: float32 scalar in radians. The crop turns by it around its center.
        mirror: bool scalar, True for a left-right flip of the crop.
        crop: int, side of the crop in pixels.
    """

    size: tf.Tensor
    origin: tf.Tensor
    angle: tf.Tensor
    mirror: tf.Tensor
    crop: int


class Shown(NamedTuple):
    """The pixels that a crop shows.

    Attributes:
        pixels: float32 [crop, crop, bands], 0..255. Outside the image they repeat its border.
        is_inside: bool [crop, crop], True inside the image.
    """

    pixels: tf.Tensor
    is_inside: tf.Tensor


def show_label(label: tf.Tensor, placement: Placement) -> tf.Tensor:
    """Return the label map inside the crop, nearest neighbor.

    Args:
        label: uint8 [height, width].
        placement: the placement.

    Returns:
        uint8 [crop, crop], 255 outside the image.
    """
    size = tf.shape(label)
    y, x = _positions(placement, size)
    rows, columns = tf.cast(tf.floor(y), tf.int32), tf.cast(tf.floor(x), tf.int32)
    is_inside = _is_inside(y, x, size)
    index = tf.where(is_inside, rows * size[1] + columns, 0)
    labels = tf.gather(tf.reshape(label, [-1]), index)
    return tf.where(is_inside, labels, tf.constant(VOID, tf.uint8))


def show_image(image: tf.Tensor, placement: Placement) -> Shown:
    """Return the image inside the crop.

    Args:
        image: uint8 [height, width, bands].
        placement: the placement.
    """
    size = tf.shape(image)[:2]
    reduced = tf.minimum(placement.size, size)
    start, end = _window(placement, reduced)
    part = tf.cond(
        tf.reduce_any(reduced != size),
        lambda: views.scaled_part(image, reduced, start, end - start),
        lambda: tf.slice(
            image, tf.pad(start, [[0, 1]]), tf.concat([end - start, image.shape[-1:]], axis=0)
        ),
    )
    matrix, offset = _map(placement, reduced)
    # The op counts from the centers of pixels, and has (x, y) in place of (y, x).
    offset += 0.5 * tf.reduce_sum(matrix, axis=1) - 0.5 - tf.cast(start, tf.float32)
    rows = tf.concat([tf.reverse(matrix, [0, 1]), tf.reverse(offset, [0])[:, None]], axis=1)
    pixels = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(part, tf.float32)[None],
        transforms=tf.pad(tf.reshape(rows, [6]), [[0, 2]])[None],
        output_shape=[placement.crop, placement.crop],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )[0]
    return Shown(pixels, _is_inside(*_positions(placement, size), size))


def origin_that_shows(
    placement: Placement, size: tf.Tensor, pixel: tf.Tensor, place: tf.Tensor
) -> tf.Tensor:
    """Return the origin at which a pixel of the file appears at a place of the crop.

    Args:
        placement: the placement; its own origin is not used.
        size: int32 [2], (height, width) of the file.
        pixel: int32 [2], (y, x) in the file.
        place: int32 [2], (y, x) in the crop.

    Returns:
        int32 [2].
    """
    placement = placement._replace(origin=tf.zeros([2], tf.int32))
    matrix, offset = _map(placement, placement.size)
    factor = tf.cast(placement.size, tf.float32) / tf.cast(size, tf.float32)
    at_origin = tf.linalg.matvec(matrix, tf.cast(place, tf.float32) + 0.5) + offset
    target = (tf.cast(pixel, tf.float32) + 0.5) * factor
    return tf.cast(tf.round(target - at_origin), tf.int32)


def _map(placement, size):
    """Return matrix [2, 2] and offset [2] from (y, x) of the crop to the image at `size`."""
    half = placement.crop / 2
    cosine, sine = tf.cos(placement.angle), tf.sin(placement.angle)
    side = tf.where(placement.mirror, -1.0, 1.0)
    turn = tf.stack([[cosine, -sine * side], [sine, cosine * side]])
    factor = tf.cast(size, tf.float32) / tf.cast(placement.size, tf.float32)
    matrix = turn * factor[:, None]
    center = (tf.cast(placement.origin, tf.float32) + half) * factor
    return matrix, center - half * tf.reduce_sum(matrix, axis=1)


def _positions(placement, size):
    """Return y and x in the image at `size` of all centers of the crop's pixels."""
    matrix, offset = _map(placement, size)
    steps = tf.range(placement.crop, dtype=tf.float32) + 0.5
    grid = matrix[:, 0, None, None] * steps[:, None] + matrix[:, 1, None, None] * steps
    return tf.unstack(grid + offset[:, None, None])


def _is_inside(y, x, size):
    height, width = tf.unstack(tf.cast(size, tf.float32))
    return (y >= 0) & (y < height) & (x >= 0) & (x < width)


def _window(placement, size):
    """Return the box of the image at `size` that the crop needs: two int32 [2]."""
    matrix, offset = _map(placement, size)
    half = placement.crop / 2
    center = offset + half * tf.reduce_sum(matrix, axis=1)
    extent = half * tf.reduce_sum(tf.abs(matrix), axis=1) + 1
    start = tf.cast(tf.floor(center - extent), tf.int32)
    end = tf.cast(tf.math.ceil(center + extent), tf.int32)
    start = tf.clip_by_value(start, 0, size - 1)
    return start, tf.clip_by_value(end, start + 1, size)
