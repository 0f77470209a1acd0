"""The cost of the losses of stage mm, without the network: forward and backward pass."""

import numpy as np

from trainers.benchmarks import cpu
from trainers.benchmarks.timing import Measurement, interleaved, medians
from trainers.config.schema import LOSSES

NODES = (160, 400, 4096)
"""Sizes of the batches: of the paper, of the released AlexNet files, and a tenfold one."""

FLATTENED, POOLED = 8192, 512
"""Length of a vector of VGG-16, patches of 128 pixels: pool5 flattened, and its mean."""

SMALL_MARGIN = "triplet_all at margin 0.5"
"""The form with sorted distances; see `mm_keras.losses.all_triplets_hinge`."""

NAMES = (*(name for name in LOSSES if name != "pixel_contrast"), SMALL_MARGIN)
"""The losses that are timed: all that take patches."""


def key(name: str, nodes: int) -> str:
    """Return the key of a line.

    >>> key("triplet_all at margin 0.5", 160)
    'loss_triplet_all_at_margin_0.5_160'
    """
    return f"loss_{name.replace(' ', '_')}_{nodes}"


def measure(scale: cpu.Scale, nodes: tuple[int, ...] = NODES) -> dict[str, Measurement]:
    """Time each loss in milliseconds of CPU time, beside a training step of the smallest batch.

    The time of the step is the time of a step of `scale.patches` patches, scaled to the number of
    nodes.

    Args:
        scale: network, patches and rounds.
        nodes: sizes of the batches, ascending.
    """
    model, batch = cpu.tuning(scale.backbone, scale.patches, scale.patch_size)
    tasks = {"step": cpu.compiled(lambda: model.train_step(batch))}
    for name in NAMES:
        for number in nodes:
            tasks[key(name, number)] = _task(name, number)
    times = medians(interleaved(tasks, scale.rounds), factor=1000)
    step = times.pop("step") * nodes[0] / scale.patches
    smallest = {key(name, nodes[0]) for name in NAMES}
    return {
        name: Measurement(figure, step if name in smallest else None)
        for name, figure in times.items()
    }


def _task(name, nodes):
    """Return a function that computes a loss and its gradients."""
    import tensorflow as tf

    from mm_keras.models import objective

    is_flat = name.startswith("triplet")
    margin = 0.5 if name == SMALL_MARGIN else 2.1
    built = objective.build(
        "triplet_all" if name == SMALL_MARGIN else name,
        cpu.NUM_CLASSES,
        projection=(256, 128) if name == "supcon" else (),
        triplets=objective.TripletSettings(margin=margin),
    )
    values = np.random.default_rng(0).random((nodes, FLATTENED if is_flat else POOLED))
    features = tf.constant(values.astype("float32"))
    labels = tf.constant(np.arange(nodes, dtype="int32") % cpu.NUM_CLASSES)
    built.build(features.shape)

    def body():
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss, _ = built(features, labels)
        return tape.gradient(loss, [features, *built.trainable_variables])

    return cpu.compiled(body)
