"""The color classes proxy: classify the colors of an image of which only the lightness is seen.

Source: Zhang, Isola and Efros, "Colorful image colorization", ECCV 2016. The network is the one of
train_alexnet, which the paper's tables of features use.
"""

from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from mm_keras.backbones.spec import Backbone, scaled
from mm_keras.layers import lab
from mm_keras.models.proxies import color_bins
from mm_keras.models.proxies.class_head import at_targets, class_head
from mm_keras.models.trainable import Trainable

STRIDE = 8
"""Image pixels per target. Source: train_alexnet, 180 pixels and 23 targets a side."""

IS_COLORED = 5.0
"""An image counts if a or b of any target is above this. Source: NonGrayMaskLayer."""

UNITS_OF_PLAIN_HEAD = 512
"""Channels between a wrapped backbone and the classes. Source: ours."""


class ColorClasses(Trainable):
    """Predict the color of every eighth pixel as a distribution over 313 bins.

    The network sees a gray image of the same lightness. AlexNet and VGG-16 get the published head:
    pooling of stride 1 on the last convolution, fc6 with dilation 2, fc7 and fc8. Other backbones
    get two convolutions of 1 x 1 on their embedding. The logits are interpolated at the targets.
    The trained weights stay in `backbone`.

    `fit` takes the batches of `pipelines.batches.images.batches`: {"image" uint8 [B, H, W, 3]}, on
    any Keras backend. Images without color have no weight.

    The loss is the mean over all targets of weight times cross-entropy to the soft encoding of the
    color. The weight follows from the bin nearest to the color, and from the prior; call
    `set_prior` before training.

    Metrics: loss; cross_entropy, not weighted, in nats; prior_cross_entropy, the same for a
    constant prediction of the prior; gradient_norm; non_finite.

    Args:
        backbone: the network that M&M tunes later.
        num_neighbors: bins of a soft encoding, see `color_bins.soft_encoding`.
        uniform_share: see `color_bins.rebalancing_weights`.
        fc6_size: side of fc6's kernel, 6 for AlexNet and 3 for VGG-16.
        name: name of the model.
    """

    batch_keys = ("image",)

    def __init__(
        self,
        backbone: Backbone,
        num_neighbors: int = color_bins.NUM_NEIGHBORS,
        uniform_share: float = 0.5,
        fc6_size: int = 3,
        name: str = "color_classes",
    ):
        super().__init__(name, ("cross_entropy", "prior_cross_entropy", "gradient_norm"))
        self.backbone, self.num_neighbors = backbone, num_neighbors
        self.uniform_share = uniform_share
        num_bins, spec = len(color_bins.BINS), backbone.spec
        self.prior = self.add_weight(
            shape=(num_bins,),
            initializer=keras.initializers.Constant(1 / num_bins),
            trainable=False,
            name="prior",
        )
        is_published = bool(spec.context_units)
        self.tap = spec.taps[-1] if is_published else spec.embedding
        units = (
            spec.context_units[:2] if is_published else (scaled(UNITS_OF_PLAIN_HEAD, spec.width),)
        )
        self.head = class_head(
            self.tap.channels, units, fc6_size if is_published else None, num_bins
        )
        self.built = True

    def call(self, inputs, training=False):
        """Return logits at the targets.

        Args:
            inputs: {"image": [B, H, W, 3] with RGB values 0..255}.

        Returns:
            float32 [B, ceil(H / 8), ceil(W / 8), 313].
        """
        images = inputs["image"]
        maps = self.backbone(self.network_images(images), training=training)
        logits = self.head(maps[self.tap.name], training=training)
        return at_targets(logits, images, self.tap.stride, STRIDE)

    def network_images(self, images):
        """Return the input of the backbone: gray images of the same lightness.

        A backbone of pixels "lightness" computes the lightness itself.
        """
        if self.backbone.spec.pixels.color == "lightness":
            return images
        return lab.gray_of_same_lightness(images)

    def batch_loss(self, inputs, targets, outputs):
        """Return the weighted loss of logits. Record the cross-entropies."""
        colors = target_colors(inputs["image"])
        bins, shares = color_bins.soft_encoding(colors, self.num_neighbors)
        entropies = color_bins.cross_entropy(outputs, bins, shares)
        self.trackers["cross_entropy"].update_state(entropies)
        prior = ops.broadcast_to(ops.log(self.prior), ops.shape(outputs))
        self.trackers["prior_cross_entropy"].update_state(
            color_bins.cross_entropy(prior, bins, shares)
        )
        weights = ops.take(self.class_weights(), bins[..., 0])
        is_colored = ops.any(ops.abs(colors) > IS_COLORED, axis=(1, 2, 3))
        weights = weights * ops.cast(is_colored, "float32")[:, None, None]
        return ops.mean(weights * entropies)

    def class_weights(self):
        """Return the weight of each bin in the loss, float32 [313]."""
        return color_bins.rebalancing_weights(self.prior, self.uniform_share)

    def set_prior(self, batches: Iterable):
        """Set the prior to the mean soft encoding of some images.

        One count is added to each bin, so that none has probability 0.

        Args:
            batches: iterable of {"image" uint8 [B, H, W, 3]}.
        """
        counts = np.ones(len(color_bins.BINS))
        for batch in batches:
            bins, shares = color_bins.soft_encoding(
                target_colors(batch["image"]), self.num_neighbors
            )
            np.add.at(counts, ops.convert_to_numpy(bins), ops.convert_to_numpy(shares))
        self.prior.assign(counts / counts.sum())

    def colorize(self, images):
        """Return images in the predicted colors, each pixel with its own lightness.

        Args:
            images: uint8 [B, H, W, 3], RGB. Only their lightness is used.

        Returns:
            uint8 [B, H, W, 3].
        """
        logits = self({"image": images}, training=False)
        return color_bins.colorized(images, logits, STRIDE)


