"""Test protocols: what a network is shown of a whole image, and how its answers become class
probabilities of the image's own pixels.

A protocol is a function of a `Network` and pixels, float32 [B, H, W, 3] RGB 0..255 of any size, to
probabilities, float32 [B, H, W, num_classes]. It runs in graph mode with sizes unknown until then.
"""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from mm_keras import layers

PASCAL_SIZE = 512
"""Side of the canvas of the Pascal test protocol (released resources/test_pascal.py)."""

WINDOW_SIZE = 512
WINDOW_STEP = 256
"""Side of the windows of the Cityscapes test protocol and the pixels from one to the next, half of
it (released resources/crop_images.py).
"""


PIXELS = tf.TensorSpec([None, None, None, 3], tf.float32, name="pixels")


class Network:
    """A segmenter as protocols see it: called with pixels [B, h, w, 3], RGB 0..255, it gives class
    probabilities float32 [B, ceil(h / stride), ceil(w / stride), num_classes].

    Args:
        model: segmenter that maps such pixels to logits, with `num_classes`, `output_stride` and
            `backbone.spec`.
        shorter_side: images whose shorter side is larger are shrunk to it before this network sees
            them; None never.

    Attributes:
        num_classes: of the model.
        stride: pixels per cell of the result.
        pad_color: RGB 0..255 of what lies outside an image.
    """

    def __init__(self, model, shorter_side: int | None = None):
        self.model, self.shorter_side = model, shorter_side
        self.num_classes, self.stride = model.num_classes, model.output_stride
        self.pad_color = model.backbone.spec.pad_color
        # Traced once, however many views are looked at.
        self._probabilities = tf.function(self._trace, input_signature=[PIXELS])

    def __call__(self, pixels):
        return self._probabilities(pixels)

    def _trace(self, pixels):
        self._check_size(pixels)
        logits = self.model(pixels, training=False)
        return keras.ops.softmax(tf.cast(logits, tf.float32))

    def _check_size(self, pixels):
        """Fails at run time too, also in the SavedModel, where sizes are not known before."""
        spec = self.model.backbone.spec
        if spec.min_size > 1:
            tf.debugging.assert_greater_equal(
                tf.reduce_min(tf.shape(pixels)[1:3]),
                spec.min_size,
                f"{spec.name} takes images of at least {spec.min_size} pixels a side.",
            )

    def input_size(self, size, scale: float = 1.0):
        """(height, width) int32 [2] at which images of `size` are shown: shrunk to `shorter_side`,
        then times `scale`.
        """
        if self.shorter_side is not None:
            lengths = tf.cast(size, tf.float64)
            size = tf.minimum(
                size, _rounded(lengths * (self.shorter_side / tf.reduce_min(lengths)))
            )
        return size if scale == 1 else _rounded(tf.cast(size, tf.float64) * scale)


def native(network: Network, pixels):
    """The image as it is. Between the cells of the network's output, cell k on pixel k * stride,
    probabilities are interpolated.
    """
    return layers.upsample(network(pixels), network.stride, tf.shape(pixels)[1:3])


def pascal(network: Network, pixels):
    """The Pascal VOC test protocol of the paper: longer side 512, centered on a square canvas, and
    all of it undone.

    Sizes follow resources/test_pascal.py of the released code, in double precision and truncated;
    probabilities go back to the image by nearest neighbor without a half-pixel shift.
    """
    canvas = on_canvas(pixels, network.pad_color)
    return from_canvas(network(canvas), tf.shape(pixels)[1:3])


