"""Probes: how well fixed features tell classes apart, measured by two simple classifiers.

A probe fits on the features of some examples and predicts the classes of others. The network does
not change. Everything runs in numpy, in float64, and is deterministic.
"""

import numpy as np

RIDGE = 0.1
"""Weight of the squared coefficients of `linear_probe`, whose features have variance 1."""


def nearest_neighbor(features, labels, queries) -> np.ndarray:
    """Return the class of the nearest example, by cosine.

    Args:
        features: float [N, D], of the examples.
        labels: integer [N], their classes.
        queries: float [M, D], features to classify.

    Returns:
        integer [M].

    Example:

    >>> nearest_neighbor(np.eye(2), np.array([3, 7]), np.array([[1.0, 2.0]])).tolist()
    [7]
    """
    similarities = _unit(queries) @ _unit(features).T
    return np.asarray(labels)[similarities.argmax(axis=1)]


def linear_probe(features, labels, queries, ridge: float = RIDGE) -> np.ndarray:
    """Return the class with the highest score of a linear classifier.

    The classifier is a ridge regression on one-hot classes, solved exactly. Features are scaled to
    mean 0 and variance 1 over the examples. All classes have the same total weight.

    Args:
        features: float [N, D], of the examples.
        labels: integer [N], their classes.
        queries: float [M, D], features to classify.
        ridge: weight of the squared coefficients.

    Returns:
        integer [M].

    Example: the classes differ in the sign of the first feature.

    >>> features, labels = np.array([[-1.0, 5.0], [1.0, 5.0]]), np.array([4, 2])
    >>> linear_probe(features, labels, np.array([[-3.0, 0.0], [2.0, 9.0]])).tolist()
    [4, 2]
    """
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights = 1 / (counts[index] * len(classes))
    examples, others = (np.asarray(values, np.float64) for values in (features, queries))
    mean = weights @ examples
    examples, others = examples - mean, others - mean
    deviation = np.sqrt(weights @ examples**2)
    # A feature that is constant over the examples gets no weight.
    scale = np.where(deviation > 1e-7 * max(deviation.max(initial=0), 1e-30), deviation, np.inf)
    examples, others = examples / scale, others / scale
    targets = np.eye(len(classes))[index] - 1 / len(classes)
    return classes[(others @ _ridge_regression(examples, targets, weights, ridge)).argmax(axis=1)]


def _ridge_regression(examples, targets, weights, ridge):
    """Return the coefficients, float64 [D, K], by the smaller of the two normal equations."""
    weighted = examples.T * weights
    if examples.shape[1] <= examples.shape[0]:
        normal = weighted @ examples + ridge * np.eye(examples.shape[1])
        return np.linalg.solve(normal, weighted @ targets)
    kernel = examples @ weighted + ridge * np.eye(examples.shape[0])
    return weighted @ np.linalg.solve(kernel, targets)


def balanced_accuracy(labels, predicted) -> float:
    """Return the mean over the classes in `labels` of the share that is predicted right.

    Args:
        labels: integer [M], at least one.
        predicted: integer [M].

    Example: 1 of 2 and 1 of 1.

    >>> balanced_accuracy(np.array([0, 0, 1]), np.array([0, 1, 1]))
    0.75
    """
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    right = np.asarray(labels) == np.asarray(predicted)
    return float(np.mean(np.bincount(index, weights=right) / counts))


def _unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norm > 0, norm, 1.0)
