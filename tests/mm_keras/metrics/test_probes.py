"""Probes against scikit-learn, against the plain normal equations, and at their limits."""

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.metrics
import sklearn.neighbors

from mm_keras import metrics
from mm_keras.metrics import probes


def clouds(num=60, size=5, num_classes=3, spread=1.0, seed=0):
    """Points around one center per class; the classes have different sizes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(num_classes, num, p=np.arange(1, num_classes + 1) / 6)
    centers = np.random.default_rng(99).standard_normal((num_classes, size))
    return centers[labels] + spread * rng.standard_normal((num, size)), labels


@pytest.mark.parametrize("size", [5, 200])  # below and above the number of examples
def test_the_linear_probe_equals_scikit_learns_weighted_ridge_regression(size):
    features, labels = clouds(size=size)
    queries, _ = clouds(size=size, seed=1)
    counts = np.bincount(labels)
    weights = 1 / (counts[labels] * len(counts))
    mean = weights @ features
    scale = np.sqrt(weights @ (features - mean) ** 2)
    ridge = sklearn.linear_model.Ridge(alpha=probes.RIDGE, fit_intercept=False)
    targets = np.eye(3)[labels] - 1 / 3
    ridge.fit((features - mean) / scale, targets, sample_weight=weights)
    expected = ridge.predict((queries - mean) / scale).argmax(1)
    np.testing.assert_array_equal(metrics.linear_probe(features, labels, queries), expected)


def test_the_nearest_neighbor_equals_scikit_learns():
    (features, labels), (queries, _) = clouds(), clouds(seed=1)
    theirs = sklearn.neighbors.KNeighborsClassifier(1, metric="cosine").fit(features, labels)
    found = metrics.nearest_neighbor(features, labels, queries)
    np.testing.assert_array_equal(found, theirs.predict(queries))


def test_balanced_accuracy_equals_scikit_learns():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 50), rng.integers(0, 5, 50)
    labels[labels == 2] = 3
    expected = sklearn.metrics.recall_score(labels, predicted, labels=[0, 1, 3], average="macro")
    np.testing.assert_allclose(metrics.balanced_accuracy(labels, predicted), expected)


def test_separate_classes_are_found_whatever_the_scale_and_offset_of_the_features():
    features, labels = clouds(spread=0.01)
    queries, truth = clouds(spread=0.01, seed=1)
    found = metrics.linear_probe(1e4 * features + 1e6, labels, 1e4 * queries + 1e6)
    assert metrics.balanced_accuracy(truth, found) == 1


def test_features_without_information_predict_a_class_and_no_nan():
    labels = np.array([5, 5, 9])
    for features in (np.zeros((3, 2)), np.ones((3, 2)), np.zeros((3, 0))):
        found = metrics.linear_probe(features, labels, features)
        assert set(found) <= {5, 9}
        if features.shape[1]:
            assert set(metrics.nearest_neighbor(features, labels, features)) <= {5, 9}


def test_one_class_is_always_predicted():
    features, queries = np.eye(3), np.ones((2, 3))
    assert metrics.linear_probe(features, np.full(3, 4), queries).tolist() == [4, 4]
