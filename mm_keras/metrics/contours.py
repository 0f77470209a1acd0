"""Scores of what mIoU hardly sees: the contours of regions, and thin regions.

Both need to know, for each pixel, whether a square around it lies within one region of a label map.
Whether it does follows from the least and the greatest class id in the square, for all classes at
once and in a number of passes that grows with the logarithm of its side.

Pixels without a class, and all that lies outside an image, belong to no region. numpy on the host,
as `metrics.ConfusionMatrix`.
"""

import numpy as np

from mm_keras.metrics import confusion as metrics

SHARE_OF_DIAGONAL = 0.02
"""Width of the band along contours as a share of the image's diagonal (Cheng et al., CVPR 2021);
regions narrower than it count as thin.
"""

_NOWHERE = 255  # the id of pixels of no region; classes lie below it


class BoundaryIoU:
    """Intersection over union of the bands along the contours of each class (Cheng et al.,
    "Boundary IoU", CVPR 2021).

    A pixel of class c is in the band of c if a pixel that is not of class c, or the outside of the
    image, lies within d rows and d columns of it (their released code: d erosions by 3 x 3 pixels),
    d = 2 % of the image's diagonal, rounded, at least 1. The IoU of a class is over the union of
    the true and the predicted band; intersections and unions are summed over all images.

    The paper has no void. Here pixels whose truth is void are cut out of both maps before the
    bands are taken: they are not counted, and a prediction that is right wherever there is a truth
    scores 1.

    Args:
        num_classes: number of classes, 1 to 255, void not counted.
        share: d as a share of the diagonal.

    Raises:
        ValueError: `num_classes` or `share` out of range.
    """

    def __init__(self, num_classes: int, share: float = SHARE_OF_DIAGONAL):
        _check(num_classes, share)
        self.num_classes, self.share = num_classes, share
        self._intersection, self._union = np.zeros((2, num_classes), np.int64)

    def update_state(self, y_true, y_pred):
        """Adds one image.

        Args:
            y_true: integer [H, W], true class ids.
            y_pred: integer [H, W], predicted class ids.

        Raises:
            ValueError: see `metrics.ConfusionMatrix.update_state`, or the maps have another rank.
        """
        truth, prediction = _regions(y_true, y_pred, self.num_classes)
        distance = _pixels(self.share, truth.shape, least=1)
        bands = [
            np.where(_is_uniform_around(regions, distance), _NOWHERE, regions)
            for regions in (truth, prediction)
        ]
        common = self._counts(bands[0][bands[0] == bands[1]])
        self._intersection += common
        self._union += self._counts(bands[0]) + self._counts(bands[1]) - common

    def result(self) -> np.ndarray:
        """float64 [K] in 0..1; NaN for a class with neither truth nor prediction."""
        return metrics.ratio(self._intersection, self._union)

    def summary(self, class_names) -> dict:
        """{"boundary_iou": mean over the classes, "per_class_boundary_iou": {name: figure}}, None
        for what is undefined.
        """
        per_class = self.result()
        return {
            "boundary_iou": metrics.number_or_none(metrics.mean_of_numbers(per_class)),
            "per_class_boundary_iou": metrics.by_name(class_names, per_class),
        }

    def _counts(self, regions):
        return np.bincount(regions.ravel(), minlength=_NOWHERE + 1)[: self.num_classes]


