"""Joint geometry of an image and its label map: read, scale, mirror, place in a square canvas.

All random parameters of an image are drawn once, as a `Placement`. The image and its label map are
then shown through the same placement, so they stay aligned. Images are uint8
[height, width, bands]. Label maps are uint8 [height, width] with 255 = void. All functions run in
graph mode in tf.data.
"""

import dataclasses
import numbers
from typing import NamedTuple

import tensorflow as tf

from pipelines.amounts import check_at_least_one
from pipelines.datasets import planes
from pipelines.datasets.spec import VOID


@dataclasses.dataclass(frozen=True)
class View:
    """The settings by which views of images are drawn.

    Attributes:
        crop: int, side of the square canvas in pixels; 512 in the released code.
        shorter_side: int, images whose shorter side is larger are first scaled down to it. None
            keeps all images as they are.
        mirror: bool, mirror images left-right with probability 1/2.
        pad_color: ints in 0..255, one for each band, the color of the canvas outside the image.
        enlarge: bool, scale images up until their shorter side is `crop`, if it is smaller (also
            after scaling down). Without it, small images are placed inside the canvas.
        rare_share: float in 0..1, probability that the canvas must show a class that is drawn
            uniformly among the classes of the image; see `draw_wanted`. Only for labelled images.

    Raises:
        ValueError: if a value is out of range.

    Example:
        >>> View(crop=512, shorter_side=512).mirror
        True
        >>> View(crop=0)
        Traceback (most recent call last):
        ValueError: crop must be at least 1, got 0.
    """

    crop: int
    shorter_side: int | None = None
    mirror: bool = True
    pad_color: tuple[int, ...] = (0, 0, 0)
    enlarge: bool = False
    rare_share: float = 0.0

    def __post_init__(self):
        check_at_least_one(crop=self.crop)
        if not 0 <= self.rare_share <= 1:
            raise ValueError(f"rare_share must lie in 0..1, got {self.rare_share}.")
        if self.shorter_side is not None:
            check_at_least_one(shorter_side=self.shorter_side)
        check_pad_color(self.pad_color)

    @property
    def may_scale(self) -> bool:
        """Whether the view can change the size of an image."""
        return self.enlarge or self.shorter_side is not None


class Placement(NamedTuple):
    """One drawn view: scale the image to `size`, mirror it or not, look through a square canvas.

    Attributes:
        size: int32 [2], (height, width) of the whole image after scaling, in pixels.
        mirror: bool scalar, True for a left-right flip.
        origin: int32 [2], (y, x) of the canvas's upper left pixel in the scaled, mirrored image.
            It is negative where the image is shorter than the canvas and thus placed inside it.
        crop: int, side of the canvas in pixels.
        may_scale: bool, whether `size` may differ from the size of the file.
    """

    size: tf.Tensor
    mirror: tf.Tensor
    origin: tf.Tensor
    crop: int
    may_scale: bool


class Wanted(NamedTuple):
    """The pixels that a canvas must show.

    Attributes:
        label: uint8 scalar, a class; 255 stands for any labelled pixel.
        pixel: int32 [2], (y, x) of one pixel of this class in the file; not used for 255.
    """

    label: tf.Tensor
    pixel: tf.Tensor


def check_pad_color(pad_color: tuple[int, ...], num_bands: int | None = None) -> None:
    """Raise ValueError unless the color is integers in 0..255, one for each band of images."""
    if not pad_color or any(c != int(c) or not 0 <= c <= 255 for c in pad_color):
        raise ValueError(f"pad_color must be integers in 0..255, got {pad_color}.")
    if num_bands is not None and len(pad_color) != num_bands:
        raise ValueError(
            f"pad_color needs an integer for each of {num_bands} bands, got {pad_color}."
        )


def read_image(file: str | tf.Tensor, num_bands: int = 3) -> tf.Tensor:
    """Read and decode one JPEG, PNG or BMP file, or a file of `pipelines.datasets.planes`.

    Args:
        file: string scalar, path of the file.
        num_bands: number of bands of the image.

    Returns:
        uint8 [height, width, num_bands], RGB for three bands.

    Raises:
        tf.errors.OpError: if the file cannot be read or decoded.
    """
    return planes.decode(tf.io.read_file(file), num_bands)


