"""Distances of embeddings (Eq. 2) and the triplet loss (Eq. 1) of the M&M paper.

Everything is computed in float32, for features of any precision: squared distances of unit vectors
differ in digits that float16 does not have.
"""

from keras import ops

from mm_keras.losses.embedding import embed
from mm_keras.losses.reduction import mean_where

SCALES = ("paper", "release")


def squared_distance(x, y):
    """Return the sum of squared differences over the last axis.

    For unit vectors it is Eq. 2 of the M&M paper, in 0..4.
    """
    return ops.sum(ops.square(x - y), axis=-1)


def perceptual_distance(x, y):
    """Return the distances of pairs of patches in feature space (M&M paper, Eq. 2).

    Args:
        x: raw features [N, ...]. The function normalizes them.
        y: raw features of the same shape.

    Returns:
        float32 [N], squared Euclidean distance of the unit vectors, in 0..4 (0..2 for features
        after a ReLU).

    Example: orthogonal features.

    >>> x, y = ops.convert_to_tensor([[2.0, 0.0]]), ops.convert_to_tensor([[0.0, 5.0]])
    >>> print(ops.convert_to_numpy(perceptual_distance(x, y)))
    [2.]
    """
    return squared_distance(embed(x), embed(y))


def edge_distances(embeddings, triplets):
    """Return the distances of the attractive and of the repulsive edges of each triplet.

    Args:
        embeddings: float tensor [N, D] of unit vectors.
        triplets: `mm_keras.matching.Triplets`.

    Returns:
        Two float32 vectors [N]. As in the released code, a triplet that is not valid has the zero
        vector as its negative. Its repulsive distance is the squared norm of the anchor, without
        any gradient for unit vectors.
    """
    embeddings = ops.cast(embeddings, "float32")
    anchor = ops.take(embeddings, triplets.anchor, axis=0)
    positive = ops.take(embeddings, triplets.positive, axis=0)
    negative = ops.take(embeddings, triplets.negative, axis=0)
    negative = ops.where(triplets.valid[:, None], negative, 0.0)
    return squared_distance(anchor, positive), squared_distance(anchor, negative)


def triplet_margin(embeddings, triplets, margin: float = 2.1, scale: str = "paper"):
    """Return the triplet loss (M&M paper, Eq. 1).

    The hinge of a triplet is max(0, margin + d(anchor, positive) - d(anchor, negative)).

    Args:
        embeddings: float tensor [N, D] of unit vectors.
        triplets: `mm_keras.matching.Triplets` of length N.
        margin: 2.1 in the paper's implementation details. Distances of features after a ReLU stay
            in 0..2, so with 2.1 the hinge of no triplet is zero.
        scale: "paper" is the mean over the valid triplets, 0 if there is none. "release" is the sum
            over all triplets divided by 2N (released TripletLossLayer), so gradients are half as
            large.

    Returns:
        float32 scalar.

    Raises:
        ValueError: if `scale` is unknown.

    Example: one anchor, an equal positive and an orthogonal negative give 2.1 + 0 - 2.

    >>> import numpy as np
    >>> from mm_keras.matching import Triplets
    >>> embeddings = np.array([[1, 0], [1, 0], [0, 1]], "float32")
    >>> triplets = Triplets(np.array([0]), np.array([1]), np.array([2]), np.array([True]))
    >>> print(round(float(triplet_margin(embeddings, triplets)), 4))
    0.1
    """
    return triplet_loss(*edge_distances(embeddings, triplets), triplets.valid, margin, scale)


def triplet_loss(positive_distance, negative_distance, valid, margin=2.1, scale="paper"):
    """Return the triplet loss from the distances of the edges, float [N] each.

    See `triplet_margin` for arguments and result.
    """
    if scale not in SCALES:
        raise ValueError(f"Unknown scale {scale!r} of the triplet loss; expected one of {SCALES}.")
    hinge = ops.relu(margin + positive_distance - negative_distance)
    if scale == "release":
        return ops.mean(hinge) / 2
    return mean_where(hinge, valid)
