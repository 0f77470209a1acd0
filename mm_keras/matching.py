"""Match: labels of a batch of patches to triplets of node indices.

Both functions take only the labels, no embeddings, so any distance and any loss can follow.
Everything is vectorized in `keras.ops`: O(N log N) time and O(N) memory, no N x N matrix, static
shapes, no `searchsorted` (quadratic under XLA).
"""

from typing import NamedTuple

import keras
from keras import ops

# Largest value that `keras.random.randint` may draw as int32 (its upper bound is exclusive).
# Integers modulo n are uniform to n / 2**31; floats would be uniform only to n / 2**24.
_RANDOM_BITS = 2**31 - 1


class Triplets(NamedTuple):
    """One triplet for each node, as int32 vectors of length N, and `valid`, bool [N].

    `anchor[i]` is i. `positive[i]` has the anchor's label; it is the anchor itself if its class has
    no other member. `negative[i]` has another label. If there is no other label, it is the anchor
    itself and `valid[i]` is False.
    """

    anchor: object
    positive: object
    negative: object
    valid: object


class _Classes(NamedTuple):
    """Nodes sorted by (class, visiting time), and each node's place in its class segment; int32 [N]
    each.

    sorted_nodes: position in the class-major order -> node.
    start, size: node -> first position of its class segment, number of its members.
    rank: node -> number of members of its class that were visited before it.
    """

    sorted_nodes: object
    start: object
    size: object
    rank: object


def class_connected(labels, seed) -> Triplets:
    """Return triplets of the class-wise connected graph.

    Source: M&M paper, section Match; released GraphToTripletLayer.

    Nodes join the graph one by one in a uniform random order. A joining node draws its positive
    uniformly from the nodes of its class that joined before, and its negative uniformly from those
    of other classes that joined before. Nodes without a candidate draw from all nodes: the first
    node of each class draws its positive from the whole class (itself if it is alone), and the
    first nodes draw any node of another class as their negative. Marginally each edge is uniform,
    as with independent triplets, but the positive edges of each class form one connected component.

    Args:
        labels: integer tensor [N], N >= 1. Every node is matched, so remove void patches before.
            (number of distinct labels) x (N + 1) must be below 2**31.
        seed: an int or a `keras.random.SeedGenerator`; an int gives the same triplets at each call.

    Returns:
        `Triplets` of length N. `valid` is False for all nodes when there is only one class.

    Raises:
        ValueError: if `labels` is not an integer vector.

    Example:

    >>> import numpy as np
    >>> labels = np.array([0, 0, 1, 1])
    >>> triplets = class_connected(labels, seed=0)
    >>> ops.convert_to_numpy(triplets.positive).tolist()
    [1, 0, 3, 2]
    >>> bool(np.all(labels[ops.convert_to_numpy(triplets.negative)] != labels))
    True
    """
    labels = _checked(labels)
    num_nodes = ops.shape(labels)[0]
    bits = keras.random.randint((3, num_nodes), 0, _RANDOM_BITS, dtype="int32", seed=seed)
    order = ops.cast(ops.argsort(bits[0]), "int32")
    time = _inverse(order)
    classes = _group(labels, time)
    positive = _earlier_or_any_member(classes, bits[1])
    negative = _earlier_or_any_stranger(classes, order, time, bits[2])
    return _triplets(positive, negative, has_negative=classes.size < num_nodes)


def random_triplets(labels, seed) -> Triplets:
    """Return random triplets without a graph.

    They are the ablation of the M&M paper (Table 1, "random triplets").

    The nodes of each class are paired at random without overlap. Both members of a pair are anchors
    with the other as positive; the negative is uniform over all nodes of other classes.

    Args:
        labels: integer tensor [N], as for `class_connected`.
        seed: an int or a `keras.random.SeedGenerator`.

    Returns:
        `Triplets` of length N. `valid` is False for the odd node out of a class, which is its own
        positive, and for all nodes when there is only one class.

    Raises:
        ValueError: if `labels` is not an integer vector.

    Example: the third node of class 0 has no partner.

    >>> import numpy as np
    >>> triplets = random_triplets(np.array([0, 0, 0, 1, 1]), seed=0)
    >>> int(ops.sum(ops.cast(triplets.valid, "int32")))
    4
    """
    labels = _checked(labels)
    num_nodes = ops.shape(labels)[0]
    bits = keras.random.randint((2, num_nodes), 0, _RANDOM_BITS, dtype="int32", seed=seed)
    classes = _group(labels, _inverse(ops.cast(ops.argsort(bits[0]), "int32")))
    partner = classes.rank + 1 - 2 * (classes.rank % 2)  # 0 <-> 1, 2 <-> 3, ...
    paired = partner < classes.size
    partner = ops.where(paired, partner, classes.rank)
    positive = ops.take(classes.sorted_nodes, classes.start + partner)
    negative = _any_stranger(classes, bits[1])
    return _triplets(positive, negative, has_negative=classes.size < num_nodes, usable=paired)


