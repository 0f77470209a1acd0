"""Distances of embeddings (Eq. 2) and the triplet loss (Eq. 1) of the M&M paper.

Everything is float32 whatever the precision of the features: squared distances of unit vectors
differ in digits that float16 does not have.
"""

from keras import ops

from mm_keras.losses.reduction import mean_where

SCALES = ("paper", "release")


def embed(features):
    """Flattens feature maps and scales each to unit length (released NormalizeLayer: over all of C,
    H and W).

    Args:
        features: float tensor [N, ...] of any precision.

    Returns:
        float32 [N, D]. A zero vector stays zero, with zero gradient.
    """
    flat = ops.cast(ops.reshape(features, (ops.shape(features)[0], -1)), "float32")
    squared_norm = ops.sum(ops.square(flat), axis=-1, keepdims=True)
    # The double `where` keeps the gradient of the unused square root out of the zero vectors.
    is_zero = squared_norm < 1e-30
    norm = ops.sqrt(ops.where(is_zero, 1.0, squared_norm))
    return ops.where(is_zero, 0.0, flat / norm)


def squared_distance(x, y):
    """Sum of squared differences over the last axis: Eq. 2 of the M&M paper for unit vectors, then
    in 0..4.
    """
    return ops.sum(ops.square(x - y), axis=-1)


def perceptual_distance(x, y):
    """Distance of two patches in feature space (M&M paper, Eq. 2).

    Args:
        x, y: raw features of equal shape [N, ...]; normalized here.

    Returns:
        float32 [N], squared Euclidean distance of the unit vectors, in 0..4 (0..2 for features
        after a ReLU).
    """
    return squared_distance(embed(x), embed(y))


def edge_distances(embeddings, triplets):
    """Distances of the attractive and of the repulsive edges of each triplet.

    Args:
        embeddings: float tensor [N, D] of unit vectors.
        triplets: `mm_keras.matching.Triplets`.

    Returns:
        Two float32 vectors [N]. A triplet that is not valid has the zero vector as its negative, as
        the released code has: its repulsive distance is the squared norm of the anchor, without any
        gradient for unit vectors.
    """
    embeddings = ops.cast(embeddings, "float32")
    anchor = ops.take(embeddings, triplets.anchor, axis=0)
    positive = ops.take(embeddings, triplets.positive, axis=0)
    negative = ops.take(embeddings, triplets.negative, axis=0)
    negative = ops.where(triplets.valid[:, None], negative, 0.0)
    return squared_distance(anchor, positive), squared_distance(anchor, negative)


def triplet_margin(embeddings, triplets, margin=2.1, scale="paper"):
    """Triplet loss max(0, margin + d(anchor, positive) - d(anchor, negative)) (M&M paper, Eq. 1).

    Args:
        embeddings: float tensor [N, D] of unit vectors.
        triplets: `mm_keras.matching.Triplets` of length N.
        margin: 2.1 in the paper's implementation details. Distances of features after a ReLU stay
            in 0..2, so with 2.1 no triplet is ever switched off.
        scale: "paper" is the mean over the valid triplets, 0 if there is none. "release" is the sum
            over all triplets divided by 2N, as the released TripletLossLayer has it, so gradients
            are half as large.

    Returns:
        float32 scalar.

    Raises:
        ValueError: unknown `scale`.
    """
    return triplet_loss(*edge_distances(embeddings, triplets), triplets.valid, margin, scale)


def triplet_loss(positive_distance, negative_distance, valid, margin=2.1, scale="paper"):
    """Eq. 1 from the distances of the edges, float [N] each; arguments and result as in
    `triplet_margin`.
    """
    if scale not in SCALES:
        raise ValueError(f"Unknown scale {scale!r} of the triplet loss; expected one of {SCALES}.")
    hinge = ops.relu(margin + positive_distance - negative_distance)
    if scale == "release":
        return ops.mean(hinge) / 2
    return mean_where(hinge, valid)
