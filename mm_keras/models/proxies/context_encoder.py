"""The context encoder proxy: fill a hole in an image.

Source: Pathak, Krähenbühl, Donahue, Darrell and Efros, "Context encoders: feature learning by
inpainting", CVPR 2016. This is the network of their segmentation results, AlexNet without an
adversarial loss. Its training code was not released.
"""

from collections.abc import Iterable, Sequence

import keras
import numpy as np
from keras import ops

from mm_keras import layers
from mm_keras.backbones.spec import Backbone
from mm_keras.models.proxies import map_shapes
from mm_keras.models.trainable import Trainable

LOSSES = ("l2", "l1")

CENTERS = ("gray", "mean")
"""The colors that the decoder's zeros stand for, see `ContextEncoder`."""

MOST_CHANNELS = 512
"""Maps of more channels are reduced before the channel-wise layer. Source: ours; 256 in AlexNet."""

REDUCED_CHANNELS = 256

_ROWS = 1024
"""Pixels whose nearest visible pixels are searched at a time, to bound memory."""


class ContextEncoder(Trainable):
    """Predict the pixels of a hole from the pixels around it.

    The embedding of the image passes through a channel-wise dense layer, which connects all cells
    of one channel, a convolution of 1 x 1, and transposed convolutions of 5 x 5 and stride 2, with
    batch norm (as in the released inpainting network) and ReLU between them. The target is the
    image at the size of the result, in -1..1. The trained weights stay in `backbone`.

    `fit` takes the batches of `pipelines.batches.holes.batches`: {"image" uint8 [B, S, S, 3],
    "target" uint8 [B, S, S, 4]}. On any Keras backend it also takes them as x and y.

    The loss is the mean square (or absolute) error over the cells that lie in the hole with all of
    their pixels.

    Metrics: loss; gradient_norm; non_finite.

    Args:
        backbone: the network that M&M tunes later.
        crop: side S of the images in pixels. The channel-wise layer fixes it.
        decoder: channels of the transposed convolutions before the last one, which has three.
        loss: "l2" (paper) or "l1" (the authors, issue 30: the features used it).
        center: the color that zeros of the decoder stand for: "gray" (128, released networks), or
            "mean", the mean color of the image with its hole. With "mean" an untrained network
            fills a hole almost as the mean of the visible pixels does, and training starts there.
        name: name of the model.

    Raises:
        ValueError: loss or center are unknown, or the crop is too small for the backbone.
    """

    batch_keys = ("image", "target")

    def __init__(
        self,
        backbone: Backbone,
        crop: int,
        decoder: Sequence[int] = (128, 64, 64, 32),
        loss: str = "l2",
        center: str = "gray",
        name: str = "context_encoder",
    ):
        if center not in CENTERS:
            raise ValueError(f"center must be one of {CENTERS}. Received {center!r}.")
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {LOSSES}. Received {loss!r}.")
        super().__init__(name, ("gradient_norm",))
        self.backbone, self.crop, self.loss_name, self.center = backbone, crop, loss, center
        shape = map_shapes.of_crop(backbone, backbone.spec.embedding.name, crop)
        self.decoder = _decoder(shape, decoder)
        self.size = self.decoder.output_shape[1:3]
        self.built = True

    def call(self, images, training=False):
        """Return pixels in -1..1 of images with holes, float32 [B, h, w, 3].

        Args:
            images: [B, S, S, 3], RGB 0..255, with the hole filled.
        """
        maps = self.backbone(images, training=training)
        embedding = maps[self.backbone.spec.embedding.name]
        pixels = ops.cast(self.decoder(embedding, training=training), "float32")
        if self.center == "gray":
            return pixels
        colors = ops.mean(ops.cast(images, "float32"), axis=(1, 2), keepdims=True)
        return pixels + (colors / 127.5 - 1)

    def batch_loss(self, inputs, targets, outputs):
        """Return the mean error over the cells of the holes."""
        pixels, hole = self.targets(targets)
        errors = outputs - pixels
        errors = ops.square(errors) if self.loss_name == "l2" else ops.abs(errors)
        total = ops.sum(errors * hole) / 3
        return total / ops.maximum(ops.sum(hole), 1.0)

    def targets(self, targets):
        """Return the pixels and the holes at the size of the result.

        Args:
            targets: uint8 [B, S, S, 4], RGB and the hole.

        Returns:
            (float32 [B, h, w, 3] in -1..1; float32 [B, h, w, 1], 1 for a cell that lies in the hole
            with all of its pixels, else 0).
        """
        targets = ops.cast(targets, "float32")
        small = ops.image.resize(targets, self.size, interpolation="bilinear", antialias=True)
        pixels, hole = small[..., :3] / 127.5 - 1, small[..., 3:]
        return pixels, ops.cast(hole > 1 - 1e-3, "float32")

    def fill(self, images, targets):
        """Return images whose holes are filled with the prediction.

        Args:
            images: uint8 [B, S, S, 3], with the hole filled by a color.
            targets: uint8 [B, S, S, 4].

        Returns:
            uint8 [B, S, S, 3].
        """
        sides = (self.crop, self.crop)
        predicted = ops.image.resize(self(images, training=False), sides)
        pixels = ops.clip(ops.round((predicted + 1) * 127.5), 0, 255)
        inside = ops.convert_to_tensor(targets)[..., 3:] > 0
        return ops.where(inside, ops.cast(pixels, "uint8"), images)


