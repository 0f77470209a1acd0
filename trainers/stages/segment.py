"""Stage segment: fine-tunes the segmenter and leaves segment/segmenter.weights.h5."""

from pipelines import batches
from trainers import config
from trainers.runs.files import save_weights
from trainers.runs.runtime import Runtime
from trainers.training import initial_weights, networks
from trainers.training.loop import Loop


def run(experiment: config.Experiment, runtime: Runtime):
    """Fine-tunes for `segment.steps` steps, continuing an interrupted run.

    Starts from the backbone of stage mm; in the arm "naive", from the weights that stage mm started
    from.
    """
    settings = experiment.segment
    with runtime.replicas.scope():
        backbone = _starting_point(experiment, runtime)
        model = networks.segmenter(experiment, runtime.dataset.spec.num_classes, backbone)
        networks.compile_model(model, settings)

    def data(start_step, share):
        view = batches.View(
            crop=settings.crop,
            shorter_side=experiment.data.shorter_side,
            mirror=settings.mirror,
            pad_color=backbone.spec.pad_color,
        )
        order = batches.Order(
            num_images=settings.num_images,
            share=share,
            seed=experiment.seed,
            start_step=start_step,
            num_steps=settings.steps,
        )
        return batches.crops(runtime.dataset.train.labelled(), view, order)

    seconds = Loop(runtime, "segment", model, settings, data).run()
    save_weights(model, runtime.folder("segment") / "segmenter.weights.h5")
    return {"seconds": seconds}


def _starting_point(experiment, runtime):
    if runtime.variant == "naive":
        return initial_weights.backbone(experiment, runtime)
    backbone = networks.backbone(experiment)
    backbone.load_weights(runtime.needed("mm", "backbone.weights.h5"))
    return backbone
