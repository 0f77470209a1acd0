"""Relations between the nodes of a batch, from their labels."""

from keras import ops

VOID = 255
"""Label of pixels and patches without a class. No loss uses them."""


def pairs(labels, void: int = VOID):
    """Return which pairs of labelled nodes have the same class, and which have different ones.

    A node forms no pair with itself.

    Args:
        labels: integer tensor [N].
        void: the label of nodes that form no pair.

    Returns:
        (same, different), bool [N, N] each, both symmetric.
    """
    labels = ops.cast(labels, "int32")
    labelled = labels != void
    both = ops.logical_and(labelled[:, None], labelled[None, :])
    equal = labels[:, None] == labels[None, :]
    is_self = ops.eye(ops.shape(labels)[0], dtype="bool")
    same = ops.logical_and(ops.logical_and(both, equal), ops.logical_not(is_self))
    return same, ops.logical_and(both, ops.logical_not(equal))
