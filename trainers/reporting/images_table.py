"""The table of the evaluated images: WORKDIR/results.csv, one row per image."""

import csv
import io
from collections.abc import Sequence

import numpy as np

from mm_keras import metrics
from trainers.reporting.variants import Variant


def as_csv(variants: Sequence[Variant], class_names: Sequence[str]) -> str:
    """Return one row per image: its id, and for each variant mIoU, accuracy and IoU per class.

    Scores are shares; a class without pixels has an empty cell. Empty if no confusion matrices of
    images are stored.
    """
    tables = [_per_image(variant) for variant in variants]
    if not all(tables):
        return ""
    names = ["miou", "pixel_accuracy", *(f"IoU {name}" for name in class_names)]
    titles = [v.title for v in variants] if len(variants) > 1 else [""]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["image", *(f"{title} {name}".strip() for title in titles for name in names)])
    for image_id in tables[0]:
        rows = (table.get(image_id, [""] * len(names)) for table in tables)
        writer.writerow([image_id, *(cell for row in rows for cell in row)])
    return buffer.getvalue()


def _per_image(variant) -> dict[str, list]:
    """Return {id: [mIoU, pixel accuracy, IoU of each class]}, empty cells for NaN."""
    path = variant.folder / "evaluate" / "per_image.npz"
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as stored:
        if "id" not in stored.files:
            return {}
        ids, matrices = stored["id"].tolist(), stored["confusion"]
    return {
        image_id: [
            "" if np.isnan(score) else round(float(score), 6)
            for score in (
                metrics.mean_iou(matrix),
                metrics.pixel_accuracy(matrix),
                *metrics.per_class_iou(matrix),
            )
        ]
        for image_id, matrix in zip(ids, matrices, strict=True)
    }
