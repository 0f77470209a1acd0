"""Evaluated images that a page shows, scaled down, in evaluate/examples.npz."""

import dataclasses
import functools
import pathlib

import numpy as np
from PIL import Image

from mm_keras import metrics, visualize
from trainers.runs import files

NUM_EXAMPLES = 6
"""Images with the best prediction, and as many with the worst one."""

_SIDE = 320  # pixels of the longer side of a stored image
_MOST_CLASSES = 30  # classes whose worst image is kept: 30 pictures stay below a third of 3 MB


@dataclasses.dataclass(frozen=True)
class Example:
    """An image with its truth and its prediction.

    Attributes:
        id: of the image.
        image: uint8 [H, W, bands]; a stored one has three bands.
        truth: class ids [H, W], 255 = void.
        prediction: class ids [H, W].
        score: mIoU of the image, or for a class the number of its wrong pixels at full size.
    """

    id: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    score: float = 0.0

    def small(self) -> "Example":
        """Return a copy with a longer side of at most 320 pixels."""
        height, width = self.truth.shape
        factor = min(1.0, _SIDE / max(height, width))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        nearest = Image.Resampling.NEAREST
        rgb = np.ascontiguousarray(visualize.as_rgb(self.image))
        image = Image.fromarray(rgb).resize(size, Image.Resampling.BOX)
        maps = (Image.fromarray(part.astype(np.uint8)) for part in (self.truth, self.prediction))
        maps = (np.asarray(part.resize(size, nearest)) for part in maps)
        return Example(self.id, np.asarray(image), *maps, self.score)


class Examples:
    """The images with the highest and the lowest mIoU, and the worst image of each class.

    Args:
        num_classes: number of classes.
        limit: number of images at each end.

    Attributes:
        best: the images with the highest mIoU, the highest first.
        worst: the images with the lowest mIoU, the lowest first.
        of_class: {class id: the image with the most wrong pixels of the class}. A pixel of another
            class that is predicted as the class is wrong as well.
    """

    def __init__(self, num_classes: int, limit: int = NUM_EXAMPLES):
        self.num_classes, self._limit = num_classes, limit
        self.best: list[Example] = []
        self.worst: list[Example] = []
        self.of_class: dict[int, Example] = {}

    def update(self, example: Example, confusion: np.ndarray) -> None:
        """Keep an image if it belongs to the examples.

        Args:
            example: the image at full size.
            confusion: its confusion matrix, integer [K, K].
        """
        small = functools.cache(example.small)  # many classes may keep one image
        miou = metrics.mean_iou(confusion)
        if not np.isnan(miou):
            self.best = self._with(self.best, small, miou, -1)
            self.worst = self._with(self.worst, small, miou, 1)
        hits = np.diagonal(confusion)
        errors = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * hits
        for k in np.flatnonzero(errors).tolist():
            if k not in self.of_class or errors[k] > self.of_class[k].score:
                self.of_class[k] = _scored(small(), errors[k])

    def _with(self, kept, small, score, sign):
        if len(kept) == self._limit and sign * score >= sign * kept[-1].score:
            return kept
        found = sorted([*kept, _scored(small(), score)], key=lambda other: sign * other.score)
        return found[: self._limit]

    def save(self, path: pathlib.Path) -> None:
        """Write an .npz file, complete or not at all."""
        worst = sorted(self.of_class.items(), key=lambda item: -item[1].score)[:_MOST_CLASSES]
        groups = {"best": self.best, "worst": self.worst}
        groups |= {f"class{k}": [example] for k, example in worst}
        arrays = {
            f"{name}/{number}/{part}": np.asarray(value)
            for name, group in groups.items()
            for number, example in enumerate(group)
            for part, value in vars(example).items()
        }
        files.save_arrays(path, **arrays)


def _scored(example, score):
    return dataclasses.replace(example, score=float(score))


def load(path: pathlib.Path) -> dict[str, list[Example]]:
    """Return the examples that `Examples.save` wrote.

    Returns:
        {"best", "worst" or "classK": examples}; empty if there is no such file.
    """
    if not path.exists():
        return {}
    groups: dict[str, dict[int, dict]] = {}
    with np.load(path, allow_pickle=False) as stored:
        for key in stored.files:
            name, number, part = key.split("/")
            value = stored[key]
            value = value.item() if not value.ndim else value
            groups.setdefault(name, {}).setdefault(int(number), {})[part] = value
    return {
        name: [Example(**parts) for _, parts in sorted(group.items())]
        for name, group in groups.items()
    }
