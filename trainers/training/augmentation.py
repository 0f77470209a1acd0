"""Pictures of augmented crops, and the number of crops that stay as they are."""

import dataclasses
import math

import tensorflow as tf

from mm_keras import visualize
from pipelines import batches, datasets
from trainers.training.loop import Loop

NUM_SHOWN = 8
"""Crops in the picture."""

NUM_COUNTED = 200
"""Images of which the ones without augmentation are counted, at most one epoch."""


def show_first_crops(loop: Loop, spec: datasets.DatasetSpec):
    """Write crops of the first step and their label maps to TensorBoard.

    Args:
        loop: the loop of stage segment. Its data are the batches of `pipelines.batches.crops`.
        spec: names and colors of the classes.
    """
    if loop.settings.steps == 0:
        return
    batch = next(iter(loop.data(0, loop.replicas.shares[0])))
    images, labels = (batch[key][:NUM_SHOWN].numpy() for key in ("image", "label"))
    picture = visualize.crop_gallery(images, labels, spec.colors, spec.class_names)
    with loop.writer.as_default(step=0):
        tf.summary.image(f"{loop.stage}/crops", picture[None])


def unaugmented(
    split: datasets.Split, view: batches.View, order: batches.Order, changes: batches.Augmentation
) -> str | None:
    """Return a line for the log if the geometry of some images cannot be changed, else None.

    No draw of their geometry left a labelled pixel in the crop, so they are shown without
    augmentation.

    Args:
        split: the images.
        view, changes: as in `pipelines.batches.crops`.
        order: the order of the stage. Its first `NUM_COUNTED` images are counted, at most one
            epoch.
    """
    if not changes.changes_geometry:
        return None
    num_steps = math.ceil(min(len(split.ids), NUM_COUNTED) / order.num_images)
    first = dataclasses.replace(order, share=batches.WHOLE, start_step=0, num_steps=num_steps)
    number = batches.num_unaugmented(split, view, first, changes)
    if not number:
        return None
    return (
        f"{number} of the first {num_steps * order.num_images} crops are shown without "
        "augmentation, because no draw left a labelled pixel in them. Their labels are sparse: "
        "smaller changes of size and angle keep more of them."
    )
