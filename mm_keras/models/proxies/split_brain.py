"""The split-brain proxy: each half of AlexNet predicts the channels that the other half sees.

Source: Zhang, Isola and Efros, "Split-brain autoencoders: unsupervised learning by cross-channel
prediction", CVPR 2017 (richzhang/splitbrainauto). Solver and training code were not released.
"""

from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from mm_keras.backbones.spec import Backbone
from mm_keras.layers import lab
from mm_keras.models.proxies import color_bins
from mm_keras.models.proxies.class_head import at_targets, class_head
from mm_keras.models.trainable import Trainable

STRIDE = 16
"""Image pixels per target. Source: the paper, 180 pixels and 12 targets a side."""

FC6_SIZE = 6
"""Side of the kernel of fc6. Source: the paper's AlexNet, as train_alexnet."""

TARGETS = ("color", "lightness")
"""The targets of the first half, which sees L, and of the second one, which sees a and b."""


class Halves(keras.constraints.Constraint):
    """Set the weights between the two halves of a convolution's channels to zero.

    So a dense kernel stays the kernel of two networks side by side, like a kernel of two groups.

    Args:
        first_inputs: input channels of the first half.

    Example:

    >>> ops.convert_to_numpy(Halves(first_inputs=1)(np.ones((1, 1, 3, 4)))[0, 0])
    array([[1., 1., 0., 0.],
           [0., 0., 1., 1.],
           [0., 0., 1., 1.]])
    """

    def __init__(self, first_inputs: int):
        self.first_inputs = first_inputs

    def __call__(self, kernel):
        """Return kernel [height, width, inputs, outputs] without the weights between halves."""
        num_inputs, num_outputs = kernel.shape[-2:]
        first_input = np.arange(num_inputs)[:, None] < self.first_inputs
        first_output = np.arange(num_outputs) < num_outputs // 2
        return kernel * ops.convert_to_tensor(first_input == first_output, kernel.dtype)

    def get_config(self):
        return {"first_inputs": self.first_inputs}


