"""Metrics of the embeddings of a step, for models that tune a backbone by their distances."""

from collections.abc import Mapping

import keras

from mm_keras import losses, metrics

TRACKERS = ("positive_distance", "negative_distance", "effective_rank", "collapsed_share")
"""The names of the metrics."""


def track_pairs(
    trackers: Mapping[str, keras.metrics.Metric], embeddings, labels, num_classes: int
) -> None:
    """Record the mean distances over all pairs, and the health of the embeddings.

    Args:
        trackers: the metrics of `TRACKERS`.
        embeddings: float32 [N, D] of unit vectors, without gradient.
        labels: integer tensor [N].
        num_classes: number of classes, void not counted.
    """
    sums = losses.class_sums(embeddings, labels, num_classes)
    positive, negative = losses.expected_distances(sums)
    trackers["positive_distance"].update_state(positive)
    trackers["negative_distance"].update_state(negative)
    track_health(trackers, embeddings)


def track_health(trackers: Mapping[str, keras.metrics.Metric], embeddings) -> None:
    """Record whether the embeddings, float32 [N, D] without gradient, have collapsed."""
    trackers["effective_rank"].update_state(metrics.effective_rank(embeddings))
    trackers["collapsed_share"].update_state(metrics.collapsed_share(embeddings))
