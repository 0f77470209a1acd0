"""Contrast of labelled pixels, within an image and with a second one."""

from keras import ops

from mm_keras.losses.contrastive import EXCLUDED
from mm_keras.losses.nodes import VOID


def pixel_contrast(
    embeddings,
    labels,
    temperature: float = 0.07,
    across: bool = True,
    with_self: bool = False,
    void: int = VOID,
):
    """Return the pixel-wise contrastive loss of labelled pixels, the mean over images.

    Source: Zhao et al., "Contrastive Learning for Label Efficient Semantic Segmentation", ICCV
    2021. The loss of an anchor and a positive is the cross-entropy of the positive among itself and
    the pixels of other classes in the anchor's image. It is averaged over the positives of an
    anchor, then over the anchors of an image, then over images. With `across`, the pixels of the
    next image are positives too. The published code pairs an image with the augmented copy of a
    random image, and counts a pixel among its own positives (`with_self`).

    Args:
        embeddings: float32 [B, P, D], unit vectors of P pixels of each image.
        labels: integer tensor [B, P].
        temperature: divisor of the similarities, above 0.
        across: whether the image that follows in the batch gives positives; the first image follows
            the last one.
        with_self: whether a pixel is one of its own positives.
        void: the label of pixels that are left out.

    Returns:
        float32 scalar. An image without a positive pair, or with one class, contributes 0.

    Example: the positive is as similar as the only negative: log(2) for the two anchors of class 0.

    >>> import numpy as np
    >>> embeddings = np.array([[[1, 0], [0, 1], [0, 1]]], "float32")
    >>> loss = pixel_contrast(embeddings, np.array([[0, 0, 1]]), temperature=1.0, across=False)
    >>> print(round(float(loss), 4))  # log(1 + exp(0 - 0)) and log(1 + exp(1 - 0))
    1.0032
    """
    by_image = contrast_of_images(embeddings, labels, temperature, across, with_self, void)
    return ops.mean(by_image)


def contrast_of_images(
    embeddings, labels, temperature=0.07, across=True, with_self=False, void=VOID
):
    """Return the loss of each image, float32 [B]; see `pixel_contrast`."""
    embeddings = ops.cast(embeddings, "float32") / temperature**0.5
    labels = ops.cast(labels, "int32")
    both, equal = _pairs(labels, labels, void)
    logits = _products(embeddings, embeddings)
    different = ops.logical_and(both, ops.logical_not(equal))
    others = ops.where(different, logits, EXCLUDED)
    negatives = ops.logsumexp(others, axis=-1, keepdims=True)
    positive = ops.logical_and(both, equal)
    if not with_self:
        is_self = ops.eye(ops.shape(labels)[1], dtype="bool")
        positive = ops.logical_and(positive, ops.logical_not(is_self))
    total, count = _sums(logits, negatives, positive)
    if across and labels.shape[0] != 1:
        following, their_labels = ops.roll(embeddings, -1, axis=0), ops.roll(labels, -1, axis=0)
        positive = ops.logical_and(*_pairs(labels, their_labels, void))
        more, num_more = _sums(_products(embeddings, following), negatives, positive)
        total, count = total + more, count + num_more
    by_anchor = total / ops.maximum(count, 1.0)
    num_anchors = ops.sum(ops.cast(count > 0, "float32"), axis=-1)
    return ops.sum(by_anchor, axis=-1) / ops.maximum(num_anchors, 1.0)


def _products(x, y):
    return ops.matmul(x, ops.transpose(y, (0, 2, 1)))


def _pairs(labels, others, void):
    """Return which pairs are labelled, and which have equal labels, bool [B, P, P] each."""
    labels, others = labels[:, :, None], others[:, None, :]
    return ops.logical_and(labels != void, others != void), labels == others


def _sums(logits, negatives, positive):
    """Return the sum of an anchor's losses over its positives, and their number; [B, P] each."""
    losses = ops.where(positive, ops.softplus(negatives - logits), 0.0)
    return ops.sum(losses, axis=-1), ops.sum(ops.cast(positive, "float32"), axis=-1)
