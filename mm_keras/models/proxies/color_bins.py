"""The 313 colors and 50 lightnesses of Zhang et al., and distributions over them.

Sources: Zhang, Isola and Efros, "Colorful image colorization", ECCV 2016 (richzhang/colorization),
and "Split-brain autoencoders", CVPR 2017.
"""

import numpy as np
from keras import ops

from mm_keras import layers
from mm_keras.layers import lab

_RANGES = (
    (-90, 50, 90),
    (-80, 20, 90),
    (-70, 0, 90),
    (-60, -20, 90),
    (-50, -30, 100),
    (-40, -40, 100),
    (-30, -50, 100),
    (-20, -50, 100),
    (-10, -60, 100),
    (0, -70, 100),
    (10, -80, 90),
    (20, -80, 90),
    (30, -90, 90),
    (40, -100, 90),
    (50, -100, 80),
    (60, -110, 80),
    (70, -110, 80),
    (80, -110, 70),
    (90, -110, 70),
    (100, -90, 0),
)
"""(a, first b, last b) on a grid of step 10, as in pts_in_hull.npy; no geometric rule gives it."""

BINS = np.array(
    [(a, b) for a, first, last in _RANGES for b in range(first, last + 1, 10)], "float32"
)
"""The colors (a, b) of the bins, float32 [313, 2]."""

DEVIATION = 5.0
"""Standard deviation of the soft encoding in a and b. Source: NNEncLayer."""

TEMPERATURE = 0.38
"""Temperature of the annealed mean. Source: Zhang et al. 2016a."""

NUM_NEIGHBORS = 10
"""Bins of a soft encoding. Source: the code; the paper's 5 is an error (issue 59)."""

NUM_LIGHTNESSES = 50
"""Bins of the lightness, of width 2. Source: split-brain autoencoders."""


def lightness_bins(lightness):
    """Return the bins of lightness L in 0..100, int32 of the same shape.

    >>> lightness_bins(np.array([1.99, 2.0, 100.0])).numpy().tolist()
    [0, 1, 49]
    """
    width = 100 / NUM_LIGHTNESSES
    bins = ops.cast(ops.floor(ops.cast(lightness, "float32") / width), "int32")
    return ops.clip(bins, 0, NUM_LIGHTNESSES - 1)


def soft_encoding(colors, num_neighbors: int = NUM_NEIGHBORS):
    """Return the nearest bins of colors with Gaussian weights.

    Args:
        colors: float [..., 2], (a, b).
        num_neighbors: number K of bins.

    Returns:
        (int32 [..., K], the nearest bin first; float32 [..., K], sum 1).

    Example:

    >>> bins, weights = soft_encoding(np.array([0.0, 5.0]), num_neighbors=2)
    >>> sorted(bins.numpy().tolist()), weights.numpy()
    ([120, 121], array([0.5, 0.5], dtype=float32))
    """
    apart = ops.cast(colors, "float32")[..., None, :] - BINS
    nearest, bins = ops.top_k(-ops.sum(ops.square(apart), axis=-1), num_neighbors)
    weights = ops.exp((nearest - nearest[..., :1]) / (2 * DEVIATION**2))
    return ops.cast(bins, "int32"), weights / ops.sum(weights, axis=-1, keepdims=True)


def rebalancing_weights(prior, uniform_share: float = 0.5):
    """Return the weight of a pixel by its bin: rare colors count more.

    The weights are 1 / ((1 - s) prior + s / Q) for Q bins, scaled to mean 1 under the prior. The
    code divides by the bins that occur, and then by zero for the others; the paper divides by Q.

    Args:
        prior: float [Q], share of the bins in the training images.
        uniform_share: s in 0..1, 0.5 in the paper. 1 gives equal weights.

    Returns:
        float32 [Q].
    """
    prior = ops.cast(prior, "float32")
    weights = 1 / ((1 - uniform_share) * prior + uniform_share / prior.shape[0])
    return weights / ops.sum(prior * weights)


def cross_entropy(logits, bins, weights):
    """Return the cross-entropy of logits against soft encodings, in nats.

    Args:
        logits: float [..., Q].
        bins, weights: [..., K], see `soft_encoding`.

    Returns:
        float32 [...].
    """
    logs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    return -ops.sum(weights * ops.take_along_axis(logs, bins, axis=-1), axis=-1)


def annealed_mean(logits, temperature: float = TEMPERATURE, bins=BINS):
    """Return the mean color of a distribution that is made sharper.

    Args:
        logits: float [..., Q].
        temperature: 1 gives the mean, values near 0 the mode.
        bins: float [Q, 2].

    Returns:
        float32 [..., 2].

    Example:

    >>> annealed_mean(np.log([0.4, 0.6]), 1.0, np.array([[0.0, 0.0], [10.0, 5.0]])).numpy().round(3)
    array([6., 3.], dtype=float32)
    """
    sharper = ops.softmax(ops.cast(logits, "float32") / temperature, axis=-1)
    return ops.matmul(sharper, ops.convert_to_tensor(bins, "float32"))


def colorized(images, logits, stride: int):
    """Return images in predicted colors, each pixel with its own lightness.

    Args:
        images: uint8 [B, H, W, 3], RGB.
        logits: float [B, ceil(H / s), ceil(W / s), Q] of every s-th pixel.
        stride: the distance s of two predicted pixels.

    Returns:
        uint8 [B, H, W, 3].
    """
    colors = layers.upsample(annealed_mean(logits), stride, ops.shape(images)[1:3])
    pixels = lab.lab_to_rgb(ops.concatenate([lab.rgb_to_lab(images)[..., :1], colors], axis=-1))
    return ops.cast(ops.round(pixels), "uint8")


def area_under_errors(errors) -> float:
    """Return the area under the share of pixels whose color error is at most t, for t in 0..150.

    Args:
        errors: float, distances in a and b.

    Returns:
        0..1, where 1 is free of errors.

    >>> area_under_errors(np.array([0.0, 75.0]))
    0.75
    """
    return float(np.mean(np.clip(1 - np.asarray(errors, "float64") / 150, 0, 1)))
