"""The BiGAN proxy: an encoder and a generator that a discriminator of pairs cannot tell apart.

Source: Donahue, Krähenbühl and Darrell, "Adversarial feature learning", ICLR 2017
(jeffdonahue/bigan, gan.py and net.py).
"""

from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from mm_keras import layers
from mm_keras.backbones.spec import Backbone
from mm_keras.models.proxies import map_shapes
from mm_keras.models.trainable import Trainable

DEPTH = 4
"""Halvings of the discriminator and doublings of the generator. Source: net.py."""

COLLAPSED = 0.25
"""Deviation of samples, as a share of the deviation of images, that counts as collapse. Source:
ours."""


class Bigan(Trainable):
    """Train an encoder, a generator and a discriminator of pairs.

    The encoder E is the backbone, a dense layer on its last tap and a sigmoid scaled to -1..1. The
    generator G turns codes into images. The discriminator D sees pairs: an image x with its code
    E(x), or a code z with its image G(z). All three are updated in one step from one batch. The
    trained weights stay in `backbone`.

    `fit` takes the batches of `pipelines.batches.latents.batches`: {"image" uint8 [B, S, S, 3], "z"
    float32 [B, C] in -1..1}.

    The loss is the sum of D's loss and of the loss of E and G. D's loss is half the cross-entropy
    of its logits, with label 1 for (x, E(x)) and 0 for (G(z), z). The other loss has the labels
    swapped. Each part sees the other part's variables as constants, so one optimizer of Adam's kind
    does what two would do.

    Metrics: loss; discriminator_loss and encoder_loss, ln 2 at the start; sample_deviation, the
    standard deviation of generated pixels over the batch, which falls to 0 if G collapses;
    gradient_norm; non_finite.

    Args:
        backbone: the network that M&M tunes later.
        crop: side S of the images that the encoder sees.
        side: side of generated images, a multiple of 16.
        num_codes: values C of a code.
        channels: channels of the discriminator's first layer; the others have 2, 4 and 8 times as
            many.
        name: name of the model.

    Raises:
        ValueError: the side is no multiple of 16, or the crop is too small for the backbone.
    """

    batch_keys = ("image", "z")
    has_targets = False

    def __init__(
        self,
        backbone: Backbone,
        crop: int,
        side: int = 64,
        num_codes: int = 200,
        channels: int = 64,
        name: str = "bigan",
    ):
        if side % 2**DEPTH:
            raise ValueError(f"side must be a multiple of {2**DEPTH}. Received {side}.")
        super().__init__(
            name, ("discriminator_loss", "encoder_loss", "sample_deviation", "gradient_norm")
        )
        self.backbone, self.side, self.tap = backbone, side, backbone.spec.taps[-1]
        self.code = keras.layers.Dense(
            num_codes, use_bias=False, kernel_initializer=_normal(0.02), name="code"
        )
        self.code.build((None, int(np.prod(map_shapes.of_crop(backbone, self.tap.name, crop)))))
        self.generator = _generator(side, num_codes, channels)
        self.discriminator = _discriminator(side, num_codes, channels)
        self.built = True

    def call(self, inputs, training=False):
        """Return the logits of both pairs, each for D's loss and for the loss of E and G.

        Args:
            inputs: {"image": [B, S, S, 3], RGB 0..255; "z": [B, C]}.

        Returns:
            {"discriminator": logits (real, generated), float32 [B, 1], constant in E and G;
            "encoder": the same logits, constant in D; "samples": float32 [B, side, side, 3]}.
        """
        samples = self.generate(inputs["z"], training)
        real = (self.small(inputs["image"]), self.encode(inputs["image"], training))
        pairs = (real, (samples, ops.cast(inputs["z"], "float32")))
        constant = [tuple(ops.stop_gradient(part) for part in pair) for pair in pairs]
        return {
            "discriminator": tuple(self._logits(pair, training) for pair in constant),
            "encoder": tuple(self._constant_logits(pair, training) for pair in pairs),
            "samples": samples,
        }

    def encode(self, images, training=False):
        """Return codes in -1..1 of images [B, S, S, 3], RGB 0..255; float32 [B, C]."""
        features = self.backbone(images, training=training)[self.tap.name]
        flat = ops.reshape(features, (-1, self.code.kernel.shape[0]))
        return 2 * ops.sigmoid(ops.cast(self.code(flat), "float32")) - 1

    def generate(self, codes, training=False):
        """Return images in -1..1 of codes [B, C]; float32 [B, side, side, 3]."""
        return ops.cast(self.generator(codes, training=training), "float32")

    def small(self, images):
        """Return images 0..255 at the size of generated ones, float32 in -1..1."""
        images = ops.cast(images, "float32")
        if images.shape[1] != self.side:
            images = ops.image.resize(images, (self.side, self.side), antialias=True)
        return images / 127.5 - 1

    def batch_loss(self, inputs, targets, outputs):
        """Return the sum of both losses, and record them."""
        real, generated = outputs["discriminator"]
        discriminator_loss = pair_loss(real, generated)
        real, generated = outputs["encoder"]
        encoder_loss = pair_loss(generated, real)
        self.trackers["discriminator_loss"].update_state(discriminator_loss)
        self.trackers["encoder_loss"].update_state(encoder_loss)
        deviation = ops.mean(ops.std(outputs["samples"], axis=0))
        self.trackers["sample_deviation"].update_state(deviation)
        return discriminator_loss + encoder_loss

    def _logits(self, pair, training):
        return ops.cast(self.discriminator(pair, training=training), "float32")

    def _constant_logits(self, pair, training):
        """Return the logits of a pair without a gradient of D's variables."""
        network = self.discriminator
        logits, _ = network.stateless_call(
            [ops.stop_gradient(ops.convert_to_tensor(v)) for v in network.trainable_variables],
            [ops.convert_to_tensor(v) for v in network.non_trainable_variables],
            pair,
            training=training,
        )
        return ops.cast(logits, "float32")


