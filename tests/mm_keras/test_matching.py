"""Matching against a plain-Python construction, the exact distributions, and its contract.

The tests run on any backend.
"""

import collections
import json
import pathlib

import keras
import numpy as np
import pytest
from keras import ops

from mm_keras import matching

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def _numpy(triplets):
    return matching.Triplets(*(ops.convert_to_numpy(part) for part in triplets))


def _plain_loop(labels, bits):
    """Build the paper's graph in a loop. A second pass adds missing edges."""
    order = sorted(range(len(labels)), key=lambda node: bits[0][node])
    time = {node: t for t, node in enumerate(order)}
    by_class = sorted(range(len(labels)), key=lambda node: (labels[node], time[node]))
    positive, negative, valid = {}, {}, {}
    for t, node in enumerate(order):
        earlier = [other for other in order[:t] if labels[other] == labels[node]]
        members = [other for other in by_class if labels[other] == labels[node] and other != node]
        candidates = earlier or members or [node]
        positive[node] = candidates[bits[1][node] % len(candidates)]
        earlier = [other for other in order[:t] if labels[other] != labels[node]]
        strangers = [other for other in by_class if labels[other] != labels[node]]
        candidates = earlier or strangers
        valid[node] = bool(candidates)
        negative[node] = candidates[bits[2][node] % len(candidates)] if candidates else node
    return [[part[node] for node in range(len(labels))] for part in (positive, negative, valid)]


def _random_labels(rng):
    num_nodes = int(rng.choice([1, 2, 3, 5, 8, 17, 40]))  # few shapes, since JAX compiles each
    return rng.integers(0, rng.integers(1, num_nodes + 1), num_nodes).astype("int32") * 7


def test_class_connected_equals_the_plain_loop(monkeypatch):
    rng = np.random.default_rng(0)
    for _ in range(150):
        labels = _random_labels(rng)
        bits = rng.integers(0, 2**31 - 1, (3, len(labels)), dtype="int32")
        monkeypatch.setattr(
            keras.random, "randint", lambda *_, bits=bits, **__: ops.convert_to_tensor(bits)
        )
        triplets = _numpy(matching.class_connected(labels, seed=0))
        positive, negative, valid = _plain_loop(labels.tolist(), bits.tolist())
        assert triplets.anchor.tolist() == list(range(len(labels)))
        assert triplets.positive.tolist() == positive
        assert triplets.negative.tolist() == negative
        assert triplets.valid.tolist() == valid


def _frequencies(function, labels, num_samples):
    """Return the share of samples in which anchor i chose node j, as positive and as negative."""
    labels = np.array(labels, "int32")
    nodes = np.arange(len(labels))
    positive, negative = np.zeros((2, len(labels), len(labels)))
    sample = _sampler(function, labels)
    for _ in range(num_samples):
        triplets = _numpy(sample())
        positive[nodes, triplets.positive] += 1
        negative[nodes[triplets.valid], triplets.negative[triplets.valid]] += 1
    return positive / num_samples, negative / num_samples


def _sampler(function, labels):
    """Return a function () -> new triplets, compiled on TensorFlow."""
    generator = keras.random.SeedGenerator(0)
    if keras.backend.backend() != "tensorflow":
        return lambda: function(labels, generator)
    import tensorflow as tf

    return tf.function(lambda: function(labels, generator), autograph=False)


def _assert_close(share, probability, num_samples):
    error = np.sqrt(probability * (1 - probability) / num_samples)
    np.testing.assert_array_less(np.abs(share - probability), 5 * error + 1e-9)


def test_edges_have_the_exact_distribution(exact_case):
    num_samples = 300
    positive, negative = _frequencies(matching.class_connected, exact_case["labels"], num_samples)
    _assert_close(positive, np.array(exact_case["positive_prob"]), num_samples)
    _assert_close(negative, np.array(exact_case["negative_prob"]), num_samples)


def pytest_generate_tests(metafunc):
    """Run tests with an `exact_case` on every such entry of the golden file."""
    if "exact_case" in metafunc.fixturenames:
        cases = json.loads((GOLDEN / "matching.json").read_text())["triplet_exact"]["cases"]
        metafunc.parametrize("exact_case", cases, ids=[str(case["labels"]) for case in cases])


@pytest.mark.parametrize(
    "name", ["triplet_large", pytest.param("triplet_large_400", marks=pytest.mark.slow)]
)
def test_large_graphs_have_the_golden_statistics(golden, name):
    """Independent picks would leave 0.333 of the nodes without an anchor, not 0.426."""
    case = golden("matching")[name]
    labels = np.repeat(np.arange(len(case["class_counts"])), case["class_counts"]).astype("int32")
    in_large_class = np.array(case["class_counts"])[labels] >= 2
    figures = collections.defaultdict(list)
    for seed in range(120):
        triplets = _numpy(matching.class_connected(labels, seed))
        as_positive = np.bincount(triplets.positive, minlength=len(labels))[in_large_class]
        as_negative = np.bincount(triplets.negative, minlength=len(labels))
        figures["fraction_never_positive_mean_se"].append(np.mean(as_positive == 0))
        figures["fraction_never_negative_mean_se"].append(np.mean(as_negative == 0))
        figures["mean_sq_indegree_positive_mean_se"].append(np.mean(as_positive**2))
        figures["mean_sq_indegree_negative_mean_se"].append(np.mean(as_negative**2))
    for key, values in figures.items():
        mean, error = case["mc"][key]
        own_error = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values) - mean) <= 5 * np.hypot(error, own_error), key


