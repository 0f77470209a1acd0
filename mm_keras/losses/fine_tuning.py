"""The losses of fine-tuning by name."""

from collections.abc import Callable

from mm_keras.losses.pixels import focal, pixel_cross_entropy
from mm_keras.losses.regions import lovasz_softmax, soft_dice


def _sum(first: Callable, second: Callable) -> Callable:
    def loss(labels, logits, class_weights=None):
        return first(labels, logits, class_weights) + second(labels, logits, class_weights)

    return loss


PIXEL_LOSSES = {
    "cross_entropy": pixel_cross_entropy,
    "focal": focal,
    "cross_entropy+dice": _sum(pixel_cross_entropy, soft_dice),
    "cross_entropy+lovasz": _sum(pixel_cross_entropy, lovasz_softmax),
}
"""{name: function (labels [...], logits [..., K], class_weights [K] or None) -> scalar}.

Sums have equal parts, as in nnU-Net and Ultralytics. Dice and Lovasz alone are unstable on small
batches, so they only appear beside cross-entropy.
"""
