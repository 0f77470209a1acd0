"""The pictures of a page: images with their truth and prediction, and the errors of each class."""

import numpy as np

from mm_keras import visualize
from pipelines import datasets
from trainers.reporting import run_table
from trainers.reporting.variants import Variant
from trainers.runs import examples
from trainers.runs.pictures import data_url

RIGHT, MISSED, WRONG = (46, 125, 50), (198, 40, 40), (245, 166, 35)
"""Colors of the pixels of a class: right, missed, and predicted where another class is true."""


def groups(variant: Variant, spec: datasets.DatasetSpec, side: int) -> list[dict]:
    """Return the pictures of a variant: best images, worst images, errors of each class.

    Args:
        variant: the variant.
        spec: facts of the data set.
        side: largest side of a picture in pixels.

    Returns:
        [{"title": ..., "pictures": [{"caption": ..., "panels": [data URLs]}]}].
    """
    stored = examples.load(variant.folder / "evaluate" / "examples.npz")
    found = []
    for key, title in (("best", "Best images"), ("worst", "Worst images")):
        pictures = [
            {
                "caption": f"{example.id}: mIoU {run_table.percent(example.score)}",
                "panels": [data_url(panel, side) for panel in _panels(example, spec)],
            }
            for example in stored.get(key, [])
        ]
        found.append({"title": title, "pictures": pictures})
    errors = [
        {
            "caption": f"{spec.class_names[k]}: {example.score:,.0f} wrong pixels, {example.id}",
            "panels": [data_url(_error_map(example, k), side)],
        }
        for k, example in sorted(
            (int(key.removeprefix("class")), group[0])
            for key, group in stored.items()
            if key.startswith("class")
        )
        if k < spec.num_classes
    ]
    return [*found, {"title": "Errors of each class", "pictures": errors}]


def _panels(example, spec):
    """Return the image, and its truth and its prediction over it."""
    maps = (example.truth, example.prediction)
    painted = (
        visualize.overlay(example.image, part, spec.colors, 0.6, spec.background_label)
        for part in maps
    )
    return [example.image, *painted]


def _error_map(example, label):
    """Paint right, missed and wrongly predicted pixels of a class over the gray image."""
    truth, prediction = example.truth == label, example.prediction == label
    kinds = np.full(truth.shape, 3)
    kinds[truth & prediction], kinds[truth & ~prediction] = 0, 1
    kinds[~truth & prediction & (example.truth != datasets.VOID)] = 2
    gray = example.image.mean(axis=-1, keepdims=True).astype(np.uint8).repeat(3, axis=-1)
    colors = (RIGHT, MISSED, WRONG, (0, 0, 0))
    return visualize.overlay(gray, kinds, colors, 0.7, clear=3)
