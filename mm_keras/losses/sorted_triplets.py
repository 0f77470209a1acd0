"""Losses over all triplets of a batch, from sorted distances in place of an N x N x N tensor.

Distances are squared. All functions take unit vectors, and leave out nodes with label `void`.
"""

from keras import ops

from mm_keras.losses.nodes import VOID, pairs
from mm_keras.losses.reduction import mean_where
from mm_keras.losses.triplet import SCALES

# A distance beyond all others: squared distances of unit vectors are at most 4.
_FAR = 1e4


def all_triplets_hinge(
    embeddings, labels, margin: float = 2.1, scale: str = "paper", void: int = VOID
):
    """Return the expectation of `mm_keras.losses.triplet_margin` over all graphs, for any margin.

    For large margins, `mm_keras.losses.all_triplets` gives the same from sums over the classes.
    This function costs N^2 D + N^2 log N.

    Args:
        embeddings: float32 [N, D] of unit vectors.
        labels: integer tensor [N].
        margin: margin of the squared distances.
        scale: "paper" or "release", see `mm_keras.losses.triplet_margin`.
        void: the label of nodes that are left out.

    Returns:
        float32 scalar; with scale "paper" 0 for fewer than two classes.

    Raises:
        ValueError: if `scale` is unknown.

    Example: the first node is at distance 0.4 from its negative, and alone in its class.

    >>> import numpy as np
    >>> embeddings = np.array([[1, 0], [0.8, 0.6]], "float32")
    >>> print(round(float(all_triplets_hinge(embeddings, np.array([0, 1]), margin=0.5)), 4))
    0.1
    """
    if scale not in SCALES:
        raise ValueError(f"Unknown scale {scale!r} of the triplet loss; expected one of {SCALES}.")
    labelled = ops.cast(labels, "int32") != void
    distances = _distances(embeddings)
    same, different = pairs(labels, void)
    is_alone = ops.logical_and(labelled, ops.logical_not(ops.any(same, axis=-1)))
    is_self = ops.eye(ops.shape(labels)[0], dtype="bool")
    same = ops.logical_or(same, ops.logical_and(is_self, is_alone[:, None]))
    # The distance of a node to itself is 0, without gradient.
    reach = margin + ops.where(is_self, 0.0, distances)
    has_negative = ops.any(different, axis=-1)
    hinges = _mean_hinges(reach, distances, different)
    if scale == "release":  # the zero vector replaces a missing negative
        to_zero = ops.sum(ops.square(ops.cast(embeddings, "float32")), axis=-1)
        hinges = ops.where(has_negative[:, None], hinges, ops.relu(reach - to_zero[:, None]))
        return mean_where(_row_means(hinges, same), labelled) / 2
    return mean_where(_row_means(hinges, same), has_negative)


def triplet_semihard(embeddings, labels, margin: float = 0.2, void: int = VOID):
    """Return the triplet loss with semi-hard negatives.

    Source: Schroff et al., "FaceNet", CVPR 2015; the variant of TensorFlow Addons. The negative of
    an anchor and a positive is the nearest one beyond the positive. Where all negatives are nearer,
    it is the farthest of them. The loss is the mean over all pairs of an anchor and a positive.

    Args:
        embeddings: float32 [N, D] of unit vectors.
        labels: integer tensor [N].
        margin: margin of the squared distances. FaceNet has 0.2.
        void: the label of nodes that are left out.

    Returns:
        float32 scalar; 0 without a positive pair, and 0 in a batch of one class.

    Example: the positive is at distance 0.4, the only negative at distance 2.

    >>> import numpy as np
    >>> embeddings = np.array([[1, 0], [0.8, 0.6], [-0.6, 0.8]], "float32")
    >>> print(float(triplet_semihard(embeddings, np.array([0, 0, 1]))))
    0.0
    """
    distances = _distances(embeddings)
    same, different = pairs(labels, void)
    ascending = _ascending(distances, different)
    num_negatives = ops.sum(ops.cast(different, "int32"), axis=-1, keepdims=True)
    place = ops.minimum(_count_below(ascending, distances, or_equal=True), num_negatives - 1)
    negative = ops.take_along_axis(ascending, ops.maximum(place, 0), axis=-1)
    hinge = ops.relu(margin + distances - negative)
    return mean_where(hinge, ops.logical_and(same, num_negatives > 0))


def _distances(embeddings):
    """Return squared distances, float32 [N, N]."""
    embeddings = ops.cast(embeddings, "float32")
    squares = ops.sum(ops.square(embeddings), axis=-1)
    products = ops.matmul(embeddings, ops.transpose(embeddings))
    return ops.relu(squares[:, None] + squares[None, :] - 2 * products)


def _ascending(distances, different):
    """Return each row's distances to negatives in ascending order, filled up with `_FAR`."""
    return ops.sort(ops.where(different, distances, _FAR), axis=-1)


def _mean_hinges(reach, distances, different):
    """Return for each pair (i, p) the mean over negatives n of max(0, reach[i, p] - d[i, n])."""
    ascending = _ascending(distances, different)
    num_nearer = _count_below(ascending, reach)
    sums = ops.pad(ops.cumsum(ascending, axis=-1), ((0, 0), (1, 0)))
    nearer = ops.cast(num_nearer, "float32")
    total = nearer * reach - ops.take_along_axis(sums, num_nearer, axis=-1)
    return total / ops.maximum(ops.sum(ops.cast(different, "float32"), axis=-1, keepdims=True), 1.0)


def _row_means(values, mask):
    count = ops.sum(ops.cast(mask, "float32"), axis=-1)
    return ops.sum(ops.where(mask, values, 0.0), axis=-1) / ops.maximum(count, 1.0)


def _count_below(ascending, bounds, or_equal=False):
    """Count the values of each row that are below the row's bounds, by bisection.

    Args:
        ascending: float32 [N, M], rows in ascending order.
        bounds: float32 [N, P].
        or_equal: whether values at the bound count.

    Returns:
        int32 [N, P].
    """
    num_values = ascending.shape[-1]
    low = ops.zeros_like(bounds, dtype="int32")
    high = low + ops.shape(ascending)[-1]
    for _ in range(31 if num_values is None else num_values.bit_length()):
        middle = (low + high) // 2
        last = ops.shape(ascending)[-1] - 1
        values = ops.take_along_axis(ascending, ops.minimum(middle, last), axis=-1)
        is_counted = values <= bounds if or_equal else values < bounds
        searching = low < high
        low = ops.where(ops.logical_and(searching, is_counted), middle + 1, low)
        high = ops.where(ops.logical_and(searching, ops.logical_not(is_counted)), middle, high)
    return low
