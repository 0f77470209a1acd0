"""The triplet loss in expectation over all graphs of a batch: the same mean, no sampling noise.

In a class-wise connected graph, each node is the anchor of one triplet. Its positive is uniform
over the other nodes of its class and, independently, its negative is uniform over the nodes of the
other classes. A node that is alone in its class is its own positive.
"""

from typing import NamedTuple

from keras import ops

from mm_keras.losses.nodes import VOID
from mm_keras.losses.triplet import SCALES


class ClassSums(NamedTuple):
    """Sums over the nodes of each class. The sums of several batches add up to the joint batch.

    Attributes:
        count: float32 [K], number of nodes.
        squares: float32 [K], sum of the squared norms.
        vectors: float32 [K, D], sum of the vectors.
    """

    count: object
    squares: object
    vectors: object


def class_sums(embeddings, labels, num_classes: int, void: int = VOID) -> ClassSums:
    """Return the sums over the nodes of each class, in O(N D).

    Args:
        embeddings: float32 [N, D].
        labels: integer tensor [N], class ids or `void`.
        num_classes: K.
        void: the label of nodes that are left out.
    """
    labels = ops.cast(labels, "int32")
    segment = ops.where(labels == void, num_classes, labels)

    def by_class(values):
        return ops.segment_sum(values, segment, num_segments=num_classes + 1)[:num_classes]

    embeddings = ops.cast(embeddings, "float32")
    count = by_class(ops.ones_like(segment, dtype="float32"))
    return ClassSums(
        count, by_class(ops.sum(ops.square(embeddings), axis=-1)), by_class(embeddings)
    )


def expected_distances(sums: ClassSums):
    """Return the expected distances of a node to its positive and to its negative.

    The mean is over all nodes. A class that holds all nodes has the zero vector as its negative,
    as in `mm_keras.losses.edge_distances`.

    Args:
        sums: of unit vectors.

    Returns:
        (attractive, repulsive), float32 scalars; 0 without nodes.
    """
    count, squares, vectors = sums
    num_nodes, total = ops.sum(count), ops.sum(vectors, axis=0)
    own = ops.sum(ops.square(vectors), axis=-1)
    # Of exact sums it is not negative.
    inside = 2 * ops.relu(count * squares - own) / ops.maximum(count - 1, 1.0)
    others = num_nodes - count
    cross = ops.sum(vectors * (total - vectors), axis=-1)
    outside = count * (ops.sum(squares) - squares) - 2 * cross
    outside = squares + ops.where(others > 0, outside / ops.maximum(others, 1.0), 0.0)
    at_least_one = ops.maximum(num_nodes, 1.0)
    inside = ops.where(count >= 2, inside, 0.0)
    return ops.sum(inside) / at_least_one, ops.sum(outside) / at_least_one


def all_triplets(sums: ClassSums, margin: float = 2.1, scale: str = "paper"):
    """Return the expectation of `mm_keras.losses.triplet_margin` over all graphs of a batch.

    It is exact where the hinge of no triplet is zero: for a margin of at least 2 and unit vectors
    without negative components, or for a margin of at least 4. Then the loss is linear in the
    distances, and only the sums over the classes matter.

    Args:
        sums: of unit vectors, see `class_sums`.
        margin: 2.1 in the M&M paper.
        scale: "paper" or "release", see `mm_keras.losses.triplet_margin`.

    Returns:
        float32 scalar; with scale "paper" 0 for fewer than two classes.

    Raises:
        ValueError: if `scale` is unknown.

    Example: two classes of one node each, at a right angle: 2.1 + 0 - 2.

    >>> sums = class_sums(ops.eye(2), ops.array([0, 1]), num_classes=2)
    >>> print(round(float(all_triplets(sums)), 4))
    0.1
    """
    if scale not in SCALES:
        raise ValueError(f"Unknown scale {scale!r} of the triplet loss; expected one of {SCALES}.")
    attractive, repulsive = expected_distances(sums)
    hinge = margin + attractive - repulsive
    if scale == "release":
        return ops.where(ops.sum(sums.count) > 0, hinge / 2, 0.0)
    num_present = ops.sum(ops.cast(sums.count > 0, "int32"))
    return ops.where(num_present > 1, hinge, 0.0)