class ChannelwiseDense(keras.layers.Layer):
    """A dense layer between the cells of a map, with own weights for each channel.

    Call with float [B, h, w, C] of a known size; returns the same shape.
    """

    def build(self, shape):
        _, height, width, channels = shape
        cells = height * width
        self.kernel = self.add_weight(
            shape=(channels, cells, cells),
            initializer=keras.initializers.RandomNormal(stddev=cells**-0.5),
            name="kernel",
        )
        self.bias = self.add_weight(shape=(cells, channels), initializer="zeros", name="bias")

    def call(self, features):
        shape = ops.shape(features)
        cells = ops.reshape(features, (-1, shape[1] * shape[2], shape[3]))
        return ops.reshape(ops.einsum("bic,cio->boc", cells, self.kernel) + self.bias, shape)

    def compute_output_shape(self, input_shape):
        return input_shape


def mean_pixels(model: ContextEncoder, batches: Iterable) -> np.ndarray:
    """Return the mean color of some images in -1..1, float64 [3].

    Args:
        model: the model.
        batches: iterable of {"image", "target"}, at least one.
    """
    means = [np.mean(_arrays(model, batch)[0], axis=(0, 1, 2)) for batch in batches]
    return np.mean(means, axis=0)


def evaluate(model: ContextEncoder, batches: Iterable, mean: np.ndarray) -> dict[str, float]:
    """Measure a model on held-out images, beside three fills without a network.

    Args:
        model: the trained model.
        batches: iterable of {"image", "target"}.
        mean: `mean_pixels` of training images.

    Returns:
        Mean square errors in the holes, of pixels in -1..1: {"hole_error": of the model;
        "mean_fill_error": of the mean color of training images; "visible_fill_error": of the mean
        of the image's visible pixels; "nearest_fill_error": of the nearest visible pixel;
        "fill_error": the smallest of the three}.

    Raises:
        ValueError: if there is no cell inside a hole.
    """
    errors = {name: [] for name in ("hole", "mean_fill", "visible_fill", "nearest_fill")}
    for batch in batches:
        pixels, holes = _arrays(model, batch)
        predicted = ops.convert_to_numpy(model.predict_on_batch(batch["image"]))
        for image, hole, filled in zip(pixels, holes, predicted, strict=True):
            truth = image[hole]
            if not len(truth) or hole.all():
                continue
            fills = (filled[hole], mean, image[~hole].mean(axis=0), _nearest(image, hole))
            for values, fill in zip(errors.values(), fills, strict=True):
                values.append(np.mean(np.square(truth - fill)))
    if not errors["hole"]:
        raise ValueError(
            f"No hole covers a cell of the result, which has {model.size} cells. Use larger crops."
        )
    figures = {f"{name}_error": float(np.mean(values)) for name, values in errors.items()}
    fills = [value for name, value in figures.items() if name != "hole_error"]
    return figures | {"fill_error": min(fills)}


def _arrays(model, batch):
    """Return pixels float [B, h, w, 3] in -1..1, and holes bool [B, h, w]."""
    pixels, hole = (ops.convert_to_numpy(part) for part in model.targets(batch["target"]))
    return pixels, hole[..., 0] > 0


def _nearest(image, hole):
    """Return the nearest visible pixel of each pixel in the hole, [N, 3]."""
    # A step towards the hole from any other visible pixel leads to a nearer visible pixel.
    candidates = _beside(hole)
    inside, visible = np.argwhere(hole), np.argwhere(candidates)
    nearest = [
        np.argmin(np.sum((inside[k : k + _ROWS, None] - visible) ** 2, axis=-1), axis=1)
        for k in range(0, len(inside), _ROWS)
    ]
    return image[candidates][np.concatenate(nearest)]


def _beside(hole):
    """Return which visible pixels have a neighbor in the hole, above, below, left or right."""
    padded = np.pad(hole, 1)
    rows = padded[:-2, 1:-1] | padded[2:, 1:-1]
    columns = padded[1:-1, :-2] | padded[1:-1, 2:]
    return (rows | columns) & ~hole


def _decoder(shape, channels):
    features = inputs = keras.Input(shape, name="embedding")
    if shape[-1] > MOST_CHANNELS:
        features = keras.layers.Conv2D(REDUCED_CHANNELS, 1, name="reduce")(features)
    features = ChannelwiseDense(name="channelwise")(features)
    features = keras.layers.Conv2D(
        features.shape[-1], 1, kernel_initializer="he_normal", name="mix"
    )(features)
    features = _normalized(features, "mix")
    for k, number in enumerate(channels, start=1):
        features = _enlarged(features, number, f"up{k}")
        features = _normalized(features, f"up{k}")
    features = _enlarged(features, 3, f"up{len(channels) + 1}")
    return keras.Model(inputs, features, name="decoder")


def _enlarged(features, channels, name):
    # The deviation of the released inpainting network. Batch norm follows, except for the pixels,
    # which so start near 0.
    initializer = keras.initializers.RandomNormal(stddev=0.02)
    return keras.layers.Conv2DTranspose(
        channels, 5, strides=2, padding="same", kernel_initializer=initializer, name=name
    )(features)


def _normalized(features, name):
    features = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"batch_{name}")(features)
    return keras.layers.ReLU(name=f"relu_{name}")(features)
