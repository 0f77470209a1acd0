"""Exchange images between training and evaluation until each class of the evaluation is trained.

A division by a hash of the names can leave all images of a rare class to the evaluation. Such a
class is never predicted.
"""

import collections
import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Moves(NamedTuple):
    """Names of the images that change sides."""

    to_train: tuple[str, ...]
    to_evaluation: tuple[str, ...]


def moves(
    train: Iterable[str], evaluation: Iterable[str], classes: Mapping[str, Iterable[int]]
) -> Moves:
    """Return the images that must change sides so that each class of the evaluation is trained.

    For each class that only evaluation images have, one of them moves to training. In return, an
    image moves to evaluation whose classes all stay in other training images. Where there is none,
    the evaluation gets smaller, but never empty. The first name in the order of SHA-256 is chosen,
    so equal data sets are always divided in the same way.

    Args:
        train: names of the images to train on.
        evaluation: names of the images to evaluate on.
        classes: name -> ids of the classes in the image; empty for an image without labels.

    Example:
        >>> moves(["a", "b"], ["c"], {"a": [0], "b": [0], "c": [0, 1]})
        Moves(to_train=('c',), to_evaluation=('b',))
    """
    train, evaluation = set(train), set(evaluation)
    to_train, to_evaluation = [], []
    while chosen := _next(train - {*to_train}, train, evaluation, classes):
        first, in_return = chosen
        to_train.append(first)
        train.add(first)
        evaluation.remove(first)
        if in_return is not None:
            to_evaluation.append(in_return)
            train.remove(in_return)
            evaluation.add(in_return)
    return Moves(tuple(to_train), tuple(to_evaluation))


def _next(may_leave, train, evaluation, classes):
    """Return (the image to train on, the image in return or None), None if nothing is to do."""
    counts = collections.Counter(k for name in train for k in classes[name])
    missing = {k for name in evaluation for k in classes[name]} - counts.keys()
    if not missing:
        return None
    rare = min(missing)
    first = min((name for name in evaluation if rare in classes[name]), key=_hash)
    counts.update(classes[first])
    spare = [
        name for name in may_leave if classes[name] and all(counts[k] > 1 for k in classes[name])
    ]
    if not spare and len(evaluation) == 1:
        return None
    return first, min(spare, key=_hash, default=None)


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
