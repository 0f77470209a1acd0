"""Losses that contrast each node with all others of its batch."""

from keras import ops

from mm_keras.losses.nodes import VOID, pairs
from mm_keras.losses.reduction import mean_where

EXCLUDED = -1e9
"""Logit of a pair that a sum of exponentials leaves out. An infinite one would give NaN."""


def supcon(embeddings, labels, temperature: float = 0.1, void: int = VOID):
    """Return the supervised contrastive loss, L_out.

    Source: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, Eq. 2. The loss of an
    anchor is the mean over its positives of the cross-entropy of the positive among all other
    nodes. The result is the mean over the anchors that have a positive.

    Its minimum is not 0: with classes of n nodes it is near log(n - 1).

    Args:
        embeddings: float32 [N, D] of unit vectors.
        labels: integer tensor [N].
        temperature: divisor of the similarities, above 0.
        void: the label of nodes that are left out.

    Returns:
        float32 scalar; 0 without any positive pair, and 0 in a batch of one class. There the loss
        of the paper only spreads the nodes.

    Example: two pairs at a right angle. Each anchor has one positive, at similarity 1, and two
    negatives, at 0: log(1 + 2 exp(-1 / 0.1)).

    >>> import numpy as np
    >>> embeddings = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], "float32")
    >>> print(f"{float(supcon(embeddings, np.array([0, 0, 1, 1]))):.1e}")
    9.1e-05
    """
    embeddings = ops.cast(embeddings, "float32")
    same, different = pairs(labels, void)
    logits = ops.matmul(embeddings, ops.transpose(embeddings)) / temperature
    others = ops.where(ops.logical_or(same, different), logits, EXCLUDED)
    log_probability = logits - ops.logsumexp(others, axis=-1, keepdims=True)
    is_anchor = ops.logical_and(ops.any(same, axis=-1), ops.any(different, axis=-1))
    num_positives = ops.sum(ops.cast(same, "float32"), axis=-1)
    total = ops.sum(ops.where(same, -log_probability, 0.0), axis=-1)
    return mean_where(total / ops.maximum(num_positives, 1.0), is_anchor)


def multi_similarity(
    embeddings,
    labels,
    sharpness: tuple[float, float] = (2.0, 50.0),
    base: float = 0.5,
    mining: float | None = 0.1,
    void: int = VOID,
):
    """Return the multi-similarity loss.

    Source: Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric
    Learning", CVPR 2019. An anchor keeps a positive that is not nearer by `mining` than its hardest
    negative. It keeps a negative that is not farther by `mining` than its hardest positive. The
    result is the mean over all labelled nodes.

    Args:
        embeddings: float32 [N, D] of unit vectors.
        labels: integer tensor [N].
        sharpness: alpha of the positives and beta of the negatives.
        base: similarity at which a pair has half of its full weight.
        mining: epsilon, in similarities; None to keep all pairs.
        void: the label of nodes that are left out.

    Returns:
        float32 scalar; 0 without a pair. With mining it is 0 in a batch of one class, and 0 if no
        class has two nodes.

    Example: the positive is as similar as the negative.

    >>> import numpy as np
    >>> embeddings = np.array([[1, 0], [0, 1], [0, 1]], "float32")
    >>> loss = multi_similarity(embeddings, np.array([0, 0, 1]), sharpness=(1.0, 1.0))
    >>> print(round(float(loss), 4))
    1.1321
    """
    embeddings = ops.cast(embeddings, "float32")
    similarities = ops.matmul(embeddings, ops.transpose(embeddings))
    same, different = pairs(labels, void)
    if mining is not None:
        same, different = _mined(similarities, same, different, mining)
    alpha, beta = sharpness
    attraction = log_one_plus_sum(-alpha * (similarities - base), same, axis=-1) / alpha
    repulsion = log_one_plus_sum(beta * (similarities - base), different, axis=-1) / beta
    return mean_where(attraction + repulsion, ops.cast(labels, "int32") != void)


def _mined(similarities, same, different, epsilon):
    """Return the pairs (same, different) that each anchor keeps."""
    hardest_positive = ops.min(ops.where(same, similarities, 4.0), axis=-1, keepdims=True)
    hardest_negative = ops.max(ops.where(different, similarities, -4.0), axis=-1, keepdims=True)
    has_both = ops.logical_and(
        ops.any(same, axis=-1, keepdims=True), ops.any(different, axis=-1, keepdims=True)
    )
    is_hard = ops.logical_and(similarities - epsilon < hardest_negative, has_both)
    is_near = ops.logical_and(similarities + epsilon > hardest_positive, has_both)
    return ops.logical_and(same, is_hard), ops.logical_and(different, is_near)


def log_one_plus_sum(logits, mask, axis: int):
    """Return log(1 + sum of exp(logits) where the mask is True), without overflow.

    Args:
        logits: float32 tensor.
        mask: bool tensor of the same shape.
        axis: the axis to sum over.
    """
    terms = ops.where(mask, logits, EXCLUDED)
    zero = ops.zeros_like(ops.sum(terms, axis=axis, keepdims=True))
    return ops.logsumexp(ops.concatenate([terms, zero], axis=axis), axis=axis)
