"""Segmentation scores from an exact confusion matrix.

The confusion matrix is kept on the host, since evaluation streams images there. Functions take and
return numpy arrays.
"""

import numpy as np
from keras import ops


class ConfusionMatrix:
    """Count pixels by (true class, predicted class), exactly.

    It is no `keras.metrics.Metric`: float32 counts of a metric stop growing at 2**24, but the 500
    validation images of Cityscapes have 1.05e9 pixels. Not every backend has int64 variables.

    Pixels whose truth lies outside 0 .. num_classes - 1 (for example VOID = 255) are not counted,
    with any prediction (released code, test_pascal.py: `gt < n`).

    Args:
        num_classes: number of classes K, at least 1, void not counted.

    Raises:
        ValueError: if `num_classes` is below 1.

    Example:

    >>> confusion = ConfusionMatrix(num_classes=2)
    >>> confusion.update_state(np.array([0, 0, 1, 255]), np.array([0, 1, 1, 0]))
    >>> confusion.result().tolist()
    [[1, 1], [0, 1]]
    >>> mean_iou(confusion.result())  # 1/2 and 1/2
    0.5
    """

    def __init__(self, num_classes: int):
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1. Received {num_classes}.")
        self.num_classes = num_classes
        self.reset_state()

    def reset_state(self):
        """Set all counts to zero."""
        self._matrix = np.zeros((self.num_classes, self.num_classes), np.int64)

    def update_state(self, y_true, y_pred):
        """Add the pixels of one image or of a batch.

        Args:
            y_true: integer array or tensor of any shape, true class ids.
            y_pred: integer array or tensor of the same shape, predicted class ids.

        Raises:
            ValueError: if the shapes differ, the values are not integers, or the prediction is none
                of the K classes at a pixel with a true class. A K x K matrix has no correct cell
                for such a pixel: any column would add a false positive to some class, and leaving
                it out would raise the score. Then nothing of the call is counted.
        """
        y_true, y_pred, is_labelled = checked_maps(y_true, y_pred, self.num_classes)
        truth = y_true[is_labelled].astype(np.int64)
        cells = truth * self.num_classes + y_pred[is_labelled].astype(np.int64)
        counts = np.bincount(cells, minlength=self.num_classes**2)
        self._matrix += counts.reshape(self._matrix.shape)

    def result(self) -> np.ndarray:
        """Return a copy of the counts, int64 [K, K], rows truth, columns prediction."""
        return self._matrix.copy()


def checked_maps(y_true, y_pred, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true and predicted class ids as arrays, and a bool mask of the pixels with a class.

    Raises:
        ValueError: see `ConfusionMatrix.update_state`.
    """
    y_true, y_pred = _class_ids(y_true, "y_true"), _class_ids(y_pred, "y_pred")
    if y_true.shape != y_pred.shape:
        raise ValueError(
            "y_true and y_pred must have the same shape. "
            f"Received {y_true.shape} and {y_pred.shape}."
        )
    is_labelled = (y_true >= 0) & (y_true < num_classes)
    is_unknown = is_labelled & ((y_pred < 0) | (y_pred >= num_classes))
    if is_unknown.any():
        raise ValueError(
            f"y_pred must hold class ids 0 to {num_classes - 1} where y_true has a class. "
            f"Received {np.unique(y_pred[is_unknown])[:10].tolist()} at "
            f"{int(is_unknown.sum())} such pixels: predict one of the classes everywhere."
        )
    return y_true, y_pred, is_labelled


def _class_ids(values, name):
    values = np.asarray(ops.convert_to_numpy(values) if ops.is_tensor(values) else values)
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
            f"{name} must hold integer class ids (take the argmax of scores before). "
            f"Received dtype {values.dtype} of shape {values.shape}."
        )
    return values


def per_class_iou(matrix) -> np.ndarray:
    """Return the intersection over union of each class (released code, test_pascal.py).

    diagonal / (row + column - diagonal)

    Args:
        matrix: integer [K, K], rows truth, columns prediction.

    Returns:
        float64 [K] in 0..1; NaN for a class with neither truth nor prediction. A class that is
        predicted but never true has 0.

    Raises:
        ValueError: if `matrix` is not square.
    """
    matrix = _square(matrix)
    hits = np.diagonal(matrix)
    return ratio(hits, matrix.sum(axis=1) + matrix.sum(axis=0) - hits)


def mean_iou(matrix) -> float:
    """Return the mean of `per_class_iou` over all classes that are not NaN; NaN if all are NaN.

    The background counts as a class (M&M paper and released code).
    """
    return mean_of_numbers(per_class_iou(matrix))


def pixel_accuracy(matrix) -> float:
    """Return the share of correct pixels among the counted, 0..1; NaN if none was counted."""
    matrix = _square(matrix)
    return float(ratio(np.trace(matrix), matrix.sum()))


def mean_accuracy(matrix) -> float:
    """Return the mean recall (share of correct pixels) of the classes that have truth."""
    matrix = _square(matrix)
    return mean_of_numbers(ratio(np.diagonal(matrix), matrix.sum(axis=1)))


def summary(matrix, class_names) -> dict:
    """Return all scores of a confusion matrix in plain Python types for JSON. NaN becomes None.

    Args:
        matrix: integer [K, K], rows truth, columns prediction.
        class_names: K different names in the order of the class ids.

    Returns:
        {"miou": ..., "pixel_accuracy": ..., "mean_accuracy": ... (float or None each),
        "per_class_iou": {name: float or None}, "confusion_matrix": K lists of K ints}.

    Raises:
        ValueError: if `matrix` is not square, or the names are not K different ones.
    """
    matrix, class_names = _square(matrix), list(class_names)
    if len(class_names) != len(matrix) or len(set(class_names)) != len(class_names):
        raise ValueError(
            f"Expected {len(matrix)} different class names, one per row of the matrix. "
            f"Received {class_names}."
        )
    return {
        "miou": number_or_none(mean_iou(matrix)),
        "pixel_accuracy": number_or_none(pixel_accuracy(matrix)),
        "mean_accuracy": number_or_none(mean_accuracy(matrix)),
        "per_class_iou": by_name(class_names, per_class_iou(matrix)),
        "confusion_matrix": matrix.tolist(),
    }


def _square(matrix):
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"Expected a square matrix [K, K]. Received shape {matrix.shape}.")
    return matrix


def ratio(part, whole) -> np.ndarray:
    """Return part / whole as float64, NaN where `whole` is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def mean_of_numbers(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN; NaN if all are NaN."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def number_or_none(value: float) -> float | None:
    """Return the value, or None for NaN, which JSON does not have."""
    return None if np.isnan(value) else float(value)


def by_name(class_names, values) -> dict[str, float | None]:
    """Return {class name: value}, with None for NaN."""
    return dict(zip(class_names, map(number_or_none, values), strict=True))
