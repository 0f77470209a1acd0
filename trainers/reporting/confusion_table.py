"""The confusion matrix of a page: cells to draw, and the most confused pairs of classes."""

from typing import NamedTuple

import numpy as np

from pipelines import datasets

_NUM_PAIRS = 12


class Cell(NamedTuple):
    """A cell: the share of a true class that is predicted as another one; None without truth."""

    share: float | None
    count: int
    is_right: bool


class Pair(NamedTuple):
    """A true class, the class that is predicted for it, and how often."""

    truth: str
    prediction: str
    count: int
    share: float


class Table(NamedTuple):
    """The part of a confusion matrix that a page shows.

    Attributes:
        names: names of the shown classes.
        rows: cells, rows truth, columns prediction.
        pairs: the confused pairs with the most pixels, the largest first.
        left_out: classes that are not shown: without pixels, or rarely confused.
    """

    names: list[str]
    rows: list[list[Cell]]
    pairs: list[Pair]
    left_out: list[str]


def of(results: dict, spec: datasets.DatasetSpec, limit: int) -> Table:
    """Return the table of a run.

    Args:
        results: scores with the confusion matrix.
        spec: facts of the data set.
        limit: largest number of classes. With more classes, the classes with the most wrong pixels
            are shown. Classes without pixels are then left out as well.
    """
    matrix = np.asarray(results["confusion_matrix"])
    chosen = _chosen(matrix, limit)
    totals = matrix.sum(axis=1)
    rows = [
        [
            Cell(float(matrix[i, j] / totals[i]) if totals[i] else None, int(matrix[i, j]), i == j)
            for j in chosen
        ]
        for i in chosen
    ]
    names = spec.class_names
    left_out = [names[k] for k in range(len(matrix)) if k not in set(chosen)]
    return Table([names[k] for k in chosen], rows, pairs(matrix, names), left_out)


def pairs(matrix: np.ndarray, names: tuple[str, ...]) -> list[Pair]:
    """Return the pairs of different classes with the most pixels, the largest first.

    >>> pairs(np.array([[5, 1], [3, 1]]), ("a", "b"))[0]
    Pair(truth='b', prediction='a', count=3, share=0.75)
    """
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_NUM_PAIRS]
    found = [np.unravel_index(place, matrix.shape) for place in order if wrong.flat[place]]
    return [
        Pair(names[i], names[j], int(wrong[i, j]), float(wrong[i, j] / matrix[i].sum()))
        for i, j in found
    ]


def _chosen(matrix, limit) -> list[int]:
    if len(matrix) < limit:
        return list(range(len(matrix)))
    errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diagonal(matrix)
    largest = np.argsort(-errors, kind="stable")[: limit - 1]
    return sorted(k for k in largest.tolist() if errors[k] or matrix[k, k])
