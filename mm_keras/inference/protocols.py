"""Test protocols: from a whole image to the network's input, and from its output to the image.

A protocol is a function of a `Network` and pixels, float32 [B, H, W, 3] RGB 0..255 of any size. It
returns class probabilities at the image's own pixels, float32 [B, H, W, num_classes]. It runs in
graph mode; sizes are known only at run time.
"""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from mm_keras import layers
from mm_keras.inference import windows
from mm_keras.models import dense

PASCAL_SIZE = 512
"""Side of the canvas of the Pascal test protocol (released resources/test_pascal.py)."""

WINDOW_SIZE = 512
WINDOW_STEP = 256
"""Side of the windows of the Cityscapes test protocol, and the pixels from one to the next, half of
it (released resources/crop_images.py).
"""


class Network:
    """A segmenter in the form that protocols use.

    Call it with pixels [B, h, w, bands], 0..255 of any type; three bands are RGB. It returns class
    probabilities float32 [B, ceil(h / stride), ceil(w / stride), num_classes].

    Args:
        model: segmenter that maps these pixels to logits, with `num_classes`, `output_stride` and
            `backbone.spec`.
        shorter_side: images whose shorter side is larger are reduced to it before this network.
            None keeps their size.
        parts: windows of the network's input that are computed one after the other; None computes
            the whole input at once.

    Attributes:
        num_classes: number of classes of the model.
        stride: pixels per cell of the result.
        pad_color: RGB 0..255 of the area outside an image.
    """

    def __init__(
        self, model, shorter_side: int | None = None, parts: windows.Windows | None = None
    ):
        self.model, self.shorter_side, self.parts = model, shorter_side, parts
        self.num_classes, self.stride = model.num_classes, model.output_stride
        self.pad_color = model.backbone.spec.pad_color
        # Traced once for any number of views.
        bands = model.backbone.spec.num_bands
        pixels = tf.TensorSpec([None, None, None, bands], tf.float32, name="pixels")
        self._probabilities = tf.function(self._trace, input_signature=[pixels])

    def __call__(self, pixels):
        return self._whole(pixels) if self.parts is None else self.strips(pixels).all_rows()

    def strips(self, pixels) -> windows.Strips:
        """Return the result in rows of windows, computed on demand."""
        return windows.Strips(self._whole, pixels, self.parts, self.stride, self.num_classes)

    def keeps_size(self, scale: float) -> bool:
        """Return whether the input of the network has the size of every image."""
        return self.shorter_side is None and scale == 1

    def _whole(self, pixels):
        pixels = tf.cast(pixels, tf.float32)
        # The shared trace has loops over lists, which `dense.at_once` avoids.
        return self._trace(pixels) if dense.is_at_once() else self._probabilities(pixels)

    def _trace(self, pixels):
        self._check_size(pixels)
        logits = self.model(pixels, training=False)
        return keras.ops.softmax(tf.cast(logits, tf.float32))

    def _check_size(self, pixels):
        """Raise an error for too small images, at run time and in the SavedModel too."""
        spec = self.model.backbone.spec
        if spec.min_size > 1:
            tf.debugging.assert_greater_equal(
                tf.reduce_min(tf.shape(pixels)[1:3]),
                spec.min_size,
                f"{spec.name} takes images of at least {spec.min_size} pixels per side.",
            )

    def input_size(self, size, scale: float = 1.0):
        """Return the (height, width) int32 [2] of the network's input for images of `size`.

        The size is reduced to `shorter_side`, then multiplied by `scale`.
        """
        if self.shorter_side is not None:
            lengths = tf.cast(size, tf.float64)
            size = tf.minimum(
                size, _rounded(lengths * (self.shorter_side / tf.reduce_min(lengths)))
            )
        return size if scale == 1 else _rounded(tf.cast(size, tf.float64) * scale)


def native(network: Network, pixels):
    """Predict the image at its own size.

    Probabilities are interpolated between the cells of the network's output. Cell k lies on pixel k
    * stride.
    """
    return layers.upsample(network(pixels), network.stride, tf.shape(pixels)[1:3])


def pascal(network: Network, pixels):
    """Predict by the Pascal VOC test protocol of the paper.

    The image is resized to a longer side of 512 and centered on a square canvas. Afterwards, the
    probabilities are mapped back to the image by nearest neighbor, without a half-pixel shift.
    Sizes are computed in double precision and truncated, as in resources/test_pascal.py of the
    released code.
    """
    canvas = on_canvas(pixels, network.pad_color)
    return from_canvas(network(canvas), tf.shape(pixels)[1:3])


