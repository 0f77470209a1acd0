"""Losses over labelled pixels. Each pixel counts by itself.

All losses of fine-tuning share one signature: `loss(labels, logits, class_weights=None)`.
"""

from keras import ops

from mm_keras.losses.nodes import VOID
from mm_keras.losses.reduction import mean_where

FOCUSING = 2.0
"""Exponent of the focal loss. Source: Lin et al. 2017."""


def pixel_cross_entropy(labels, logits, class_weights=None, void: int = VOID):
    """Return the mean softmax cross-entropy over the labelled pixels.

    Source: released SoftmaxWithLoss, normalized by valid pixels. With class weights, the mean is
    weighted: the sum of the weights is the divisor, as in PyTorch's cross_entropy.

    Args:
        labels: integer tensor [...], class ids or `void`.
        logits: float tensor [..., num_classes].
        class_weights: float [num_classes], not negative; None for equal weights.
        void: the label that is left out.

    Returns:
        float32 scalar; 0, not NaN, when every pixel is void.

    Example:

    >>> import numpy as np
    >>> logits = np.zeros((3, 4), "float32")  # uniform over 4 classes: log(4)
    >>> print(round(float(pixel_cross_entropy(np.array([0, 1, 255]), logits)), 4))
    1.3863
    """
    log_probability, target, is_labelled = _of_own_class(labels, logits, void)
    return _mean(-log_probability, target, is_labelled, class_weights)


def focal(labels, logits, class_weights=None, void: int = VOID, focusing: float = FOCUSING):
    """Return the focal loss: cross-entropy times (1 - p) ** focusing (Lin et al. 2017, Eq. 4).

    p is the probability of the pixel's own class. Pixels that the network already knows count less.
    The divisor is the same as in `pixel_cross_entropy`.

    Args:
        labels: integer tensor [...], class ids or `void`.
        logits: float tensor [..., num_classes].
        class_weights: float [num_classes], not negative; None for equal weights.
        void: the label that is left out.
        focusing: exponent, 0 for cross-entropy.

    Returns:
        float32 scalar; 0, not NaN, when every pixel is void.

    Example:

    >>> import numpy as np
    >>> logits = np.zeros((1, 2), "float32")  # p = 1/2: log(2) / 4
    >>> print(round(float(focal(np.array([1]), logits)), 4))
    0.1733
    """
    log_probability, target, is_labelled = _of_own_class(labels, logits, void)
    # The gradient of 0 ** focusing is not finite below 1: keep the base positive.
    rest = ops.maximum(-ops.expm1(log_probability), 1e-7)
    values = -ops.power(rest, focusing) * log_probability
    return _mean(values, target, is_labelled, class_weights)


def _of_own_class(labels, logits, void):
    """Return the log-probability of each pixel's class, the class (0 for void), and a mask."""
    labels = ops.cast(labels, "int32")
    logits = ops.cast(logits, "float32")
    is_labelled = labels != void
    target = ops.where(is_labelled, labels, 0)
    log_probability = ops.take_along_axis(
        logits - ops.logsumexp(logits, axis=-1, keepdims=True), target[..., None], axis=-1
    )
    return log_probability[..., 0], target, is_labelled


def _mean(values, target, is_labelled, class_weights):
    if class_weights is None:
        return mean_where(values, is_labelled)
    weights = ops.take(ops.convert_to_tensor(class_weights, "float32"), target, axis=0)
    weights = ops.where(is_labelled, weights, 0.0)
    total = ops.sum(weights)
    # A batch whose classes all have weight 0 has loss 0, not NaN.
    return ops.sum(weights * values) / ops.where(total > 0, total, 1.0)
