"""Packing: shrink the images of a data set as a run does, and put them into one file."""

import numpy as np
import tensorflow as tf

from pipelines import datasets
from pipelines.batches import views
from trainers.device_studies import scenes


def pack(dataset: datasets.Dataset, shorter_side: int | None) -> scenes.Packed:
    """Return the images of a data set in arrays.

    Args:
        dataset: the data set, with RGB images.
        shorter_side: larger images are shrunk to it; None keeps all sizes.
    """
    splits = (dataset.train.labelled(), dataset.eval)
    parts = [_shrunk(split, shorter_side) for split in splits]
    maps = [label for _, labels in parts for label in labels]
    shape = tuple(np.max([label.shape for label in maps], axis=0).tolist())
    spec = dataset.spec
    return scenes.Packed(
        *(scenes.padded(images, labels, shape) for images, labels in parts),
        tuple(spec.class_names),
        spec.background_label,
    )


def _shrunk(split, shorter_side):
    view = views.View(crop=1, shorter_side=shorter_side)
    pairs = zip(split.image_files, split.label_files, strict=True)
    shown = [_show(*views.read(*pair), view) for pair in pairs]
    return [image for image, _ in shown], [label for _, label in shown]


def _show(image, label, view):
    size = views.scaled_size(tf.shape(label), view)
    if tf.reduce_all(size == tf.shape(label)):
        return image.numpy(), label.numpy()
    rows, columns = (
        (2 * tf.range(size[i]) + 1) * tf.shape(label)[i] // (2 * size[i]) for i in range(2)
    )
    shrunk = views.scaled_part(image, size, tf.zeros_like(size), size)
    return shrunk.numpy(), tf.gather(tf.gather(label, rows), columns, axis=1).numpy()
