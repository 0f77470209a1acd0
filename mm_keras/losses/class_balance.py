"""Weights of the classes in a loss, from the pixels of each class in the training images."""

import numpy as np

RULES = ("none", "auto", "inverse_frequency", "inverse_root", "effective_number", "enet", "median")
"""The rules that `class_weights` knows."""

RARE_SHARE = 0.005
"""Share of the pixels below which rule "auto" calls a class rare. Source: ours; the data check
warns at the same share."""


def class_weights(counts, rule: str = "none") -> np.ndarray:
    """Return one weight for each class.

    | rule | weight of class k with n pixels, share p of all labelled pixels |
    |---|---|
    | none | 1 |
    | auto | as enet if a class that is present has less than 0.5 % of the pixels, else as none |
    | inverse_frequency | 1 / (K p), K the classes present (the rule "balanced" of scikit-learn) |
    | inverse_root | 1 / sqrt(K p), half as strong on a logarithmic scale (Mahajan et al. 2018) |
    | effective_number | (1 - b) / (1 - b ** n), scaled to mean 1 (Cui et al. 2019) |
    | enet | 1 / log(1.02 + p), in 1.4..50.5 (Paszke et al. 2016) |
    | median | median(f) / f, f the share in images that hold k (SegNet) |

    Cui et al. count images. For pixels, b is (N - 1) / N with N the mean number of pixels of a
    class: classes above the mean have nearly equal weights, and rare ones 1 / n. A class without
    pixels has weight 0, and with rule "enet" 50.5. Its weight is never used in training.

    Args:
        counts: integer [num_images, K], labelled pixels of each class in each image. [K] is taken
            as one image.
        rule: one of `RULES`.

    Returns:
        float32 [K].

    Raises:
        ValueError: if the rule is unknown, a count is negative, or there is no pixel.

    Example:

    >>> class_weights([[60, 20, 0]], "inverse_frequency").round(3).tolist()
    [0.6669999957084656, 2.0, 0.0]
    """
    if rule not in RULES:
        raise ValueError(f"Unknown rule {rule!r} of the class weights: expected one of {RULES}.")
    counts = np.atleast_2d(np.asarray(counts, "float64"))
    if counts.ndim != 2 or (counts < 0).any() or not counts.sum():
        raise ValueError(
            "counts must be numbers of pixels [num_images, num_classes], at least one above 0. "
            f"Received shape {counts.shape} with {np.nansum(counts):g} pixels."
        )
    return _RULES[rule](counts).astype("float32")


def _none(counts):
    return np.ones(counts.shape[1])


def _auto(counts):
    pixels = counts.sum(0)
    is_rare = (pixels > 0) & (pixels < RARE_SHARE * pixels.sum())
    return _enet(counts) if is_rare.any() else _none(counts)


def _inverse_frequency(counts):
    pixels = counts.sum(0)
    return _divided(pixels.sum() / np.count_nonzero(pixels), pixels)


def _inverse_root(counts):
    return np.sqrt(_inverse_frequency(counts))


def _effective_number(counts):
    pixels = counts.sum(0)
    is_present = pixels > 0
    # 1 - b ** n, computed with logarithms: b is within 1e-9 of 1.
    effective = -np.expm1(pixels * np.log1p(-1 / max(pixels[is_present].mean(), 2.0)))
    weights = _divided(1.0, effective)
    return weights / weights[is_present].mean()


def _enet(counts):
    pixels = counts.sum(0)
    return 1 / np.log(1.02 + pixels / pixels.sum())


def _median(counts):
    holds = counts > 0
    frequency = _divided(counts.sum(0), (counts.sum(1)[:, None] * holds).sum(0))
    return _divided(np.median(frequency[frequency > 0]), frequency)


def _divided(numerator, denominator):
    """Return numerator / denominator, 0 where the denominator is 0."""
    safe = np.where(denominator > 0, denominator, 1.0)
    return np.where(denominator > 0, numerator / safe, 0.0)


_RULES = {
    "none": _none,
    "inverse_frequency": _inverse_frequency,
    "effective_number": _effective_number,
    "auto": _auto,
    "inverse_root": _inverse_root,
    "enet": _enet,
    "median": _median,
}
