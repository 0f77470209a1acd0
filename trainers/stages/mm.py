"""Stage mm: tune the backbone by mix-and-match and write mm/backbone.weights.h5.

A softmax over patches leaves the vectors of its classes in mm/hubs.weights.h5.
"""

import tensorflow as tf

from mm_keras import layers, visualize
from trainers import config
from trainers.runs.files import save_weights
from trainers.runs.runtime import Runtime
from trainers.training import (
    hubs,
    initial_weights,
    optimization,
    patch_batches,
    probe,
    tuned_models,
)
from trainers.training.loop import Loop, Schedule

# Below these values the embeddings of all patches are practically equal.
_COLLAPSED_DISTANCE, _COLLAPSED_RANK = 1e-3, 1.05


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Tune for `mm.steps` steps, or continue an interrupted run.

    Returns:
        "seconds" of training. With a probe, "probe" has its scores at the start and at the end.
    """
    settings = experiment.mm
    with runtime.replicas.scope():
        model = _model(experiment, runtime)
    batches = patch_batches.Batches(experiment, runtime, model.backbone.spec.pad_color)
    probed = probe.of_stage(model, experiment, runtime)
    loop = Loop(
        runtime,
        Schedule("mm", settings),
        model,
        batches,
        on_log=_Watch(runtime, settings.learning_rate),
        shared_seeds=model.graph_seeds if settings.graph == "global" else [],
        validation=probed,
    )
    if not settings.steps:
        runtime.log("mm: no steps, so the first weights go to fine-tuning unchanged")
    _show_first_batch(loop, model, batches, runtime.dataset.spec)
    probed.write_start(loop.writer)
    seconds = loop.run()
    batches.log_service()
    scores = probed.finish(loop.writer)
    save_weights(model.backbone, runtime.folder("mm") / "backbone.weights.h5")
    hubs.save(model, runtime)
    return {"seconds": seconds} | ({"probe": scores} if scores else {})


def _model(experiment, runtime):
    settings = experiment.mm
    backbone = initial_weights.backbone(experiment, runtime)
    # With chunks, batch norm computes the statistics of each chunk, on any replica.
    if settings.graph == "global" and settings.chunk is None:
        layers.synchronize(backbone, runtime.replicas.count)
    model = tuned_models.build(experiment, runtime.dataset.spec.num_classes, backbone)
    optimization.compile_model(model, settings)
    return model


def _show_first_batch(loop, model, batches, spec):
    """Write the patches of the first step and some of their triplets to TensorBoard."""
    settings = loop.schedule.settings
    if settings.steps == 0 or tuned_models.takes_crops(settings):
        return
    batch = next(iter(batches.made_here(0, loop.replicas.shares[0])))
    patches, labels = batch["patches"].numpy(), batch["labels"].numpy()
    triplets = model.matching(labels, seed=0)
    names, colors = spec.class_names, spec.colors
    triplets = [vector.numpy() for vector in triplets]
    with loop.writer.as_default(step=0):
        gallery = visualize.patch_gallery(patches, labels, names, colors)
        tf.summary.image("mm/patches", gallery[None])
        gallery = visualize.triplet_gallery(patches, labels, triplets, names, colors)
        tf.summary.image("mm/triplets", gallery[None])


class _Watch:
    """Log once that the embeddings have collapsed."""

    def __init__(self, runtime, rate):
        self.runtime, self.rate, self.has_warned = runtime, rate, False

    def __call__(self, step, metrics):
        if not self.has_warned and collapsed(metrics):
            self.has_warned = True
            self.runtime.log(
                f"mm: at step {step} the embeddings have collapsed: those of all patches are "
                f"nearly equal (effective rank {metrics['effective_rank']:.2f}, repulsive distance "
                f"{metrics['negative_distance']:.1e}). The loss stays near "
                f"{metrics['loss']:.2f}. Check the labels, or use a lower learning rate: "
                + self.runtime.command("--stage=mm", f"--set=mm.learning_rate={self.rate / 10:g}")
            )


def collapsed(metrics: dict[str, float]) -> bool:
    """Return whether the metrics of a log interval show that all embeddings are equal."""
    is_point = (
        metrics["negative_distance"] < _COLLAPSED_DISTANCE
        and metrics["positive_distance"] < _COLLAPSED_DISTANCE
    )
    return is_point or metrics["effective_rank"] < _COLLAPSED_RANK
