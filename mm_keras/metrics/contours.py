"""Scores of contours and of thin regions, which mIoU hardly measures.

Both check for each pixel whether a square around it lies within one region of a label map. It does
if the smallest and the largest class id in the square are equal. This check covers all classes at
once, and the number of passes grows with the logarithm of the side.

Pixels without a class, and the area outside an image, belong to no region. The scores use numpy on
the host, as `metrics.ConfusionMatrix` does.
"""

import numpy as np

from mm_keras.metrics import confusion

SHARE_OF_DIAGONAL = 0.02
"""Width of the band along contours as a share of the image's diagonal (Cheng et al., CVPR 2021).

Narrower regions are thin.
"""

_NOWHERE = 255  # the id of pixels of no region; class ids are smaller


class BoundaryIoU:
    """Compute the intersection over union of the bands along the contours of each class.

    Source: Cheng et al., "Boundary IoU", CVPR 2021.

    A pixel of class c is in the band of c if a pixel that is not of class c, or the outside of the
    image, lies within d rows and d columns of it (their released code: d erosions by 3 x 3 pixels),
    d = 2 % of the image's diagonal, rounded, at least 1. The IoU of a class is over the union of
    the true and the predicted band; intersections and unions are summed over all images.

    The paper has no void. Here pixels whose truth is void are removed from both maps before the
    bands are computed. They are not counted, and a prediction that is correct at all labelled
    pixels scores 1.

    Args:
        num_classes: number of classes, 1 to 255, void not counted.
        share: d as a share of the diagonal.

    Raises:
        ValueError: if `num_classes` or `share` is out of range.
    """

    def __init__(self, num_classes: int, share: float = SHARE_OF_DIAGONAL):
        _check(num_classes, share)
        self.num_classes, self.share = num_classes, share
        self._intersection, self._union = np.zeros((2, num_classes), np.int64)

    def update_state(self, y_true, y_pred):
        """Add one image.

        Args:
            y_true: integer [H, W], true class ids.
            y_pred: integer [H, W], predicted class ids.

        Raises:
            ValueError: see `metrics.ConfusionMatrix.update_state`; also if the maps have another
                rank.
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
        """Return float64 [K] in 0..1; NaN for a class with neither truth nor prediction."""
        return confusion.ratio(self._intersection, self._union)

    def summary(self, class_names) -> dict:
        """Return {"boundary_iou": mean over the classes, "per_class_boundary_iou": {name: value}}.

        Undefined values are None.
        """
        per_class = self.result()
        return {
            "boundary_iou": confusion.number_or_none(confusion.mean_of_numbers(per_class)),
            "per_class_boundary_iou": confusion.by_name(class_names, per_class),
        }

    def _counts(self, regions):
        return np.bincount(regions.ravel(), minlength=_NOWHERE + 1)[: self.num_classes]


class ThinRegions:
    """Measure thin regions: objects, their parts and gaps between them.

    The definition is ours. The M&M paper names thin objects as a failure (Figure 7) but does not
    measure them. A pixel of class c is thin if no square of w x w pixels that covers it lies within
    class c. These are the pixels that a morphological opening of the class by that square removes.
    w is 2 % of the image's diagonal, rounded, at least 2. The corners of a round region are thin
    too.

    The scores use the confusion matrix of the thin pixels of the truth, averaged over the classes
    that have any. The score of class c falls if its own thin pixels are missed, and if c is
    predicted at thin pixels of other classes (for example in the gap between two legs). Predictions
    in wide regions do not count.

    Args:
        num_classes: number of classes, 1 to 255, void not counted.
        share: w as a share of the diagonal.

    Raises:
        ValueError: if `num_classes` or `share` is out of range.
    """

    def __init__(self, num_classes: int, share: float = SHARE_OF_DIAGONAL):
        _check(num_classes, share)
        self.share = share
        self._confusion = confusion.ConfusionMatrix(num_classes)
        self._num_labelled = 0

    def update_state(self, y_true, y_pred):
        """Add one image. See `BoundaryIoU.update_state` for arguments and errors."""
        truth, prediction = _regions(y_true, y_pred, self._confusion.num_classes)
        width = _pixels(self.share, truth.shape, least=2)
        is_thin = (truth != _NOWHERE) & ~_is_covered(truth, width)
        self._confusion.update_state(truth[is_thin], prediction[is_thin])
        self._num_labelled += int((truth != _NOWHERE).sum())

    def result(self) -> np.ndarray:
        """Return the counts of the thin pixels, int64 [K, K], rows truth, columns prediction."""
        return self._confusion.result()

    def summary(self, class_names) -> dict:
        """Return "thin_iou", "thin_recall", "thin_share" and "per_class_thin_iou" in a dict.

        The first two are means over the classes with thin pixels. "thin_share" is a share of the
        labelled pixels. The last is {name: value}. Undefined values are None.
        """
        matrix = self.result()
        has_truth = matrix.sum(axis=1) > 0
        per_class = np.where(has_truth, confusion.per_class_iou(matrix), np.nan)
        figures = {
            "thin_iou": confusion.mean_of_numbers(per_class),
            "thin_recall": confusion.mean_accuracy(matrix),
            "thin_share": confusion.ratio(matrix.sum(), self._num_labelled),
        }
        return {
            **{name: confusion.number_or_none(figure) for name, figure in figures.items()},
            "per_class_thin_iou": confusion.by_name(class_names, per_class),
        }


def _check(num_classes, share):
    if not 1 <= num_classes <= _NOWHERE:
        raise ValueError(f"num_classes must be 1 to {_NOWHERE}. Received {num_classes}.")
    if not 0 < share < 1:
        raise ValueError(f"share of the diagonal must lie between 0 and 1. Received {share}.")


def _regions(y_true, y_pred, num_classes):
    """Return both maps as uint8 [H, W], with _NOWHERE where the truth is no class."""
    truth, prediction, is_labelled = confusion.checked_maps(y_true, y_pred, num_classes)
    if truth.ndim != 2:
        raise ValueError(
            f"Contours need one image at a time, class ids [height, width]. Received {truth.shape}."
        )
    return [np.where(is_labelled, ids, _NOWHERE).astype(np.uint8) for ids in (truth, prediction)]


def _pixels(share, size, least):
    return max(least, round(share * float(np.hypot(*size))))


def _is_uniform_around(regions, distance):
    """Return bool [H, W]: the square of radius `distance` lies within the pixel's region."""
    padded = np.pad(regions, distance, constant_values=_NOWHERE)
    return _is_uniform(padded, 2 * distance + 1)


def _is_covered(regions, width):
    """Return bool [H, W]: some square of side `width` around the pixel lies within its region."""
    padded = np.pad(regions, width - 1, constant_values=_NOWHERE)
    return _extreme(np.maximum, _is_uniform(padded, width), width)


def _is_uniform(regions, width):
    """Return bool [H - width + 1, W - width + 1]: the square from a pixel on has one value."""
    return _extreme(np.minimum, regions, width) == _extreme(np.maximum, regions, width)


def _extreme(function, values, width):
    """Apply np.minimum or np.maximum to all squares of `width`: [H - width + 1, W - width + 1].

    Along each axis, a window of 2, 4, 8, ... pixels combines two of half the size. The last window
    combines two that overlap.
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