def read_label(file: str | tf.Tensor) -> tf.Tensor:
    """Read and decode one label map, an 8-bit gray PNG of class indices: uint8 [height, width]."""
    return tf.squeeze(tf.io.decode_png(tf.io.read_file(file), channels=1), axis=2)


def read(
    image_file: tf.Tensor, label_file: tf.Tensor, num_bands: int = 3
) -> tuple[tf.Tensor, tf.Tensor]:
    """Read and decode one image and its label map.

    Args:
        image_file: string scalar, path of an image; see `read_image`.
        label_file: string scalar, path of an 8-bit gray PNG of class indices.
        num_bands: number of bands of the image.

    Returns:
        (image uint8 [height, width, num_bands], label uint8 [height, width]).

    Raises:
        tf.errors.InvalidArgumentError: if a file cannot be decoded, or if the sizes differ. The
            message then names both files. `datasets.load` decodes every file once, so this happens
            only if a file changed later.
    """
    image, label = read_image(image_file, num_bands), read_label(label_file)
    same_size = tf.debugging.Assert(
        tf.reduce_all(tf.shape(image)[:2] == tf.shape(label)),
        [
            "An image and its label map must have the same (height, width). Got",
            *(tf.shape(image)[:2], "of", image_file, "and", tf.shape(label), "of", label_file),
            "Remove or repair the pair.",
        ],
    )
    with tf.control_dependencies([same_size]):
        return tf.identity(image), tf.identity(label)


def draw_unlabelled_view(size: tf.Tensor, view: View, seed: int | tf.Tensor = 0) -> Placement:
    """Draw the view of an image that has no label map.

    Along each axis, an image of at least `view.crop` pixels is cut at a uniform offset. A shorter
    image is placed at a uniform offset in the canvas. Both ends are included.

    Args:
        size: int32 [2], (height, width) of the image in pixels.
        view: the settings.
        seed: int or int32 [2].

    Returns:
        The drawn placement.

    Example:
        >>> draw_unlabelled_view(tf.constant([40, 20]), View(crop=16, shorter_side=16)).size.numpy()
        array([32, 16], dtype=int32)
    """
    return _draw(scaled_size(size, view), view, seed)


def draw_view(
    label: tf.Tensor, view: View, seed: int | tf.Tensor = 0, name: str | tf.Tensor = ""
) -> tuple[Placement, tf.Tensor]:
    """Draw the view of one labelled image so that it shows at least one labelled pixel.

    Offsets are drawn as in `draw_unlabelled_view` (released code, two-datum Transform of
    data_transformer.cpp). A canvas without any labelled pixel teaches nothing. The function
    replaces it: it draws one labelled pixel, and a uniform canvas among those that hold it. Scaling
    down may lose all labelled pixels of a sparse label map. Then one labelled pixel of the file is
    drawn and kept.

    Args:
        label: uint8 [height, width], 255 = void.
        view: the settings.
        seed: int or int32 [2].
        name: string scalar, the label map's file for the error message.

    With `view.rare_share`, the canvas must show the class of `draw_wanted`. If it does not, the
    function replaces it in the same way. The pixel is then the drawn pixel of the class.

    Returns:
        (placement, the label map inside the canvas: uint8 [h, w] with h, w <= crop, nearest
        neighbor, *not* mirrored). Pass both to `label_canvas` to mirror and pad.

    Raises:
        tf.errors.InvalidArgumentError: if no pixel of the label map is labelled.
    """
    seed = as_seed(seed)
    placement = draw_unlabelled_view(tf.shape(label), view, seed)
    size, crop = placement.size, view.crop

    wanted = draw_wanted(label, view, seed)

    def another():
        pixel_seed, origin_seed = tf.unstack(tf.random.split(seed))
        whole, pixel = _whole_label(label, placement, wanted, name, pixel_seed)
        pixel = tf.stack([pixel[0], _mirrored_column(pixel[1], size[1], placement.mirror)])
        lowest, highest = origins(size, crop)
        lowest, highest = tf.maximum(lowest, pixel - crop + 1), tf.minimum(highest, pixel)
        origin = uniform(lowest, highest, origin_seed)
        return origin, tf.slice(whole, *_window(placement._replace(origin=origin)))

    part = _seen_label(label, placement)
    origin, part = tf.cond(shows(part, wanted), lambda: (placement.origin, part), another)
    return placement._replace(origin=origin), tf.ensure_shape(part, [None, None])


