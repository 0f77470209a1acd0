"""Choose the next images to label: uncertain ones that differ from each other.

The two steps follow Suggestive Annotation (Yang et al., MICCAI 2017): first the most uncertain
images, then a subset of them that is spread out. The subset is the greedy k-center of core-set
selection (Sener & Savarese, ICLR 2018).
"""

import numpy as np

POOL = 4
"""Uncertain images per image to choose. Source: ours; 2 in Suggestive Annotation."""


def uncertainty(probability: np.ndarray) -> float:
    """Return the least-confidence score of an image, 0 to 1: the mean of 1 - probability.

    Args:
        probability: float [H, W], the probability of the predicted class.

    Example:
        >>> uncertainty(np.array([[1.0, 0.5]]))
        0.25
    """
    return float(1 - np.mean(probability, dtype=np.float64))


def doubt(labels: np.ndarray, class_ids: np.ndarray, probability: np.ndarray, void: int) -> float:
    """Return how firmly a prediction contradicts a mask, 0 to 1.

    It is the mean, over the labelled pixels, of the probability of the predicted class where that
    class is not the mask's, and 0 elsewhere. An image without labelled pixels has 0.

    Args:
        labels: integer [H, W], the class ids of the mask.
        class_ids: integer [H, W], the predicted classes.
        probability: float [H, W], their probabilities.
        void: label of pixels that do not count.

    Example:
        >>> doubt(np.array([[0, 1, 255]]), np.array([[0, 0, 1]]), np.array([[0.9, 0.8, 1]]), 255)
        0.4
    """
    counted = labels != void
    wrong = counted & (labels != class_ids)
    return float(np.sum(probability[wrong], dtype=np.float64) / max(1, np.count_nonzero(counted)))


def choose(
    scores: np.ndarray, features: np.ndarray, num_chosen: int, known: np.ndarray
) -> list[int]:
    """Return the images to label next, the most useful first.

    Of the most uncertain `POOL * num_chosen` images, the next is always the one with the largest
    distance to the nearest image that is labelled or chosen. Without labelled images the first is
    the most uncertain one. Of equal distances, the more uncertain image is taken.

    Args:
        scores: float [N], uncertainty of each image.
        features: float [N, D], a vector for each image.
        num_chosen: number of images; all are returned if there are fewer.
        known: float [M, D], the vectors of the labelled images; M may be 0.

    Returns:
        At most `num_chosen` different indices.

    Example:
        >>> choose(np.array([0.9, 0.8, 0.1]), np.array([[0.0], [0.1], [5.0]]), 2, np.zeros((0, 1)))
        [0, 2]
    """
    pool = np.argsort(-np.asarray(scores), kind="stable")[: POOL * num_chosen]
    vectors = np.asarray(features, np.float64)[pool]
    distance = np.full(len(pool), np.inf)
    for vector in np.asarray(known, np.float64):
        distance = np.minimum(distance, _distances(vectors, vector))
    chosen: list[int] = []
    while len(chosen) < min(num_chosen, len(pool)):
        best = int(np.argmax(distance))
        chosen.append(int(pool[best]))
        distance = np.minimum(distance, _distances(vectors, vectors[best]))
        distance[best] = -1.0
    return chosen


def _distances(vectors, vector):
    return np.linalg.norm(vectors - vector, axis=1)
