"""Splits of a user's data set: usual names, and the division of images that have no splits."""

import hashlib
import re
from collections.abc import Sequence
from typing import TypeVar

from pipelines.datasets.spec import DatasetError

EVAL_SHARE = 0.2
"""The share of images for evaluation if a data set has no splits."""

_USUAL = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_COPY = re.compile(r"\.rf\.[0-9a-zA-Z]+.*")

Item = TypeVar("Item")


def usual_split(name: str | None) -> str | None:
    """Return "train", "val" or "test" for the usual names of these splits, else None.

    Example:
        >>> usual_split("Validation"), usual_split("train2017"), usual_split("default")
        ('val', 'train', None)
    """
    return _USUAL.get(re.sub(r"[\d_-]+$", "", (name or "").lower()))


def source_picture(name: str) -> str:
    """Return the part of a name that all augmented copies of a picture share.

    Roboflow names the copies of a.jpg a_jpg.rf.HASH.jpg.

    Example:
        >>> source_picture("a_jpg.rf.0c1d")
        'a_jpg'
    """
    return _COPY.sub("", name)


def divided(items: Sequence[Item], names: Sequence[str]) -> tuple[tuple[Item, ...], ...]:
    """Divide items into training and evaluation by a hash of their names.

    The hash is SHA-256, so the same names are always divided in the same way. Augmented copies of
    one picture fall into the same part.

    Args:
        items: the items, in order.
        names: the name of each item.

    Returns:
        (items to train on, items to evaluate on), each in order.

    Raises:
        DatasetError: if all items are copies of one picture, or if there is one item only.
    """
    groups = [source_picture(name) for name in names]
    by_hash = sorted(set(groups), key=lambda group: hashlib.sha256(group.encode()).digest())
    if len(by_hash) < 2:
        raise DatasetError(
            f"There is one image only ({', '.join(map(str, names[:3])) or 'none at all'}): add at "
            "least one, because training and evaluation need one image each."
        )
    chosen = set(by_hash[: max(1, round(EVAL_SHARE * len(by_hash)))])
    train = tuple(i for i, group in zip(items, groups, strict=True) if group not in chosen)
    evaluation = tuple(i for i, group in zip(items, groups, strict=True) if group in chosen)
    return train, evaluation