def target_colors(images):
    """Return a and b of every eighth pixel, float32 [B, ceil(H / 8), ceil(W / 8), 2]."""
    return lab.rgb_to_lab(ops.convert_to_tensor(images)[:, ::STRIDE, ::STRIDE])[..., 1:]


def evaluate(model: ColorClasses, batches: Iterable) -> dict[str, float]:
    """Measure a model on held-out images, beside predictions that ignore the image.

    The loss counts rare colors more, so the model's probabilities are too high for them. They are
    divided by the weights before the cross-entropy is computed.

    Args:
        model: the trained model.
        batches: iterable of {"image" uint8 [B, H, W, 3]}.

    Returns:
        {"color_cross_entropy": mean in nats; "color_prior_cross_entropy": the same for the prior;
        "color_auc": area under the errors of the decoded colors, 0..1; "gray_auc": the same for
        gray}.

    Raises:
        ValueError: if there is no batch.
    """
    entropies, prior_entropies, errors, gray_errors = [], [], [], []
    shift, prior = ops.log(model.class_weights()), ops.log(model.prior)
    for batch in batches:
        logits = ops.convert_to_tensor(model.predict_on_batch({"image": batch["image"]}))
        colors = target_colors(batch["image"])
        code = color_bins.soft_encoding(colors, model.num_neighbors)
        entropies.append(_numbers(color_bins.cross_entropy(logits - shift, *code)))
        constant = ops.broadcast_to(prior, ops.shape(logits))
        prior_entropies.append(_numbers(color_bins.cross_entropy(constant, *code)))
        errors.append(_numbers(_length(color_bins.annealed_mean(logits) - colors)))
        gray_errors.append(_numbers(_length(colors)))
    if not entropies:
        raise ValueError("There is no batch to measure on: check num_steps and the files.")
    return {
        "color_cross_entropy": float(np.mean(np.concatenate(entropies))),
        "color_prior_cross_entropy": float(np.mean(np.concatenate(prior_entropies))),
        "color_auc": color_bins.area_under_errors(np.concatenate(errors)),
        "gray_auc": color_bins.area_under_errors(np.concatenate(gray_errors)),
    }


def _numbers(values):
    return ops.convert_to_numpy(values).ravel()


def _length(vectors):
    return ops.sqrt(ops.sum(ops.square(vectors), axis=-1))