def draw_wanted(label: tf.Tensor, view: View, seed: tf.Tensor) -> Wanted:
    """Draw the class that a canvas must show.

    With probability `view.rare_share` it is uniform among the classes of the label map, and so is
    one of its pixels. Rare classes thus appear as often as frequent ones (nnU-Net and EfficientSeg
    draw crops in this way). Otherwise any labelled pixel will do.

    Args:
        label: uint8 [height, width], 255 = void.
        view: the settings.
        seed: int32 [2].
    """
    anything = Wanted(tf.constant(VOID, tf.uint8), tf.zeros([2], tf.int32))
    if not view.rare_share:
        return anything
    coin_seed, class_seed, pixel_seed = tf.unstack(tf.random.split(tf.random.fold_in(seed, 1), 3))

    def one_class():
        counts = tf.math.bincount(tf.cast(tf.reshape(label, [-1]), tf.int32), minlength=VOID)
        present = tf.cast(tf.where(counts[:VOID] > 0)[:, 0], tf.uint8)
        chosen = present[uniform(0, tf.size(present) - 1, class_seed)]
        pixels = tf.where(label == chosen)
        pixel = pixels[uniform(0, tf.shape(pixels)[0] - 1, pixel_seed)]
        return Wanted(chosen, tf.cast(pixel, tf.int32))

    is_rare = tf.random.stateless_uniform([], coin_seed) < view.rare_share
    is_rare &= tf.reduce_min(label) < VOID
    return tf.cond(is_rare, one_class, lambda: anything)


def shows(label: tf.Tensor, wanted: Wanted) -> tf.Tensor:
    """Return whether a label map, uint8 [height, width], shows the wanted pixels: bool scalar."""
    if tf.get_static_value(wanted.label) == VOID:
        return tf.reduce_min(label) < VOID
    is_shown = tf.where(wanted.label == VOID, label != VOID, label == wanted.label)
    return tf.reduce_any(is_shown)


def label_canvas(part: tf.Tensor, placement: Placement) -> tf.Tensor:
    """Mirror and pad the label map that `draw_view` returned.

    Args:
        part: uint8 [h, w], the label map inside the canvas.
        placement: the placement that `draw_view` returned with it.

    Returns:
        uint8 [crop, crop], 255 outside the image.
    """
    before = tf.maximum(-placement.origin, 0)
    after = placement.crop - before - tf.shape(part)
    canvas = pad(_mirrored(part[..., None], placement), before, after, (VOID,))
    return tf.ensure_shape(canvas[..., 0], [placement.crop, placement.crop])


def view_image(image: tf.Tensor, placement: Placement) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the part of an image inside the canvas, without padding.

    Scaling is bilinear with antialiasing and half-pixel centers. Only this part is computed.

    Args:
        image: uint8 [height, width, bands].
        placement: the placement that was drawn for the image.

    Returns:
        (part uint8 [h, w, bands], with h, w <= crop; offset int32 [2], the (y, x) of the part in
        the canvas).
    """
    (corner, size), bands = _window(placement), image.shape[-1]
    part = _if_scaled(
        image,
        placement,
        lambda: scaled_part(image, placement.size, corner, size),
        lambda: tf.slice(image, tf.concat([corner, [0]], 0), tf.concat([size, [bands]], 0)),
    )
    return _mirrored(tf.ensure_shape(part, [None, None, bands]), placement), tf.maximum(
        -placement.origin, 0
    )


def draw_canvas(
    image: tf.Tensor,
    label: tf.Tensor,
    view: View,
    seed: int | tf.Tensor = 0,
    name: str | tf.Tensor = "",
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw a view of one labelled image and return the whole canvas; see `draw_view`.

    Args:
        image: uint8 [height, width, bands].
        label: uint8 [height, width], 255 = void.
        view: the settings.
        seed: int or int32 [2].
        name: string scalar, the label map's file for the error message.

    Returns:
        (image uint8 [crop, crop, bands], label uint8 [crop, crop]). Outside the image they are
        view.pad_color and 255.
    """
    placement, label = draw_view(label, view, seed, name)
    part, offset = view_image(image, placement)
    return image_canvas(part, offset, view), label_canvas(label, placement)


