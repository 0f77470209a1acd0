"""Joint geometry of an image and its label map: read, scale, mirror, place in a square canvas.

All random parameters of an image are drawn once, as a `View`; the image and the label map, if it
has one, are then shown through that one view, so that they cannot come apart. Images are uint8
[height, width, 3], label maps uint8 [height, width] with 255 = void; everything runs in graph mode
inside tf.data.
"""

import numbers
from typing import NamedTuple

import tensorflow as tf

from pipelines.datasets.spec import VOID


class View(NamedTuple):
    """How an image is seen: scaled to `size`, then mirrored or not, then through a square canvas.

    Attributes:
        size: int32 [2], (height, width) of the whole image after scaling, in pixels.
        mirror: bool scalar, True for a left-right flip.
        origin: int32 [2], (y, x) of the canvas's upper left pixel in the scaled, mirrored image;
            negative where the image is shorter than the canvas and thus placed inside it.
        crop: side of the canvas in pixels.
        may_scale: whether `size` may differ from the size of the file.
    """

    size: tf.Tensor
    mirror: tf.Tensor
    origin: tf.Tensor
    crop: int
    may_scale: bool


def read_image(file: str | tf.Tensor) -> tf.Tensor:
    """Reads and decodes one JPEG, PNG or BMP file; uint8 [height, width, 3].

    Raises:
        tf.errors.OpError: the file cannot be read or decoded.
    """
    image = tf.io.decode_image(tf.io.read_file(file), channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def read(image_file: tf.Tensor, label_file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads and decodes one image and its label map.

    Args:
        image_file: string scalar, path of a JPEG, PNG or BMP file.
        label_file: string scalar, path of an 8-bit gray PNG of class indices.

    Returns:
        (image uint8 [height, width, 3], label uint8 [height, width]).

    Raises:
        tf.errors.InvalidArgumentError: a file cannot be decoded, or the sizes differ (then both
        files are named). The builders decode every file once, so this needs a file that changed.
    """
    image = read_image(image_file)
    label = tf.squeeze(tf.io.decode_png(tf.io.read_file(label_file), channels=1), axis=2)
    same_size = tf.debugging.Assert(
        tf.reduce_all(tf.shape(image)[:2] == tf.shape(label)),
        [
            "An image and its label map must have one (height, width). Got",
            *(tf.shape(image)[:2], "of", image_file, "and", tf.shape(label), "of", label_file),
            "Remove or repair the pair.",
        ],
    )
    with tf.control_dependencies([same_size]):
        return tf.identity(image), tf.identity(label)


def draw_unlabelled_view(
    size: tf.Tensor,
    crop: int,
    shorter_side: int | None = None,
    mirror: bool = True,
    seed: int | tf.Tensor = 0,
    enlarge: bool = False,
) -> View:
    """Draws the view of an image that has no label map (scaled, mirrored, placed).

    Along each axis an image of at least `crop` pixels is cut at a uniform offset, a shorter one is
    placed at a uniform offset in the canvas, both ends included.

    Args:
        size: int32 [2], (height, width) of the image in pixels.
        crop: side of the canvas in pixels.
        shorter_side: images whose shorter side is larger are scaled down to it; None leaves all as
            they are.
        mirror: whether to mirror with probability 1/2.
        seed: int or int32 [2].
        enlarge: whether images whose shorter side is below `crop`, by themselves or after scaling
            down, are scaled so that it is `crop`; without it they are placed in the canvas.
    """
    scaled = _scaled_size(size, shorter_side, smallest=crop if enlarge else 1)
    return _draw_view(scaled, crop, mirror, seed, may_scale=enlarge or shorter_side is not None)


def draw_view(
    label: tf.Tensor,
    crop: int,
    shorter_side: int | None = None,
    mirror: bool = True,
    seed: int | tf.Tensor = 0,
    name: str | tf.Tensor = "",
) -> tuple[View, tf.Tensor]:
    """Draws the view of one image (scaled if too large, mirrored, placed) and looks at its labels.

    Along each axis an image of at least `crop` pixels is cut at a uniform offset, a shorter one is
    placed at a uniform offset in the canvas, both ends included (released code, two-datum Transform
    of data_transformer.cpp). A canvas without any labelled pixel teaches nothing, so instead of it
    one labelled pixel is drawn, and a canvas uniform among those that hold it. Where scaling down
    leaves no labelled pixel (sparse labels), one of the file is drawn and kept.

    Args:
        label: uint8 [height, width], 255 = void.
        crop: side of the canvas in pixels.
        shorter_side: images whose shorter side is larger are scaled down to it; None leaves all as
            they are.
        mirror: whether to mirror with probability 1/2.
        seed: int or int32 [2].
        name: string scalar, the label map's file for the error message.

    Returns:
        (view, the part of the label map that lies in the canvas: uint8 [h, w] with h, w <= crop,
        nearest neighbor, *not* mirrored; `label_canvas` finishes it).

    Raises:
        tf.errors.InvalidArgumentError: no pixel of the label map is labelled.
    """
    seed = as_seed(seed)
    size = _scaled_size(tf.shape(label), shorter_side)
    view = _draw_view(size, crop, mirror, seed, may_scale=shorter_side is not None)

    def another():
        pixel_seed, origin_seed = tf.unstack(tf.random.split(seed))
        whole = _whole_label(label, view, name, pixel_seed)
        pixel = _draw_labelled(whole, name, pixel_seed)
        pixel = tf.stack([pixel[0], _mirrored_column(pixel[1], size[1], view.mirror)])
        lowest, highest = _origins(size, crop)
        lowest, highest = tf.maximum(lowest, pixel - crop + 1), tf.minimum(highest, pixel)
        origin = uniform(lowest, highest, origin_seed)
        return origin, tf.slice(whole, *_window(view._replace(origin=origin)))

    part = _seen_label(label, view)
    is_labelled = tf.reduce_min(part) < VOID
    origin, part = tf.cond(is_labelled, lambda: (view.origin, part), another)
    return view._replace(origin=origin), tf.ensure_shape(part, [None, None])


def label_canvas(part: tf.Tensor, view: View) -> tf.Tensor:
    """Mirrors and places what `draw_view` returned; uint8 [crop, crop], 255 outside the image."""
    before = tf.maximum(-view.origin, 0)
    after = view.crop - before - tf.shape(part)
    canvas = pad(_mirrored(part[..., None], view), before, after, (VOID,))
    return tf.ensure_shape(canvas[..., 0], [view.crop, view.crop])


def view_image(image: tf.Tensor, view: View) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the part of the image that lies in the canvas of `view`, without padding.

    Scaling is bilinear with antialiasing and half-pixel centers. Only the part itself is computed.

    Args:
        image: uint8 [height, width, 3].
        view: the View that was drawn for the image.

    Returns:
        (part uint8 [h, w, 3], with h, w <= crop; offset int32 [2], the (y, x) of the part in the
        canvas).
    """
    corner, size = _window(view)
    part = _if_scaled(
        image,
        view,
        lambda: _scaled_part(image, view.size, corner, size),
        lambda: tf.slice(image, tf.concat([corner, [0]], 0), tf.concat([size, [3]], 0)),
    )
    return _mirrored(tf.ensure_shape(part, [None, None, 3]), view), tf.maximum(-view.origin, 0)


def pad(
    pixels: tf.Tensor, before: tf.Tensor, after: tf.Tensor, color: tuple[int, ...]
) -> tf.Tensor:
    """Surrounds pixels with one color.

    Args:
        pixels: uint8 [height, width, channels].
        before: int32 [2], rows above and columns to the left.
        after: int32 [2], rows below and columns to the right.
        color: one int in 0..255 for each channel.

    Returns:
        uint8 [before[0] + height + after[0], before[1] + width + after[1], channels].
    """
    rows = pad_rows(pixels, before, after, color)
    return tf.reshape(rows, [tf.shape(rows)[0], -1, len(color)])


def pad_rows(
    pixels: tf.Tensor, before: tf.Tensor, after: tf.Tensor, color: tuple[int, ...]
) -> tf.Tensor:
    """As `pad`, but leaves the columns and channels of a row on one axis: uint8 [rows, bytes]."""
    # tf.pad knows one value for all channels, and joining whole rows of bytes is faster.
    channels = len(color)
    sizes = tf.stack([before, tf.shape(pixels)[:2], after]) * [1, channels]
    (above, left), (height, middle), (below, right) = map(tf.unstack, tf.unstack(sizes))
    width = left + middle + right
    line = tf.tile(tf.constant(color, tf.uint8), [width // channels])

    def block(num_rows, length):
        return tf.broadcast_to(line[:length], tf.stack([num_rows, length]))

    rows = tf.reshape(pixels, tf.stack([height, middle]))
    rows = tf.concat([block(height, left), rows, block(height, right)], axis=1)
    return tf.concat([block(above, width), rows, block(below, width)], axis=0)


def round_to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Rounds float pixels in 0..255 to the nearest uint8, halves upwards as OpenCV does."""
    return tf.cast(pixels + 0.5, tf.uint8)


def as_seed(seed: int | tf.Tensor) -> tf.Tensor:
    """Makes the int32 [2] seed of TensorFlow's stateless ops from an int, or passes it on."""
    if isinstance(seed, numbers.Integral):
        # The lower 62 bits, so that numpy-style seeds beyond int32 do not collide.
        seed = [int(seed) & 0x7FFFFFFF, int(seed) >> 31 & 0x7FFFFFFF]
    seed = tf.convert_to_tensor(seed, tf.int32)
    if seed.shape != [2]:
        raise ValueError(f"seed must be an int or int32 [2], got shape {seed.shape}.")
    return seed


def uniform(lowest: tf.Tensor, highest: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws int32 uniformly from lowest..highest, both included, each element from its own range.

    The op behind it has one range for all, hence the remainder of a 62-bit draw, which is uniform
    to within a factor of 1 + 2^-30.
    """
    span = tf.cast(highest - lowest + 1, tf.int64)
    draw = tf.random.stateless_uniform(tf.shape(span), seed, 0, 2**62, tf.int64)
    return lowest + tf.cast(draw % span, tf.int32)


def _draw_view(size, crop, mirror, seed, may_scale):
    # One draw of three ranges: an image is worth a hundred small ops at most.
    lowest, highest = _origins(size, crop)
    lowest, highest = tf.pad(lowest, [[0, 1]]), tf.concat([highest, [1]], axis=0)
    drawn = uniform(lowest, highest, as_seed(seed))
    return View(size, mirror & (drawn[2] == 1), drawn[:2], crop, may_scale)


def _origins(size, crop):
    """The lowest and the highest (y, x) of a canvas that cuts an image, or that holds it."""
    return tf.minimum(size - crop, 0), tf.maximum(size - crop, 0)


def _scaled_size(size, shorter_side, smallest=1):
    """The (height, width) with the shorter side scaled down to `shorter_side`, up to `smallest`."""
    if shorter_side is None and smallest == 1:
        return size
    shorter = tf.reduce_min(size)
    target = shorter if shorter_side is None else tf.minimum(shorter, shorter_side)
    target = tf.maximum(target, smallest)
    return tf.maximum((2 * size * target + shorter) // (2 * shorter), 1)


def _window(view):
    """First (y, x) and size of what the canvas shows of the scaled image, before the mirror."""
    start = tf.maximum(view.origin, 0)
    end = tf.minimum(view.origin + view.crop, view.size)
    # Column x of the mirror image is column width - 1 - x.
    is_mirrored = tf.stack([False, view.mirror])
    return tf.where(is_mirrored, view.size - end, start), end - start


def _if_scaled(pixels, view, scaled, unscaled):
    """`scaled()` where the view scales the pixels, else `unscaled()`."""
    if not view.may_scale:
        return unscaled()
    return tf.cond(tf.reduce_any(view.size != tf.shape(pixels)[:2]), scaled, unscaled)


def _mirrored_column(column, width, mirror):
    return tf.where(mirror, width - 1 - column, column)


def _mirrored(part, view):
    """Flips [height, width, channels] left-right if the view is mirrored."""
    # Reversing along no axis costs as much as along one.
    return tf.cond(view.mirror, lambda: tf.reverse(part, [1]), lambda: part)


def _seen_label(label, view):
    """The part of the label map that lies in the canvas, not mirrored and without padding."""
    corner, size = _window(view)

    def nearest():
        # At half-pixel centers, as the image: floor((i + 1/2) * length / scaled length).
        ys, xs = (
            (2 * tf.range(corner[i], corner[i] + size[i]) + 1)
            * tf.shape(label)[i]
            // (2 * view.size[i])
            for i in range(2)
        )
        return tf.gather(tf.gather(label, ys), xs, axis=1)

    return _if_scaled(label, view, nearest, lambda: tf.slice(label, corner, size))


def _whole_label(label, view, name, seed):
    """The scaled label map, not mirrored; a labelled pixel of the file is put in if it has none."""

    def with_one():
        pixel = _draw_labelled(label, name, seed)
        place = pixel * view.size // tf.shape(label)
        return tf.tensor_scatter_nd_update(scaled, [place], [tf.gather_nd(label, pixel)])

    scaled = _seen_label(label, view._replace(origin=tf.zeros_like(view.size), crop=view.size))
    return tf.cond(tf.reduce_min(scaled) < VOID, lambda: scaled, with_one)


def _draw_labelled(label, name, seed):
    """Draws one labelled pixel, int32 [2]; raises, with the file's name, if there is none."""
    labelled = tf.where(label != VOID)
    found = tf.debugging.Assert(
        tf.size(labelled) > 0,
        ["No pixel of the label map", name, "is labelled at (height, width)", tf.shape(label)]
        + ["(255 is void). Leave it out of the split."],
    )
    with tf.control_dependencies([found]):
        index = uniform(0, tf.shape(labelled)[0] - 1, seed)
    return tf.cast(labelled[index], tf.int32)


def _scaled_part(image, size, corner, part_size):
    """Pixels corner..corner + part_size of the image scaled to `size`; no others are computed."""
    scale = tf.cast(size, tf.float32) / tf.cast(tf.shape(image)[:2], tf.float32)
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=part_size,
        scale=scale,
        translation=-tf.cast(corner, tf.float32),
        kernel_type="triangle",
        antialias=True,
    )
    return round_to_uint8(pixels[0])