def _num_components(nodes, edges):
    parent = {node: node for node in nodes}

    def root(node):
        while parent[node] != node:
            node = parent[node]
        return node

    for a, b in edges:
        parent[root(a)] = root(b)
    return len({root(node) for node in nodes})


def _is_connected(triplets, nodes):
    edges = [(node, int(triplets.positive[node])) for node in nodes]
    return _num_components(nodes, edges) == 1


def test_each_class_is_one_component():
    rng = np.random.default_rng(1)
    for seed in range(50):
        labels = _random_labels(rng)
        triplets = _numpy(matching.class_connected(labels, seed))
        for label in set(labels.tolist()):
            assert _is_connected(triplets, np.flatnonzero(labels == label).tolist())


@pytest.mark.parametrize("size", [pytest.param("4", marks=pytest.mark.slow), "5", "6"])
def test_the_graph_rule_connects_classes_more_often_than_independent_picks(golden, size):
    """Independent picks would connect all samples with a probability below 0.1 percent."""
    case, size_of_class = golden("matching")["connectivity"], int(size)
    independent = case["independent_uniform_probability_connected"][size][1]
    num_samples = int(np.ceil(np.log(0.001) / np.log(independent)))
    labels = np.zeros(size_of_class, "int32")
    connected = [
        _is_connected(_numpy(matching.class_connected(labels, seed)), range(size_of_class))
        for seed in range(num_samples)
    ]
    assert np.mean(connected) == case["graph_rule_probability_connected"]


def test_random_triplets_pair_nodes_without_overlap():
    rng = np.random.default_rng(2)
    for seed in range(100):
        labels = _random_labels(rng)
        triplets = _numpy(matching.random_triplets(labels, seed))
        has_stranger = len(set(labels.tolist())) > 1
        paired = triplets.positive != triplets.anchor
        np.testing.assert_array_equal(triplets.positive[triplets.positive], triplets.anchor)
        np.testing.assert_array_equal(labels[triplets.positive], labels)
        np.testing.assert_array_equal(triplets.valid, paired & has_stranger)
        for label in set(labels.tolist()):
            members = labels == label
            assert np.sum(members & ~paired) == np.sum(members) % 2
        if has_stranger:
            assert np.all(labels[triplets.negative] != labels)


def test_random_triplets_are_uniform():
    num_samples = 600
    positive, negative = _frequencies(matching.random_triplets, [0, 0, 0, 0, 1, 1], num_samples)
    expected = np.kron(np.eye(2), np.ones((4, 4)))[:6, :6]
    expected = np.array(
        [[0 if i == j else same for j, same in enumerate(row)] for i, row in enumerate(expected)]
    )
    _assert_close(positive, expected / expected.sum(1, keepdims=True), num_samples)
    strangers = 1 - np.kron(np.eye(2), np.ones((4, 4)))[:6, :6]
    _assert_close(negative, strangers / strangers.sum(1, keepdims=True), num_samples)


def test_an_int_seed_repeats_triplets_and_a_generator_advances():
    labels = np.arange(60, dtype="int32") % 5
    first = _numpy(matching.class_connected(labels, 3))
    again = _numpy(matching.class_connected(labels, 3))
    np.testing.assert_array_equal(first.negative, again.negative)
    generator = keras.random.SeedGenerator(3)
    one = _numpy(matching.class_connected(labels, generator))
    two = _numpy(matching.class_connected(labels, generator))
    assert np.any(one.negative != two.negative)


@pytest.mark.parametrize("function", [matching.class_connected, matching.random_triplets])
def test_one_node_has_no_valid_triplet(function):
    triplets = _numpy(function(np.array([4], "int32"), 0))
    assert triplets == ([0], [0], [0], [False])


@pytest.mark.parametrize("labels", [np.zeros((2, 2), "int32"), np.zeros(3, "float32")])
def test_labels_that_are_no_integer_vector_are_rejected(labels):
    with pytest.raises(ValueError, match="Labels must be"):
        matching.class_connected(labels, 0)


def test_large_graphs_have_correct_triplets():
    labels = np.arange(65536, dtype="int32") % 21
    triplets = _numpy(matching.class_connected(labels, 0))
    assert np.all(labels[triplets.positive] == labels)
    assert np.all(labels[triplets.negative] != labels)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="reads a TensorFlow graph")
@pytest.mark.parametrize("function", [matching.class_connected, matching.random_triplets])
def test_no_quadratic_memory(function):
    """No tensor of the traced graph has more than a few entries per node."""
    import tensorflow as tf

    num_nodes = 1000
    signature = [tf.TensorSpec([num_nodes], tf.int32)]
    traced = tf.function(lambda labels: function(labels, 0), input_signature=signature)
    graph = traced.get_concrete_function().graph
    sizes = {
        output.name: output.shape.num_elements()
        for operation in graph.get_operations()
        for output in operation.outputs
    }
    assert None not in sizes.values()
    assert max(sizes.values()) <= 4 * num_nodes
