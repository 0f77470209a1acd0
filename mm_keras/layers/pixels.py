"""The layer that converts RGB pixels to the input of a network."""

import keras
from keras import ops

from mm_keras.layers import lab

COLORS = ("gray", "bgr", "rgb", "lab", "lightness", "bands")
"""The color spaces of `InputAdapter`."""


@keras.saving.register_keras_serializable("mm_keras")
class InputAdapter(keras.layers.Layer):
    """Convert RGB pixels or bands, 0..255, to the pixels that a network's weights expect.

    No other code scales pixels.

    Args:
        color: "gray" (one channel, the mean of the three), "bgr", "rgb", "lab" (L in 0..100, a and
            b, see `mm_keras.layers.lab`), "lightness" (one channel, L), or "bands" (any number of
            bands in their own order).
        scale: factor on the pixels, applied first. One number, or three in the channel order of
            `color`. For "bands" one number for each band.
        mean: mean that is subtracted after scaling. One number, or as many as for `scale`.

    Call with uint8 or float [B, H, W, 3], or the number of bands. Returns [B, H, W, 1 or 3], or the
    number of bands, in the layer's compute dtype.

    Raises:
        ValueError: if `color` is unknown, or `scale` or `mean` has another number of values.

    Example:

    >>> adapter = InputAdapter(color="bgr", mean=(104.0, 117.0, 123.0))
    >>> print(ops.convert_to_numpy(adapter(ops.convert_to_tensor([[[[123, 117, 105]]]])))[0, 0, 0])
    [1. 0. 0.]
    """

    # The released networks compute gray with this truncated third
    # (Alexnet/colorize_pascal/train_graph.prototxt).
    GRAY_WEIGHT = 0.33333

    def __init__(self, color="rgb", scale=1.0, mean=0.0, **kwargs):
        super().__init__(**kwargs)
        if color not in COLORS:
            raise ValueError(f"color must be one of {COLORS}. Received {color!r}.")
        self.color = color
        count = len(scale) if color == "bands" else 3
        self.scale, self.mean = _values(count, scale=scale), _values(count, mean=mean)

    @property
    def num_channels(self) -> int:
        return 1 if self.color in ("gray", "lightness") else len(self.scale)

    def call(self, images):
        pixels = ops.cast(images, "float32")
        if self.color == "bgr":
            pixels = ops.flip(pixels, axis=-1)
        if self.color in ("lab", "lightness"):
            pixels = lab.rgb_to_lab(pixels)
        scale, mean = (ops.convert_to_tensor(x, "float32") for x in (self.scale, self.mean))
        pixels = pixels * scale - mean
        if self.color == "gray":
            pixels = self.GRAY_WEIGHT * ops.sum(pixels, axis=-1, keepdims=True)
        if self.color == "lightness":
            pixels = pixels[..., :1]
        return ops.cast(pixels, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.num_channels)

    def get_config(self):
        return {
            **super().get_config(),
            "color": self.color,
            "scale": self.scale,
            "mean": self.mean,
        }


def _values(count, **argument):
    """Return the values of an argument for each channel."""
    ((name, value),) = argument.items()
    values = tuple(value) if isinstance(value, (list, tuple)) else (float(value),) * count
    if len(values) != count:
        raise ValueError(f"{name} must be one number or {count}. Received {values}.")
    return values
