"""The choice of images to label next, against a slow search and on degenerate inputs."""

import numpy as np
import pytest

from mm_keras.inference import ranking


def _slow_choice(scores, features, num_chosen, known):
    """The same rule in plain Python."""
    order = sorted(range(len(scores)), key=lambda k: -scores[k])[: ranking.POOL * num_chosen]
    chosen = []
    while len(chosen) < min(num_chosen, len(order)):
        taken = [*known, *(features[k] for k in chosen)]
        best, best_distance = None, -1.0
        for k in order:
            if k in chosen:
                continue
            distances = [
                sum((a - b) ** 2 for a, b in zip(features[k], t, strict=True)) for t in taken
            ]
            distance = min(distances, default=float("inf"))
            if distance > best_distance:
                best, best_distance = k, distance
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("num_known", [0, 1, 5])
@pytest.mark.parametrize("num_chosen", [1, 3, 40])
def test_the_choice_equals_a_slow_search(num_known, num_chosen):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores, features = rng.random(30), rng.integers(0, 9, (30, 3)).astype(float)
        known = rng.random((num_known, 3))
        found = ranking.choose(scores, features, num_chosen, known)
        assert found == _slow_choice(scores, features, num_chosen, known)
        assert len(set(found)) == len(found) == min(num_chosen, 30)


def test_copies_of_a_labelled_image_come_last():
    features = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert ranking.choose([0.9, 0.5, 0.4], features, 3, features[:1])[-1] == 0


def test_equal_images_are_taken_by_their_uncertainty():
    assert ranking.choose([0.1, 0.7, 0.3], np.zeros((3, 2)), 3, np.zeros((0, 2))) == [1, 2, 0]


def test_no_images_give_no_choice():
    assert ranking.choose([], np.zeros((0, 2)), 3, np.zeros((0, 2))) == []


def test_a_sure_prediction_has_no_uncertainty():
    assert ranking.uncertainty(np.ones((3, 4), np.float32)) == 0


def test_void_pixels_raise_no_doubt():
    labels, wrong = np.full((2, 2), 255), np.ones((2, 2), int)
    assert ranking.doubt(labels, wrong, np.ones((2, 2)), void=255) == 0
    labels[0, 0] = 0
    assert ranking.doubt(labels, wrong, np.full((2, 2), 0.75), void=255) == 0.75
