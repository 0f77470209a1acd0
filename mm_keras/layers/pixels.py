"""What turns RGB pixels into the input of a network."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("mm_keras")
class InputAdapter(keras.layers.Layer):
    """Turns RGB pixels 0..255 into what a network's weights expect. The one place that scales
    pixels.

    Args:
        color: "gray" (one channel, the mean of the three), "bgr" or "rgb".
        scale: factor on the pixels, applied first; one number, or three in the channel order of
            `color`.
        mean: subtracted after scaling; one number, or three likewise.

    Call with uint8 or float [B, H, W, 3]; returns [B, H, W, 1 or 3] in the layer's compute dtype.

    Raises:
        ValueError: unknown `color`, or a `scale` or `mean` of neither one nor three numbers.
    """

    # The released networks compute gray with this truncated third
    # (Alexnet/colorize_pascal/train_graph.prototxt).
    GRAY_WEIGHT = 0.33333

    def __init__(self, color="rgb", scale=1.0, mean=0.0, **kwargs):
        super().__init__(**kwargs)
        if color not in ("gray", "bgr", "rgb"):
            raise ValueError(f"color must be 'gray', 'bgr' or 'rgb'. Received {color!r}.")
        self.color = color
        self.scale, self.mean = _three(scale=scale), _three(mean=mean)

    @property
    def num_channels(self) -> int:
        return 1 if self.color == "gray" else 3

    def call(self, images):
        pixels = ops.cast(images, "float32")
        if self.color == "bgr":
            pixels = ops.flip(pixels, axis=-1)
        scale, mean = (ops.convert_to_tensor(x, "float32") for x in (self.scale, self.mean))
        pixels = pixels * scale - mean
        if self.color == "gray":
            pixels = self.GRAY_WEIGHT * ops.sum(pixels, axis=-1, keepdims=True)
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


def _three(**argument):
    """The values of an argument for the three channels."""
    ((name, value),) = argument.items()
    values = tuple(value) if isinstance(value, (list, tuple)) else (float(value),) * 3
    if len(values) != 3:
        raise ValueError(f"{name} must be one number or three. Received {values}.")
    return values