def _checked(labels):
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) != 1:
        raise ValueError(
            "Labels must be a vector with one label per node. "
            f"Received shape {tuple(labels.shape)}."
        )
    if "int" not in keras.backend.standardize_dtype(labels.dtype):
        raise ValueError(
            "Labels must be integers, since equal labels are matched. "
            f"Received dtype {labels.dtype}."
        )
    return ops.cast(labels, "int32")


def _triplets(positive, negative, has_negative, usable=True) -> Triplets:
    anchor = ops.arange(ops.shape(positive)[0], dtype="int32")
    negative = ops.where(has_negative, negative, anchor)
    return Triplets(anchor, positive, negative, ops.logical_and(has_negative, usable))


def _inverse(permutation):
    return ops.cast(ops.argsort(permutation), "int32")


def _group(labels, time) -> _Classes:
    """Sort nodes class by class and, within a class, by visiting time."""
    num_nodes = ops.shape(labels)[0]
    dense = _renumbered(labels)
    # One unique key per node, so that the order does not depend on the sort being stable.
    sorted_nodes = ops.cast(ops.argsort(dense * num_nodes + time), "int32")
    sizes = ops.segment_sum(ops.ones_like(dense), dense, num_segments=num_nodes)
    start = ops.take(ops.cumsum(sizes) - sizes, dense)
    return _Classes(sorted_nodes, start, ops.take(sizes, dense), _inverse(sorted_nodes) - start)


def _renumbered(labels):
    """Renumber labels as 0, 1, 2, ... in ascending order, so that keys stay small."""
    by_label = ops.argsort(labels)
    ascending = ops.take(labels, by_label)
    steps = ops.cast(ascending[1:] != ascending[:-1], "int32")
    return ops.take(ops.cumsum(ops.pad(steps, (1, 0))), ops.argsort(by_label))


def _earlier_or_any_member(classes, bits):
    """Draw from the earlier members of a node's class, for its first member from the later."""
    is_first = classes.rank == 0
    num_candidates = ops.where(is_first, classes.size - 1, classes.rank)
    pick = bits % ops.maximum(num_candidates, 1)
    # The first member skips itself, unless it is alone.
    pick = ops.where(ops.logical_and(is_first, classes.size > 1), pick + 1, pick)
    return ops.take(classes.sorted_nodes, classes.start + pick)


def _any_stranger(classes, bits):
    """Draw from all nodes of other classes; any node in range if there is none."""
    num_nodes = ops.shape(bits)[0]
    pick = bits % ops.maximum(num_nodes - classes.size, 1)
    pick = ops.where(pick < classes.start, pick, pick + classes.size)
    return ops.take(classes.sorted_nodes, ops.minimum(pick, num_nodes - 1))


def _earlier_or_any_stranger(classes, order, time, bits):
    """Draw from the earlier nodes of other classes, or from all of them if none is earlier.

    The j-th earlier stranger joined at time j + m, where m is the number of the node's class
    members that joined before that stranger: member k has (its time - k) strangers before it, and
    this grows with k, so m is found by bisection in the class segment.
    """
    num_earlier = time - classes.rank
    j = bits % ops.maximum(num_earlier, 1)
    strangers_before = ops.take(time - classes.rank, classes.sorted_nodes)
    m = _count_at_most(strangers_before, classes.start, classes.rank, j)
    earlier = ops.take(order, ops.minimum(j + m, ops.shape(bits)[0] - 1))
    return ops.where(num_earlier > 0, earlier, _any_stranger(classes, bits))


def _count_at_most(values, start, length, bound):
    """Count the values <= `bound[i]` in the ascending `values[start[i] : start[i] + length[i]]`."""
    num_values = values.shape[0]
    last = ops.shape(values)[0] - 1
    low, high = ops.zeros_like(length), length
    for _ in range(31 if num_values is None else num_values.bit_length()):
        middle = (low + high) // 2
        is_within = ops.take(values, ops.minimum(start + middle, last)) <= bound
        searching = low < high
        low = ops.where(ops.logical_and(searching, is_within), middle + 1, low)
        high = ops.where(ops.logical_and(searching, ops.logical_not(is_within)), middle, high)
    return low
