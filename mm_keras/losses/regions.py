"""Losses over the regions of the classes: Dice and Lovasz-softmax.

Both compare each class's predicted region with its true region, over all images of the batch
together, and average over the classes that the batch's labels hold. A small class counts as much
as a large one. The signature is the same as in `mm_keras.losses.pixels`.
"""

from keras import ops

from mm_keras.losses.nodes import VOID

SMOOTH = 1.0
"""Pixels added to numerator and denominator of Dice. Source: V-Net variants; Ultralytics 1."""


def soft_dice(labels, logits, class_weights=None, void: int = VOID, smooth: float = SMOOTH):
    """Return one minus the soft Dice coefficient, averaged over the classes present.

    The coefficient of class k is (2 sum p y + smooth) / (sum p + sum y + smooth), with p the
    softmax probability and y the one-hot label, over labelled pixels (Milletari et al. 2016, with
    the first powers that nnU-Net and Ultralytics use).

    Args:
        labels: integer tensor [...], class ids or `void`.
        logits: float tensor [..., num_classes].
        class_weights: float [num_classes], weights of the mean over the classes; None for equal
            weights.
        void: the label that is left out.
        smooth: pixels that are added.

    Returns:
        float32 scalar in 0..1; 0 when every pixel is void.

    Example:

    >>> import numpy as np
    >>> labels, logits = np.array([0, 1]), np.array([[9, -9], [-9, 9]], "float32")
    >>> print(round(float(soft_dice(labels, logits)), 4))
    0.0
    """
    probabilities, truth = _flat(labels, logits, void)
    intersection = ops.sum(probabilities * truth, axis=0)
    total = ops.sum(probabilities, axis=0) + ops.sum(truth, axis=0)
    coefficient = (2 * intersection + smooth) / (total + smooth)
    return _mean_over_present(1 - coefficient, truth, class_weights)


def lovasz_softmax(labels, logits, class_weights=None, void: int = VOID):
    """Return the Lovasz-softmax loss, averaged over the classes present (Berman et al. 2018).

    It is the convex extension of one minus the Jaccard index (IoU), evaluated at the errors |y - p|
    of the softmax probabilities. All pixels of a class are sorted by their error, so the cost is
    the cost of one sort for each class.

    Args:
        labels: integer tensor [...], class ids or `void`.
        logits: float tensor [..., num_classes].
        class_weights: float [num_classes], weights of the mean over the classes; None for equal
            weights.
        void: the label that is left out.

    Returns:
        float32 scalar in 0..1; 0 when every pixel is void.

    Example: a pixel with the wrong class has IoU 0, for both classes.

    >>> import numpy as np
    >>> print(round(float(lovasz_softmax(np.array([1]), np.array([[30.0, 0.0]], "float32"))), 4))
    1.0
    """
    probabilities, truth = _flat(labels, logits, void)
    # Void pixels have truth and probability 0. Their error 0 sorts them last and adds nothing.
    errors = ops.abs(truth - probabilities)
    order = ops.argsort(-errors, axis=0)
    errors = ops.take_along_axis(errors, order, axis=0)
    truth_sorted = ops.take_along_axis(truth, order, axis=0)
    losses = ops.sum(errors * ops.stop_gradient(_jaccard_steps(truth_sorted)), axis=0)
    return _mean_over_present(losses, truth, class_weights)


def _jaccard_steps(truth):
    """Return the increase of one minus IoU with each further pixel that is wrong, [N, K]."""
    size = ops.sum(truth, axis=0)
    intersection = size - ops.cumsum(truth, axis=0)
    union = size + ops.cumsum(1 - truth, axis=0)
    jaccard = 1 - intersection / ops.maximum(union, 1.0)
    return jaccard - ops.concatenate([ops.zeros_like(jaccard[:1]), jaccard[:-1]], axis=0)


def _flat(labels, logits, void):
    """Return probabilities and one-hot labels, float32 [N, K]; both are 0 where void."""
    num_classes = logits.shape[-1]
    labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
    logits = ops.reshape(ops.cast(logits, "float32"), (-1, num_classes))
    is_labelled = ops.cast(labels != void, "float32")[:, None]
    target = ops.where(labels != void, labels, 0)
    truth = ops.cast(target[:, None] == ops.arange(num_classes), "float32") * is_labelled
    return ops.softmax(logits, axis=-1) * is_labelled, truth


def _mean_over_present(values, truth, class_weights):
    weights = ops.cast(ops.any(truth > 0, axis=0), "float32")
    if class_weights is not None:
        weights = weights * ops.convert_to_tensor(class_weights, "float32")
    total = ops.sum(weights)
    return ops.sum(weights * values) / ops.where(total > 0, total, 1.0)