def cityscapes(network: Network, pixels):
    """Predict by the Cityscapes test protocol of the paper.

    The result is the mean of the probabilities in overlapping windows of 512 pixels, one every 256
    pixels (resources/test_cityscapes.py of the released code).

    If windows do not cover the image exactly, they reach past its lower and right border. That area
    has the pad color. Within a window, probabilities are interpolated to its pixels with a
    half-pixel shift, for any stride of the network. The released code sums over windows without
    dividing. All classes of a pixel are in the same number of windows, 1, 2 or 4, so the mean has
    the same argmax.

    The network computes one window after the other. Memory is needed for one window and for a few
    maps of probabilities of the image's size.
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


def check(
    protocol: str,
    shorter_side: int | None,
    scales: Sequence[float],
    window: int | None = None,
):
    """Raise an error for arguments that a protocol does not support.

    Args:
        protocol: a key of `PROTOCOLS`.
        shorter_side: see `Network`.
        scales: see `mm_keras.Predictor`.
        window: see `mm_keras.Predictor`.

    Raises:
        ValueError: if the protocol is unknown, or `shorter_side` is below 1 or given for a protocol
            that fixes its own size, or there are no scales, or a scale is not positive or the
            protocol would undo it, or the protocol has inputs of its own that bound the memory.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"Unknown protocol {protocol!r}; expected one of {', '.join(PROTOCOLS)}.")
    if shorter_side is not None and shorter_side < 1:
        raise ValueError(f"shorter_side must be at least 1 pixel. Received {shorter_side}.")
    if shorter_side is not None and protocol != "native":
        raise ValueError(
            f"Protocol {protocol!r} fixes its own size. Received shorter_side={shorter_side}. Use "
            "protocol 'native', or leave shorter_side out (none), in training as well."
        )
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f"scales must be one or more positive numbers. Received {list(scales)}.")
    if protocol != "native" and window is not None:
        raise ValueError(
            f"The inputs of protocol {protocol!r} are at most {PASCAL_SIZE} pixels wide and high. "
            f"Received window={window}. Leave it out, or use protocol 'native'."
        )
    if protocol == "pascal" and any(scale != 1 for scale in scales):
        raise ValueError(
            "Protocol 'pascal' resizes all images to 512 pixels. Received "
            f"scales={list(scales)}. Use protocol 'native' or 'cityscapes' for several scales."
        )


def resized(pixels, size, antialias: bool = False):
    """Resize float32 [B, h, w, C] to [B, *size, C], bilinear with a half-pixel shift.

    Pixels that already have the size are returned unchanged.
    """
    return tf.cond(
        tf.reduce_all(tf.shape(pixels)[1:3] == size),
        lambda: tf.cast(pixels, tf.float32),
        lambda: tf.image.resize(pixels, size, antialias=antialias),
    )


def on_canvas(pixels, pad_color):
    """Center float pixels [B, H, W, 3] on a canvas [B, 512, 512, 3], rounded to whole numbers."""
    offset, size = centered(tf.shape(pixels)[1:3], PASCAL_SIZE)
    return _padded(
        tf.round(tf.image.resize(pixels, size)), offset, [PASCAL_SIZE, PASCAL_SIZE], pad_color
    )


def from_canvas(cells, size):
    """Map float32 [B, m, m, C], cells of the canvas, to the pixels of its image, [B, *size, C]."""
    offset, num_cells = centered(size, tf.shape(cells)[1])
    rows, columns = (
        offset[axis] + tf.range(size[axis]) * num_cells[axis] // size[axis] for axis in (0, 1)
    )
    return tf.gather(tf.gather(cells, rows, axis=1), columns, axis=2)


def centered(size, canvas):
    """Return the place of an image whose longer side fills a square canvas.

    Source: released resize_uniform.py.

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
    # Extreme ratios truncate to 0 in the released code. Here one row or column is the minimum.
    placed = tf.maximum(1, tf.cast(tf.stack([height, width]), tf.int32))
    return (canvas - placed) // 2, placed


def window_grid(size):
    """Return the rows and columns of windows for an image of `size`, int32 [2].

    ceil((length - 512) / 256) + 1 on each axis (released crop_images.py), and 1 for a length below
    512.
    """
    beyond_first = tf.maximum(0, size - WINDOW_SIZE)
    return -(-beyond_first // WINDOW_STEP) + 1


def _num_windows_at(length, num_windows):
    """Return the number of windows that contain each pixel of an axis, float32 [length].

    Since the step is half a window, windows b - 1 and b cover the pixels of block b of one step, if
    they exist.
    """
    block = tf.range(length) // WINDOW_STEP
    return tf.cast(block >= 1, tf.float32) + tf.cast(block < num_windows, tf.float32)


def _padded(pixels, offset, size, color):
    """Place pixels at `offset` on a canvas of `size` in the given color."""
    # The color is subtracted first, so that the zeros become the color.
    color = tf.constant(color, tf.float32)
    return _placed(tf.cast(pixels, tf.float32) - color, offset, size) + color


def _placed(values, offset, size):
    """Pad [B, h, w, C] with zeros to [B, *size, C], the values at `offset`."""
    return tf.image.pad_to_bounding_box(values, offset[0], offset[1], size[0], size[1])


def _rounded(lengths):
    return tf.maximum(1, tf.cast(tf.round(lengths), tf.int32))