class SplitBrain(Trainable):
    """Train two half networks: L predicts the color bins, and a and b predict the lightness bins.

    The halves are the halves of the channels of one AlexNet that reads Lab. Its layers of two
    groups are split already. In conv1 and conv3 the weights between the halves are zero, and stay
    zero. So the trained `backbone` is the merged network: an AlexNet whose conv1 and conv3 are
    dense. Later stages train their zeros as well, as the released networks do.

    Each half has a head of its own: pooling of stride 1 on its half of conv5, fc6, fc7 and the
    classes. The target of a pixel is one bin, without soft code and without weights.

    `fit` takes the batches of `pipelines.batches.images.batches`: {"image" uint8 [B, H, W, 3]}, on
    any Keras backend.

    The loss is the sum of both mean cross-entropies over every sixteenth pixel.

    Metrics: loss; color_cross_entropy and lightness_cross_entropy, in nats; gradient_norm;
    non_finite.

    Args:
        backbone: AlexNet with pixels "lab". Its weights between the halves become zero.
        name: name of the model.

    Raises:
        ValueError: another backbone, or other pixels.
    """

    batch_keys = ("image",)

    def __init__(self, backbone: Backbone, name: str = "split_brain"):
        spec = backbone.spec
        if spec.name != "alexnet" or spec.pixels.color != "lab":
            raise ValueError(
                "split_brain cuts alexnet with pixels 'lab' in two halves, and no other network. "
                f"Received {spec.name} with pixels {spec.pixels.color!r}."
            )
        super().__init__(name, (*(f"{key}_cross_entropy" for key in TARGETS), "gradient_norm"))
        self.backbone, self.tap = backbone, spec.taps[-1]
        _split(backbone)
        num_bins = {"color": len(color_bins.BINS), "lightness": color_bins.NUM_LIGHTNESSES}
        units = [max(1, number // 2) for number in spec.context_units[:2]]
        self.heads = {
            key: class_head(self.tap.channels // 2, units, FC6_SIZE, num_bins[key], f"{key}_head")
            for key in TARGETS
        }
        self.priors = {
            key: self.add_weight(
                shape=(number,),
                initializer=keras.initializers.Constant(1 / number),
                trainable=False,
                name=f"{key}_prior",
            )
            for key, number in num_bins.items()
        }
        self.built = True

    def call(self, inputs, training=False):
        """Return logits at the targets.

        Args:
            inputs: {"image": [B, H, W, 3] with RGB values 0..255}.

        Returns:
            {"color": float32 [B, ceil(H / 16), ceil(W / 16), 313], of the half that sees L;
            "lightness": [..., 50], of the half that sees a and b}.
        """
        images = inputs["image"]
        halves = ops.split(self.backbone(images, training=training)[self.tap.name], 2, axis=-1)
        return {
            key: at_targets(
                self.heads[key](half, training=training), images, self.tap.stride, STRIDE
            )
            for key, half in zip(TARGETS, halves, strict=True)
        }

    def batch_loss(self, inputs, targets, outputs):
        """Return the sum of both cross-entropies of logits, and record them."""
        total = 0.0
        for key, bins in target_bins(inputs["image"]).items():
            entropy = ops.mean(_cross_entropy(bins, outputs[key]))
            self.trackers[f"{key}_cross_entropy"].update_state(entropy)
            total = total + entropy
        return total

    def set_prior(self, batches: Iterable):
        """Set the priors to the shares of the bins in some images.

        One count is added to each bin, so that none has probability 0.

        Args:
            batches: iterable of {"image" uint8 [B, H, W, 3]}.
        """
        counts = {key: np.ones(prior.shape[0]) for key, prior in self.priors.items()}
        for batch in batches:
            for key, bins in target_bins(batch["image"]).items():
                counts[key] += np.bincount(
                    ops.convert_to_numpy(bins).ravel(), minlength=len(counts[key])
                )
        for key, prior in self.priors.items():
            prior.assign(counts[key] / counts[key].sum())

    def colorize(self, images):
        """Return images in the predicted colors, each pixel with its own lightness.

        Args:
            images: uint8 [B, H, W, 3], RGB. Only their lightness is used.

        Returns:
            uint8 [B, H, W, 3].
        """
        logits = self({"image": images}, training=False)["color"]
        return color_bins.colorized(images, logits, STRIDE)


def target_bins(images) -> dict:
    """Return the bins of every sixteenth pixel.

    Args:
        images: uint8 [B, H, W, 3], RGB.

    Returns:
        {"color": int32 [B, ceil(H / 16), ceil(W / 16)], nearest of the 313 colors; "lightness": the
        same of the 50 lightnesses}.
    """
    colors = lab.rgb_to_lab(ops.convert_to_tensor(images)[:, ::STRIDE, ::STRIDE])
    nearest, _ = color_bins.soft_encoding(colors[..., 1:], num_neighbors=1)
    return {
        "color": nearest[..., 0],
        "lightness": color_bins.lightness_bins(colors[..., 0]),
    }


def evaluate(model: SplitBrain, batches: Iterable) -> dict[str, float]:
    """Measure both halves on held-out images, beside predictions that ignore the image.

    Args:
        model: the trained model.
        batches: iterable of {"image" uint8 [B, H, W, 3]}.

    Returns:
        {"color_cross_entropy": mean in nats; "color_prior_cross_entropy": the same for the prior;
        "lightness_cross_entropy" and "lightness_prior_cross_entropy": the same for the lightness}.

    Raises:
        ValueError: if there is no batch.
    """
    values = {f"{key}{kind}_cross_entropy": [] for key in TARGETS for kind in ("", "_prior")}
    for batch in batches:
        logits = model.predict_on_batch({"image": batch["image"]})
        for key, bins in target_bins(batch["image"]).items():
            constant = ops.broadcast_to(ops.log(model.priors[key]), logits[key].shape)
            for kind, prediction in (("", logits[key]), ("_prior", constant)):
                entropies = ops.convert_to_numpy(_cross_entropy(bins, prediction))
                values[f"{key}{kind}_cross_entropy"].append(entropies.ravel())
    if not values["color_cross_entropy"]:
        raise ValueError("There is no batch to measure on: check num_steps and the files.")
    return {name: float(np.mean(np.concatenate(parts))) for name, parts in values.items()}


def _cross_entropy(bins, logits):
    return keras.losses.sparse_categorical_crossentropy(bins, logits, from_logits=True)


def _split(backbone):
    """Cut the layers without groups in two halves: conv1 after L, conv3 in the middle."""
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.groups == 1:
            constraint = Halves(1 if layer.name == "conv1" else layer.kernel.shape[-2] // 2)
            layer.kernel.assign(constraint(layer.kernel))
            layer.kernel.constraint = constraint