class ThinRegions:
    """How well thin regions are found: objects, parts of them and gaps between them.

    The definition is ours; the M&M paper names thin objects as a failure (Figure 7) but measures
    none. A pixel of class c is thin if no square of w x w pixels that covers it lies within class
    c: it is what a morphological opening of the class by that square takes away. w = 2 % of the
    image's diagonal, rounded, at least 2. The corners of a round region are thin as well.

    Scores are those of the confusion matrix of the thin pixels of the truth alone, averaged over
    the classes that have any. So class c is charged for missing its own thin pixels and for
    spreading over those of other classes (filling the gap between two legs, say), but not for what
    it takes from wide regions.

    Args:
        num_classes: number of classes, 1 to 255, void not counted.
        share: w as a share of the diagonal.

    Raises:
        ValueError: `num_classes` or `share` out of range.
    """

    def __init__(self, num_classes: int, share: float = SHARE_OF_DIAGONAL):
        _check(num_classes, share)
        self.share = share
        self._confusion = metrics.ConfusionMatrix(num_classes)
        self._num_labelled = 0

    def update_state(self, y_true, y_pred):
        """Adds one image; arguments and errors as for `BoundaryIoU.update_state`."""
        truth, prediction = _regions(y_true, y_pred, self._confusion.num_classes)
        width = _pixels(self.share, truth.shape, least=2)
        is_thin = (truth != _NOWHERE) & ~_is_covered(truth, width)
        self._confusion.update_state(truth[is_thin], prediction[is_thin])
        self._num_labelled += int((truth != _NOWHERE).sum())

    def result(self) -> np.ndarray:
        """Counts of the thin pixels, int64 [K, K], rows truth, columns prediction."""
        return self._confusion.result()

    def summary(self, class_names) -> dict:
        """{"thin_iou", "thin_recall": means over the classes with thin pixels, "thin_share": of the
        labelled pixels, "per_class_thin_iou": {name: figure}}, None for what is undefined.
        """
        matrix = self.result()
        has_truth = matrix.sum(axis=1) > 0
        per_class = np.where(has_truth, metrics.per_class_iou(matrix), np.nan)
        figures = {
            "thin_iou": metrics.mean_of_numbers(per_class),
            "thin_recall": metrics.mean_accuracy(matrix),
            "thin_share": metrics.ratio(matrix.sum(), self._num_labelled),
        }
        return {
            **{name: metrics.number_or_none(figure) for name, figure in figures.items()},
            "per_class_thin_iou": metrics.by_name(class_names, per_class),
        }


def _check(num_classes, share):
    if not 1 <= num_classes <= _NOWHERE:
        raise ValueError(f"num_classes must be 1 to {_NOWHERE}. Received {num_classes}.")
    if not 0 < share < 1:
        raise ValueError(f"share of the diagonal must lie between 0 and 1. Received {share}.")


def _regions(y_true, y_pred, num_classes):
    """Both maps as uint8 [H, W], with _NOWHERE where the truth is no class."""
    truth, prediction, is_labelled = metrics.checked_maps(y_true, y_pred, num_classes)
    if truth.ndim != 2:
        raise ValueError(
            f"Contours need one image at a time, class ids [height, width]. Received {truth.shape}."
        )
    return [np.where(is_labelled, ids, _NOWHERE).astype(np.uint8) for ids in (truth, prediction)]


def _pixels(share, size, least):
    return max(least, round(share * float(np.hypot(*size))))


def _is_uniform_around(regions, distance):
    """bool [H, W]: all pixels within `distance` rows and columns are of the pixel's own region."""
    padded = np.pad(regions, distance, constant_values=_NOWHERE)
    return _is_uniform(padded, 2 * distance + 1)


def _is_covered(regions, width):
    """bool [H, W]: some square of `width` pixels that holds the pixel lies within its region."""
    padded = np.pad(regions, width - 1, constant_values=_NOWHERE)
    return _extreme(np.maximum, _is_uniform(padded, width), width)


def _is_uniform(regions, width):
    """bool [H - width + 1, W - width + 1]: the square that begins at a pixel holds one value."""
    return _extreme(np.minimum, regions, width) == _extreme(np.maximum, regions, width)


def _extreme(function, values, width):
    """np.minimum or np.maximum over all squares of `width` pixels, [H - width + 1, W - width + 1].

    Along each axis, windows of 2, 4, 8, ... pixels come from two of half the size, and the last one
    from two that overlap.
    """
    for axis in (0, 1):
        values = np.moveaxis(values, axis, 0)
        reached = 1
        while reached < width:
            step = min(reached, width - reached)
            values = function(values[:-step], values[step:])
            reached += step
        values = np.moveaxis(values, 0, axis)
    return values