def image_canvas(part: tf.Tensor, offset: tf.Tensor, view: View) -> tf.Tensor:
    """Surround the part of an image inside the canvas with view.pad_color.

    Args:
        part: uint8 [h, w, bands], as `view_image` returns it.
        offset: int32 [2], the (y, x) of the part in the canvas.
        view: the settings.

    Returns:
        uint8 [crop, crop, bands].
    """
    check_pad_color(view.pad_color, part.shape[-1])
    canvas = pad(part, offset, view.crop - offset - tf.shape(part)[:2], view.pad_color)
    return tf.ensure_shape(canvas, [view.crop, view.crop, len(view.pad_color)])


def pad(
    pixels: tf.Tensor, before: tf.Tensor, after: tf.Tensor, color: tuple[int, ...]
) -> tf.Tensor:
    """Surround pixels with one color.

    Args:
        pixels: uint8 [height, width, channels].
        before: int32 [2], rows above and columns to the left.
        after: int32 [2], rows below and columns to the right.
        color: one int in 0..255 for each channel.

    Returns:
        uint8 [before[0] + height + after[0], before[1] + width + after[1], channels].

    Example:
        >>> pixels = tf.ones([1, 1, 1], tf.uint8)
        >>> pad(pixels, tf.constant([0, 1]), tf.constant([1, 0]), (9,))[..., 0].numpy()
        array([[9, 1],
               [9, 9]], dtype=uint8)
    """
    rows = pad_rows(pixels, before, after, color)
    return tf.reshape(rows, [tf.shape(rows)[0], -1, len(color)])


def pad_rows(
    pixels: tf.Tensor, before: tf.Tensor, after: tf.Tensor, color: tuple[int, ...]
) -> tf.Tensor:
    """Pad as `pad` does, but keep columns and channels on one axis: uint8 [rows, bytes]."""
    # tf.pad takes one value for all channels, and joining whole rows of bytes is faster.
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
    """Round float pixels in 0..255 to the nearest uint8, halves upwards as OpenCV does.

    Example:
        >>> round_to_uint8(tf.constant([0.4, 0.5, 254.6])).numpy()
        array([  0,   1, 255], dtype=uint8)
    """
    return tf.cast(pixels + 0.5, tf.uint8)


def as_seed(seed: int | tf.Tensor) -> tf.Tensor:
    """Return the int32 [2] seed of TensorFlow's stateless ops.

    Args:
        seed: an int, of which the lower 62 bits are used, or int32 [2], returned as it is.

    Raises:
        ValueError: if the seed has another shape.

    Example:
        >>> as_seed(7).numpy()
        array([7, 0], dtype=int32)
    """
    if isinstance(seed, numbers.Integral):
        # The lower 62 bits, so that numpy-style seeds beyond int32 do not collide.
        seed = [int(seed) & 0x7FFFFFFF, int(seed) >> 31 & 0x7FFFFFFF]
    seed = tf.convert_to_tensor(seed, tf.int32)
    if seed.shape != [2]:
        raise ValueError(f"seed must be an int or int32 [2], got shape {seed.shape}.")
    return seed