def pair_loss(ones, zeros):
    """Return half the cross-entropy of logits with label 1 and of logits with label 0, a scalar.

    >>> round(float(pair_loss(np.array([0.3]), np.array([-0.2]))), 4)
    0.5762
    """
    ones, zeros = (ops.cast(ops.convert_to_tensor(x), "float32") for x in (ones, zeros))
    return (ops.mean(ops.softplus(-ones)) + ops.mean(ops.softplus(zeros))) / 2


def evaluate(model: Bigan, batches: Iterable) -> dict[str, float]:
    """Measure reconstructions and samples on held-out images.

    Args:
        model: the trained model.
        batches: iterable of {"image", "z"}, of at least two images each.

    Returns:
        {"reconstruction_ratio": mean distance of an image x from G(E(x)), over the mean distance of
        another image of the batch from it; "other_image_ratio": 1, the ratio of a reconstruction
        that ignores the image; "sample_deviation": standard deviation of generated pixels over a
        batch; "collapsed_deviation": a quarter of the same of images}.

    Raises:
        ValueError: if there is no batch, or one of a single image.
    """
    own, other, deviations, image_deviations = [], [], [], []
    for batch in batches:
        images = ops.convert_to_numpy(model.small(batch["image"]))
        if len(images) < 2:
            raise ValueError("A batch must hold at least two images. Received one.")
        codes = model.encode(batch["image"])
        rebuilt = ops.convert_to_numpy(model.generate(codes))
        own.extend(_distances(images, rebuilt))
        other.extend(_distances(np.roll(images, 1, axis=0), rebuilt))
        samples = ops.convert_to_numpy(model.generate(batch["z"]))
        deviations.append(np.std(samples, axis=0).mean())
        image_deviations.append(np.std(images, axis=0).mean())
    if not own:
        raise ValueError("There is no batch to measure on: check num_steps and the files.")
    return {
        "reconstruction_ratio": float(np.mean(own) / np.mean(other)),
        "other_image_ratio": 1.0,
        "sample_deviation": float(np.mean(deviations)),
        "collapsed_deviation": COLLAPSED * float(np.mean(image_deviations)),
    }


def as_pictures(images) -> np.ndarray:
    """Return images in -1..1 as uint8."""
    return np.clip(np.round((np.asarray(images) + 1) * 127.5), 0, 255).astype("uint8")


def _distances(images, others):
    return np.sqrt(np.sum(np.square(images - others), axis=(1, 2, 3)))


def _normal(stddev):
    return keras.initializers.RandomNormal(stddev=stddev)


def _generator(side, num_codes, channels):
    """Build a dense layer and transposed convolutions; all but the last see the code again."""
    codes = keras.Input((num_codes,), name="codes")
    cells, number = side // 2**DEPTH, channels * 2 ** (DEPTH - 1)
    features = keras.layers.Dense(
        cells * cells * number, use_bias=False, kernel_initializer=_normal(0.02), name="fc"
    )(codes)
    # One mean and deviation for each value, and not for each channel (net.py).
    features = keras.layers.ReLU()(_norm("batch_fc")(features))
    features = keras.layers.Reshape((cells, cells, number))(features)
    for k in range(1, DEPTH):
        number //= 2
        features = _up(number, f"up{k}", use_bias=False)(features)
        features = _with_codes(features, codes, number, f"up{k}")
        features = keras.layers.ReLU()(_norm(f"batch_up{k}")(features))
    pixels = _up(3, f"up{DEPTH}", use_bias=True)(features)
    return keras.Model(codes, 2 * keras.ops.sigmoid(pixels) - 1, name="generator")


def _discriminator(side, num_codes, channels):
    """Build strided convolutions; all but the first see the code of the pair."""
    images = keras.Input((side, side, 3), name="images")
    codes = keras.Input((num_codes,), name="codes")
    features, number = images, channels
    for k in range(1, DEPTH + 1):
        features = keras.layers.Conv2D(
            number,
            5,
            strides=2,
            padding="same",
            use_bias=k == 1,
            kernel_initializer=_normal(0.02),
            name=f"conv{k}",
        )(features)
        if k > 1:
            features = _norm(f"batch_conv{k}")(_with_codes(features, codes, number, f"conv{k}"))
        features = _leaky_relu(features)
        number *= 2
    # Zeros: all logits start at 0 and all losses at ln 2.
    score = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="score")
    return keras.Model(
        [images, codes], score(keras.layers.Flatten()(features)), name="discriminator"
    )


def _leaky_relu(features):
    """Return the values of LeakyReLU with slope 0.2, and its gradient.

    TensorFlow 2.21 joins its own operation with the bias before it on CPUs. This fails where the
    gradient needs the sum, and an error is logged ("remapper failed").
    """
    return ops.where(features > 0, features, 0.2 * features)


def _up(channels, name, use_bias):
    return keras.layers.Conv2DTranspose(
        channels,
        5,
        strides=2,
        padding="same",
        use_bias=use_bias,
        kernel_initializer=_normal(0.02),
        name=name,
    )


def _with_codes(features, codes, channels, name):
    """Add a dense layer of the codes to the channels of a map (net.py, deviation 25 * 0.02)."""
    added = keras.layers.Dense(
        channels, use_bias=False, kernel_initializer=_normal(0.5), name=f"codes_{name}"
    )(codes)
    return features + keras.layers.Reshape((1, 1, channels))(added)


def _norm(name):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)
