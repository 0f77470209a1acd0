"""Losses of unit vectors and one learned vector per class, its hub.

Each patch is connected to the hub of its class. So the patches of a class form one connected
component, as in the paper's graph, and a step uses every patch against every class. All functions
leave out nodes with label `void`.
"""

from keras import ops

from mm_keras.losses.contrastive import log_one_plus_sum
from mm_keras.losses.nodes import VOID
from mm_keras.losses.pixels import pixel_cross_entropy


def normalized_softmax(
    embeddings, hubs, labels, temperature: float = 0.05, margin: float = 0.0, void: int = VOID
):
    """Return the cross-entropy of cosines over a temperature.

    Source: Zhai and Wu, "Classification is a strong baseline for deep metric learning", BMVC 2019,
    temperature 0.05. With a margin it is CosFace: Wang et al., CVPR 2018, margin 0.35 and
    temperature 1/64. There the margin is subtracted from the cosine of the true class.

    Args:
        embeddings: float32 [N, D] of unit vectors.
        hubs: float32 [K, D] of unit vectors.
        labels: integer tensor [N], class ids or `void`.
        temperature: divisor of the cosines, above 0.
        margin: subtracted from the cosine of the true class.
        void: the label of nodes that are left out.

    Returns:
        float32 scalar; 0 without a labelled node.

    Example: cosines 1 and 0 give log(1 + exp(-1 / 0.5)).

    >>> import numpy as np
    >>> loss = normalized_softmax(np.eye(2, dtype="float32"), np.eye(2, dtype="float32"),
    ...                           np.array([0, 1]), temperature=0.5)
    >>> print(round(float(loss), 4))
    0.1269
    """
    cosines = _cosines(embeddings, hubs)
    if margin:
        cosines = cosines - margin * _one_hot(labels, hubs, void)
    return pixel_cross_entropy(labels, cosines / temperature, void=void)


def proxy_anchor(
    embeddings, hubs, labels, temperature: float = 1 / 32, margin: float = 0.1, void: int = VOID
):
    """Return the Proxy-Anchor loss.

    Source: Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020, alpha 32 (here
    1 / temperature) and delta 0.1 (here margin). Each hub is an anchor. It attracts the nodes of
    its class, the farther the stronger, and repels all others. Hubs without a node only repel.

    Args:
        embeddings: float32 [N, D] of unit vectors.
        hubs: float32 [K, D] of unit vectors.
        labels: integer tensor [N], class ids or `void`.
        temperature: divisor of the cosines, above 0.
        margin: cosine above which a node of the class is near enough; below its negative, a node of
            another class is far enough.
        void: the label of nodes that are left out.

    Returns:
        float32 scalar; 0 without a labelled node.

    Example: one node on the hub of its class, and a second hub at a right angle.

    >>> import numpy as np
    >>> hubs = np.eye(2, dtype="float32")
    >>> loss = proxy_anchor(hubs[:1], hubs, np.array([0]), temperature=1.0, margin=0.0)
    >>> print(round(float(loss), 4))  # log(1 + 1 / e) + log(1 + 1) / 2
    0.6598
    """
    cosines = _cosines(embeddings, hubs)
    labels = ops.cast(labels, "int32")
    own = ops.cast(_one_hot(labels, hubs, void), "bool")
    other = ops.logical_and((labels != void)[:, None], ops.logical_not(own))
    attraction = log_one_plus_sum(-(cosines - margin) / temperature, own, axis=0)
    repulsion = log_one_plus_sum((cosines + margin) / temperature, other, axis=0)
    num_present = ops.sum(ops.cast(ops.any(own, axis=0), "float32"))
    return ops.sum(attraction) / ops.maximum(num_present, 1.0) + ops.mean(repulsion)


def _cosines(embeddings, hubs):
    return ops.matmul(ops.cast(embeddings, "float32"), ops.transpose(ops.cast(hubs, "float32")))


def _one_hot(labels, hubs, void):
    labels = ops.cast(labels, "int32")
    return ops.one_hot(ops.where(labels == void, -1, labels), ops.shape(hubs)[0])
