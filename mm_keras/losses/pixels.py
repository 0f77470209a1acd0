"""Losses over labelled pixels."""

from keras import ops

from mm_keras.losses.nodes import VOID
from mm_keras.losses.reduction import mean_where


def pixel_cross_entropy(labels, logits, void: int = VOID):
    """Return the mean softmax cross-entropy over the labelled pixels.

    Source: released SoftmaxWithLoss, normalized by valid pixels.

    Args:
        labels: integer tensor [...], class ids or `void`.
        logits: float tensor [..., num_classes].
        void: the label that is left out.

    Returns:
        float32 scalar; 0, not NaN, when every pixel is void.

    Example:

    >>> import numpy as np
    >>> logits = np.zeros((3, 4), "float32")  # uniform over 4 classes: log(4)
    >>> print(round(float(pixel_cross_entropy(np.array([0, 1, 255]), logits)), 4))
    1.3863
    """
    labels = ops.cast(labels, "int32")
    logits = ops.cast(logits, "float32")
    is_labelled = labels != void
    target = ops.where(is_labelled, labels, 0)
    log_probability = ops.take_along_axis(
        logits - ops.logsumexp(logits, axis=-1, keepdims=True), target[..., None], axis=-1
    )
    return mean_where(-log_probability[..., 0], is_labelled)