def cityscapes(network: Network, pixels):
    """The Cityscapes test protocol of the paper: the mean of the probabilities in overlapping
    windows of 512 pixels, one every 256 pixels (resources/test_cityscapes.py of the released code).

    Windows reach past the image's lower and right border where it is not covered exactly, and see
    the pad color there. Within a window, probabilities are interpolated to its pixels with a
    half-pixel shift, whatever the network's stride. The released code sums over windows and leaves
    it at that; all classes of a pixel are in equally many windows, 1, 2 or 4, so the mean has the
    same argmax.

    Windows pass the network one after the other, so memory is that of one window and of a few maps
    of probabilities of the image's size.
    """
    size = tf.shape(pixels)[1:3]
    num_windows = window_grid(size)
    canvas_size = (num_windows - 1) * WINDOW_STEP + WINDOW_SIZE
    canvas = _padded(pixels, [0, 0], canvas_size, network.pad_color)

    def add_window(k, total):
        y, x = (WINDOW_STEP * i for i in (k // num_windows[1], k % num_windows[1]))
        window = canvas[:, y : y + WINDOW_SIZE, x : x + WINDOW_SIZE]
        probabilities = resized(network(window), [WINDOW_SIZE, WINDOW_SIZE])
        return k + 1, total + _placed(probabilities, (y, x), canvas_size)

    shape = tf.concat([tf.shape(pixels)[:1], canvas_size, [network.num_classes]], 0)
    _, total = tf.while_loop(
        lambda k, _: k < tf.reduce_prod(num_windows),
        add_window,
        (0, tf.zeros(shape)),
        parallel_iterations=1,
    )
    rows, columns = (_num_windows_at(size[axis], num_windows[axis]) for axis in (0, 1))
    return total[:, : size[0], : size[1]] / (rows[:, None, None] * columns[:, None])


PROTOCOLS = {"native": native, "pascal": pascal, "cityscapes": cityscapes}


def check(protocol: str, shorter_side: int | None, scales: Sequence[float]):
    """Refuses what a protocol cannot do.

    Raises:
        ValueError: an unknown protocol; a `shorter_side` below 1 or of a protocol that fixes its
            own size; no scales, or some that are not positive or that the protocol would undo.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"Unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}.")
    if shorter_side is not None and shorter_side < 1:
        raise ValueError(f"shorter_side must be at least 1 pixel. Received {shorter_side}.")
    if shorter_side is not None and protocol != "native":
        raise ValueError(
            f"Protocol {protocol!r} fixes its own size; shorter_side={shorter_side} needs 'native'."
            " Leave shorter_side out (none), when training as well."
        )
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f"scales must be one or more positive numbers. Received {list(scales)}.")
    if protocol == "pascal" and any(scale != 1 for scale in scales):
        raise ValueError(
            "Protocol 'pascal' brings images of every size to 512 pixels, so "
            f"scales={list(scales)} needs 'native' or 'cityscapes'."
        )


def resized(pixels, size, antialias: bool = False):
    """float32 [B, h, w, C] -> [B, *size, C], bilinear with a half-pixel shift; of that size
    already, exactly as it was.
    """
    return tf.cond(
        tf.reduce_all(tf.shape(pixels)[1:3] == size),
        lambda: tf.cast(pixels, tf.float32),
        lambda: tf.image.resize(pixels, size, antialias=antialias),
    )


def on_canvas(pixels, pad_color):
    """Float pixels [B, H, W, 3] -> [B, 512, 512, 3], RGB 0..255, rounded to what uint8 holds."""
    offset, size = centered(tf.shape(pixels)[1:3], PASCAL_SIZE)
    return _padded(
        tf.round(tf.image.resize(pixels, size)), offset, [PASCAL_SIZE, PASCAL_SIZE], pad_color
    )


def from_canvas(cells, size):
    """float32 [B, m, m, C], cells of the canvas -> [B, *size, C] at the pixels of the image that
    lies on it.
    """
    offset, num_cells = centered(size, tf.shape(cells)[1])
    rows, columns = (
        offset[axis] + tf.range(size[axis]) * num_cells[axis] // size[axis] for axis in (0, 1)
    )
    return tf.gather(tf.gather(cells, rows, axis=1), columns, axis=2)


def centered(size, canvas):
    """Where an image lies whose longer side fills a square canvas (released resize_uniform.py).

    Args:
        size: int32 [2], height and width of the image.
        canvas: int, side of the canvas.

    Returns:
        offset int32 [2], size int32 [2] on the canvas, both (height, width).
    """
    ratio = tf.cast(size[0], tf.float64) / tf.cast(size[1], tf.float64)
    side = tf.cast(canvas, tf.float64)
    is_tall = ratio > 1
    height = tf.where(is_tall, side, side * ratio)
    width = tf.where(is_tall, side / ratio, side)
    # Extreme ratios truncate to nothing in the released code; one row or column is the least that
    # can be seen.
    placed = tf.maximum(1, tf.cast(tf.stack([height, width]), tf.int32))
    return (canvas - placed) // 2, placed


def window_grid(size):
    """Rows and columns of windows for an image of `size`, int32 [2]: ceil((length - 512) / 256) + 1
    on each axis (released crop_images.py), and one for a length below 512.
    """
    beyond_first = tf.maximum(0, size - WINDOW_SIZE)
    return -(-beyond_first // WINDOW_STEP) + 1


def _num_windows_at(length, num_windows):
    """float32 [length]: in how many windows each pixel of an axis lies.

    Since the step is half a window, windows b - 1 and b cover the pixels of block b of one step, as
    far as these two exist.
    """
    block = tf.range(length) // WINDOW_STEP
    return tf.cast(block >= 1, tf.float32) + tf.cast(block < num_windows, tf.float32)


def _padded(pixels, offset, size, color):
    """Places pixels at `offset` on a canvas of `size` in the given color."""
    # Zeros around pixels from which the color was subtracted become the color.
    color = tf.constant(color, tf.float32)
    return _placed(pixels - color, offset, size) + color


def _placed(values, offset, size):
    """[B, h, w, C] -> [B, *size, C]: the values at `offset`, zeros around them."""
    return tf.image.pad_to_bounding_box(values, offset[0], offset[1], size[0], size[1])


def _rounded(lengths):
    return tf.maximum(1, tf.cast(tf.round(lengths), tf.int32))