def uniform(lowest: tf.Tensor, highest: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draw int32 uniformly from lowest..highest, both included, each element from its own range.

    TensorFlow's op has one range for all elements. Therefore the function returns the remainder of
    a 62-bit draw, which is uniform to within a factor of 1 + 2^-30.

    Args:
        lowest: int32 [...], or a scalar.
        highest: int32 of the same shape.
        seed: int32 [2].
    """
    span = tf.cast(highest - lowest + 1, tf.int64)
    draw = tf.random.stateless_uniform(tf.shape(span), seed, 0, 2**62, tf.int64)
    return lowest + tf.cast(draw % span, tf.int32)


def _draw(size, view, seed):
    """Draw the placement of an image that is `size` after scaling."""
    # One draw of three ranges: an image is worth a hundred small ops at most.
    lowest, highest = origins(size, view.crop)
    lowest, highest = tf.pad(lowest, [[0, 1]]), tf.concat([highest, [1]], axis=0)
    drawn = uniform(lowest, highest, as_seed(seed))
    return Placement(size, view.mirror & (drawn[2] == 1), drawn[:2], view.crop, view.may_scale)


def origins(size: tf.Tensor, crop: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the lowest and the highest (y, x) of a canvas that cuts an image or holds it."""
    return tf.minimum(size - crop, 0), tf.maximum(size - crop, 0)


def scaled_size(size: tf.Tensor, view: View) -> tf.Tensor:
    """Return the (height, width) at which a view shows an image of `size`, int32 [2]."""
    if not view.may_scale:
        return size
    shorter = target = tf.reduce_min(size)
    if view.shorter_side is not None:
        target = tf.minimum(target, view.shorter_side)
    if view.enlarge:
        target = tf.maximum(target, view.crop)
    return tf.maximum((2 * size * target + shorter) // (2 * shorter), 1)


def _window(placement):
    """Return the first (y, x) and the size of the scaled image's visible part, not mirrored."""
    start = tf.maximum(placement.origin, 0)
    end = tf.minimum(placement.origin + placement.crop, placement.size)
    # Column x of the mirror image is column width - 1 - x.
    is_mirrored = tf.stack([False, placement.mirror])
    return tf.where(is_mirrored, placement.size - end, start), end - start


def _if_scaled(pixels, placement, scaled, unscaled):
    """Return `scaled()` where the placement scales the pixels, else `unscaled()`."""
    if not placement.may_scale:
        return unscaled()
    return tf.cond(tf.reduce_any(placement.size != tf.shape(pixels)[:2]), scaled, unscaled)


def _mirrored_column(column, width, mirror):
    return tf.where(mirror, width - 1 - column, column)


def _mirrored(part, placement):
    """Flip [height, width, channels] left-right if the placement is mirrored."""
    # Reversing along no axis costs as much as along one.
    return tf.cond(placement.mirror, lambda: tf.reverse(part, [1]), lambda: part)


def _seen_label(label, placement):
    """Return the part of the label map inside the canvas, not mirrored and without padding."""
    corner, size = _window(placement)

    def nearest():
        # At half-pixel centers, as the image: floor((i + 1/2) * length / scaled length).
        ys, xs = (
            (2 * tf.range(corner[i], corner[i] + size[i]) + 1)
            * tf.shape(label)[i]
            // (2 * placement.size[i])
            for i in range(2)
        )
        return tf.gather(tf.gather(label, ys), xs, axis=1)

    return _if_scaled(label, placement, nearest, lambda: tf.slice(label, corner, size))


def _whole_label(label, placement, wanted, name, seed):
    """Return the scaled label map, not mirrored, and one of its wanted pixels.

    A wanted pixel of the file is kept where scaling loses all of them.
    """

    def kept(pixel):
        place = pixel * placement.size // tf.shape(label)
        return tf.tensor_scatter_nd_update(scaled, [place], [tf.gather_nd(label, pixel)]), place

    def any_labelled():
        whole = tf.cond(
            tf.reduce_min(scaled) < VOID,
            lambda: scaled,
            lambda: kept(_draw_labelled(label, name, seed))[0],
        )
        return whole, _draw_labelled(whole, name, seed)

    scaled = _seen_label(
        label, placement._replace(origin=tf.zeros_like(placement.size), crop=placement.size)
    )
    if tf.get_static_value(wanted.label) == VOID:
        return any_labelled()
    return tf.cond(wanted.label == VOID, any_labelled, lambda: kept(wanted.pixel))


def _draw_labelled(label, name, seed):
    """Draw one labelled pixel, int32 [2]; raise an error with the file's name if there is none."""
    labelled = tf.where(label != VOID)
    found = tf.debugging.Assert(
        tf.size(labelled) > 0,
        ["No pixel of the label map", name, "is labelled at (height, width)", tf.shape(label)]
        + ["(255 is void). Leave it out of the split."],
    )
    with tf.control_dependencies([found]):
        index = uniform(0, tf.shape(labelled)[0] - 1, seed)
    return tf.cast(labelled[index], tf.int32)


def scaled_part(
    image: tf.Tensor, size: tf.Tensor, corner: tf.Tensor, part_size: tf.Tensor
) -> tf.Tensor:
    """Compute only the pixels corner..corner + part_size of the image scaled to `size`.

    Args:
        image: uint8 [height, width, bands].
        size: int32 [2], (height, width) of the whole image after scaling.
        corner: int32 [2], the first (y, x) of the part.
        part_size: int32 [2].

    Returns:
        uint8 [*part_size, bands], bilinear with antialiasing and half-pixel centers.
    """
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
