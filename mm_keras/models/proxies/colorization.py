"""The colorization proxy: predict the colors of a gray image.

Sources: Larsson, Maire, Shakhnarovich, "Colorization as a proxy task for visual understanding",
CVPR 2017; "Learning representations for automatic colorization", ECCV 2016.
"""

import keras
import numpy as np
from keras import ops

from mm_keras import layers
from mm_keras.models.context import hypercolumn_context, hypercolumn_context_taps
from mm_keras.models.dense import dense_map
from mm_keras.models.trainable import Trainable

FORMULATIONS = ("2017", "2016")

KEYS = ("image", "points", "hue", "chroma", "chroma_value", "lightness")
"""Keys of a batch (`pipelines.batches.colorization.batches`)."""

HEADS = ("hue", "chroma")

HUE_WEIGHT = 5.0  # times chroma, since the hue of a color close to gray is noise (both releases)

# If the mean of exp(2 pi i hue) under the distribution of hue is shorter than this, the hues
# disagree and `decode` reduces the chroma: 0.03 of the sum over 32 bins in
# autocolorize/extraction.py ("expectation-cf").
FADING = 32 * 0.03


class Colorization(Trainable):
    """Predict hue and chroma of a gray image's pixels, each as a distribution over bins.

    The prediction uses the hypercolumn: the backbone's taps, and fc6 and fc7 if its spec has them.
    The network sees only the mean of red, green and blue. A backbone that expects color gets that
    mean in all three channels. One training step reads the given points and never builds a dense
    hypercolumn. The trained weights stay in `backbone`.

    `fit` takes the batches of `pipelines.batches.colorization.batches`: {"image" uint8 [B, H, W,
    3], "points" int32 [B, P, 2], "hue" and "chroma" int32 [B, P] or float32 [B, P, num_bins],
    "chroma_value" and "lightness" float32 [B, P]}, on any Keras backend.

    The loss is the mean over all points. D is the cross-entropy for class ids, and the
    Kullback-Leibler divergence for distributions:

    "2017": 5 chroma D(hue) + D(chroma) + decay / 2 * the sum of squares of the head's three
    matrices (selfsup colorize_hypercolumn.py).
    "2016": 5 chroma D(hue) + min(1, 3 min(lightness, 1 - lightness)) D(chroma)
    (autocolorize train_vgg16.prototxt).

    Metrics: loss; hue_cross_entropy (weighted by chroma) and chroma_cross_entropy (weighted as in
    the loss), in nats; hue_entropy and chroma_entropy, the cross-entropies of the best constant
    prediction on the same points; gradient_norm; non_finite, the number of steps whose loss or
    gradient is not finite. The difference between cross-entropy and entropy is the information that
    the network gets from the images.

    Args:
        backbone: the network that M&M tunes later.
        formulation: formulation of the loss, "2017" or "2016".
        num_bins: number of bins of hue, and of chroma.
        dropout: dropout rate on fc6, fc7 and the hidden layer.
        stddev: standard deviation of the initial kernels of the hidden layer (1e-4 in both
            releases).
        decay: weight decay of the head in formulation "2017".
        input_tap: whether the hypercolumn contains the network's input. It does in 2016 and for
            AlexNet, but not for VGG-16 in 2017.
        fc6_size: side of fc6's kernel, 7 for VGG-16 and 6 for AlexNet in the releases.
        name: name of the model.

    Raises:
        ValueError: if the formulation is unknown, or num_bins is below 1.
    """

    batch_keys = KEYS

    def __init__(
        self,
        backbone,
        formulation="2017",
        num_bins=32,
        dropout=0.5,
        stddev=1e-4,
        decay=1e-6,
        input_tap=False,
        fc6_size=7,
        name="colorization",
    ):
        _check(formulation, num_bins)
        entropies = [ConstantCrossEntropy(num_bins, f"{name}_entropy") for name in HEADS]
        super().__init__(
            name, ("hue_cross_entropy", "chroma_cross_entropy", "gradient_norm", *entropies)
        )
        self.backbone, self.formulation, self.num_bins = backbone, formulation, num_bins
        self.decay = decay
        self._build_network(backbone.spec, dropout, stddev, input_tap, fc6_size)
        self.built = True

    def _build_network(self, spec, dropout, stddev, input_tap, fc6_size):
        self.context = None
        if spec.context_units:
            self.context = hypercolumn_context(
                spec, dropout, added=False, fc6_size=fc6_size, batch_norm=True
            )
        taps = [tap for tap in spec.taps if input_tap or tap.name != "input"]
        self.hypercolumn = layers.Hypercolumn(
            [
                *((tap.name, tap.stride, tap.channels) for tap in taps),
                *hypercolumn_context_taps(spec, added=False),
            ],
            spec.hypercolumn_units,
            stddev,
            offsets={tap.name: tap.offset for tap in taps},
        )
        self.hypercolumn.build()
        self.dropout = keras.layers.Dropout(dropout, name="dropout")
        self.hue, self.chroma = (
            keras.layers.Dense(self.num_bins, kernel_initializer=layers.xavier(), name=name)
            for name in HEADS
        )
        for layer in (self.hue, self.chroma):
            layer.build((None, spec.hypercolumn_units))

    def call(self, inputs, training=False):
        """Return logits at points.

        Args:
            inputs: {"image": [B, H, W, 3] with RGB values 0..255, "points": int32 [B, P, 2] of (y,
                x)}. Other keys are ignored.

        Returns:
            {"hue", "chroma"}, float32 [B, P, num_bins] each.
        """
        maps = self.feature_maps(inputs["image"], training)
        responses = self.hypercolumn(maps, inputs["points"])
        return self._logits(responses, training)

    def feature_maps(self, images, training=False):
        """Return all taps of the hypercolumn, {name: [B, h, w, C]}, of images in 0..255."""
        gray = ops.broadcast_to(_lightness(images), ops.shape(images))
        maps = dict(self.backbone(gray, training=training))
        if self.context is not None:
            embedding = maps[self.backbone.spec.embedding.name]
            maps.update(self.context(embedding, training=training))
        return maps

    def colorize(self, images, output_stride=2):
        """Paint images in the predicted colors (autocolorize/extraction.py).

        `decode` turns the distributions into one vector per cell, in bands of rows. The vectors
        are interpolated between cells. Each pixel keeps its lightness. The method runs eagerly and
        in graph mode, at any size.

        Args:
            images: uint8 or float [B, H, W, 3], RGB 0..255. Only their lightness is used.
            output_stride: image pixels per decoded cell. The stride of the finest tap is the
                minimum.

        Returns:
            uint8 [B, H, W, 3].
        """
        stride = max(output_stride, min(tap_stride for _, tap_stride, _ in self.hypercolumn.taps))
        size = ops.shape(images)[1:3]

        def decoded(responses):
            logits = self._logits(responses, training=False)
            return decode(*(ops.softmax(logits[name], axis=-1) for name in HEADS))

        maps = self.feature_maps(images)
        vectors = dense_map(self.hypercolumn, maps, size, stride, decoded)
        return paint(layers.upsample(vectors, stride, size), _lightness(images)[..., 0] / 255)

    def _logits(self, responses, training):
        hidden = self.dropout(ops.relu(responses), training=training)
        heads = {"hue": self.hue, "chroma": self.chroma}
        return {name: ops.cast(head(hidden), "float32") for name, head in heads.items()}

    def batch_loss(self, inputs, targets, outputs):
        """Return the loss of logits at the points of a batch. Record the cross-entropies."""
        weights = point_weights(inputs["chroma_value"], inputs["lightness"], self.formulation)
        loss = self._head_decay()
        for name in HEADS:
            target = distribution(inputs[name], self.num_bins)
            values = cross_entropy(target, outputs[name])
            self.trackers[f"{name}_cross_entropy"].update_state(values, sample_weight=weights[name])
            self.trackers[f"{name}_entropy"].update_state(target, sample_weight=weights[name])
            loss = loss + ops.mean(weights[name] * (values - entropy(target)))
        return loss

    def _head_decay(self):
        if self.formulation != "2017":
            return 0.0
        matrices = (*self.hypercolumn.kernels.values(), self.hue.kernel, self.chroma.kernel)
        squares = [ops.sum(ops.square(ops.cast(matrix, "float32"))) for matrix in matrices]
        return self.decay / 2 * sum(squares)


class ConstantCrossEntropy(keras.metrics.Metric):
    """Compute the smallest cross-entropy of one constant prediction for all points, in nats.

    It is the entropy of the mean of all target distributions since the last reset. It is 0 before
    the first point of positive weight.
    """

    def __init__(self, num_bins, name="constant_cross_entropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.mass = self.add_variable(shape=(num_bins,), initializer="zeros", name="mass")

    def update_state(self, targets, sample_weight):
        """Add distributions [..., num_bins] with weights [...]."""
        weighted = ops.cast(targets, self.mass.dtype) * sample_weight[..., None]
        self.mass.assign_add(ops.sum(ops.reshape(weighted, (-1, self.mass.shape[0])), axis=0))

    def result(self):
        total = ops.maximum(ops.sum(self.mass), keras.config.epsilon())
        return entropy(self.mass / total)


def point_weights(chroma, lightness, formulation="2017"):
    """Return the weight of each point in the two terms of the loss, see `Colorization`.

    Args:
        chroma: float [...], 0..1.
        lightness: float [...], 0..1.
        formulation: "2017" or "2016".

    Returns:
        {"hue", "chroma"}, float32 [...] each.
    """
    chroma, lightness = ops.cast(chroma, "float32"), ops.cast(lightness, "float32")
    of_chroma = ops.ones_like(chroma)
    if formulation == "2016":
        of_chroma = ops.minimum(1.0, 3 * ops.minimum(lightness, 1 - lightness))
    return {"hue": HUE_WEIGHT * chroma, "chroma": of_chroma}


def distribution(targets, num_bins):
    """Return targets as distributions, float32 [B, P, num_bins].

    Class ids [B, P] become one-hot. Distributions are only cast.
    """
    targets = ops.convert_to_tensor(targets)
    is_index = len(targets.shape) == 2
    return ops.one_hot(targets, num_bins) if is_index else ops.cast(targets, "float32")


def cross_entropy(targets, logits):
    """Return the cross-entropy [...] of logits against distributions [..., bins], in nats."""
    return -ops.sum(targets * ops.log_softmax(logits, axis=-1), axis=-1)


def entropy(probabilities):
    """Return the entropy [...] of distributions [..., bins], in nats."""
    logs = ops.log(ops.maximum(probabilities, keras.config.epsilon()))
    return -ops.sum(probabilities * logs, axis=-1)


def mean_distributions(batches, num_bins=32) -> dict[str, np.ndarray]:
    """Return the mean targets of some batches, weighted as in formulation "2017".

    One count of weight 1 is added to each bin, so that no bin has probability 0.

    Args:
        batches: iterable of batches, see `KEYS`.
        num_bins: number of bins of hue, and of chroma.

    Returns:
        {"hue", "chroma"}, float64 [num_bins] each, sum 1.
    """
    mass = {name: np.ones(num_bins) for name in HEADS}
    for batch in batches:
        for name, weighted in _weighted_targets(batch, num_bins).items():
            mass[name] += weighted.sum(axis=(0, 1))
    return {name: values / values.sum() for name, values in mass.items()}


def evaluate(model, batches, means) -> dict[str, float]:
    """Return the cross-entropies of a model on held-out batches, and of a constant prediction.

    The constant prediction is the mean distribution of the training images.

    Args:
        model: `Colorization`, compiled or not.
        batches: iterable of batches, see `KEYS`.
        means: `mean_distributions` of training batches.

    Returns:
        {"hue_cross_entropy", "chroma_cross_entropy", "hue_mean_cross_entropy",
        "chroma_mean_cross_entropy"}, in nats per point, for hue weighted by chroma.

    Raises:
        ValueError: if no point has color.
    """
    sums = dict.fromkeys([f"{name}{k}" for name in means for k in ("", "_mean", "_weight")], 0.0)
    for batch in batches:
        logits = model.predict_on_batch({key: ops.convert_to_numpy(batch[key]) for key in KEYS})
        for name, weighted in _weighted_targets(batch, model.num_bins).items():
            log_probability = ops.convert_to_numpy(ops.log_softmax(logits[name], axis=-1))
            sums[name] -= np.sum(weighted * log_probability)
            sums[f"{name}_mean"] -= np.sum(weighted * np.log(means[name]))
            sums[f"{name}_weight"] += np.sum(weighted)
    if not sums["hue_weight"]:
        raise ValueError("No point has any color: evaluate on batches of color images.")
    return {
        f"{name}{kind}_cross_entropy": float(sums[f"{name}{kind}"] / sums[f"{name}_weight"])
        for name in means
        for kind in ("", "_mean")
    }


def _weighted_targets(batch, num_bins):
    weights = point_weights(batch["chroma_value"], batch["lightness"])
    return {
        name: np.asarray(
            ops.convert_to_numpy(distribution(batch[name], num_bins) * weight[..., None]), "float64"
        )
        for name, weight in weights.items()
    }


def decode(hue, chroma):
    """Return a color from distributions over hue and chroma.

    Chroma is the middle of the bin of the median. Hue is the circular mean. Chroma is multiplied by
    min(1, m / 0.96), where m is the length of the mean of exp(2 pi i hue): 1 for a single hue, less
    if the hues disagree (autocolorize/extraction.py).

    Args:
        hue: float [..., bins], probabilities.
        chroma: float [..., bins], probabilities.

    Returns:
        float32 [..., 2], chroma times (cos, sin) of 2 pi hue. Such vectors can be interpolated.
    """
    hue, chroma = ops.cast(hue, "float32"), ops.cast(chroma, "float32")
    num_bins = hue.shape[-1]
    angles = 2 * np.pi * (np.arange(num_bins) + 0.5) / num_bins
    mean = ops.matmul(hue, np.stack([np.cos(angles), np.sin(angles)], -1).astype("float32"))
    length = ops.sqrt(ops.sum(ops.square(mean), axis=-1))
    below = ops.sum(ops.cast(ops.cumsum(chroma, axis=-1) < 0.5, "float32"), axis=-1)
    median = (below + 0.5) / chroma.shape[-1]
    faded = median * ops.minimum(1.0, length / FADING)
    return mean * (faded / ops.maximum(length, keras.config.epsilon()))[..., None]


def paint(vectors, lightness):
    """Return RGB pixels of given colors and lightness.

    The release sets value and saturation from lightness and chroma, then shifts the result to the
    given lightness. Only hue and chroma remain of both. Here hue and chroma are painted directly,
    as offsets from the lightness. Values outside 0..255 are clipped.

    Args:
        vectors: float [..., 2], chroma times (cos, sin) of 2 pi hue.
        lightness: float [...], mean of red, green and blue, 0..1.

    Returns:
        uint8 [..., 3].
    """
    hue = ops.arctan2(vectors[..., 1], vectors[..., 0]) * (3 / np.pi)  # -3..3, red at 0
    chroma = ops.sqrt(ops.sum(ops.square(vectors), axis=-1))
    # Distance on the circle from each primary: full up to 1, none from 2 on.
    primaries = np.array([0.0, 2.0, 4.0], "float32")
    apart = ops.abs(ops.mod(hue[..., None] - primaries + 3.0, 6.0) - 3.0)
    colors = chroma[..., None] * ops.clip(2.0 - apart, 0.0, 1.0)
    shift = lightness[..., None] - ops.mean(colors, axis=-1, keepdims=True)
    return ops.cast(ops.clip(ops.round(255 * (colors + shift)), 0, 255), "uint8")


def _lightness(images):
    """Return the mean of red, green and blue, float32 [B, H, W, 1]."""
    return ops.mean(ops.cast(images, "float32"), axis=-1, keepdims=True)


def _check(formulation, num_bins):
    if formulation not in FORMULATIONS:
        raise ValueError(
            f"Unknown formulation {formulation!r} of colorization; expected one of {FORMULATIONS}."
        )
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1. Received {num_bins}.")
