"""Stage segment: fine-tune the segmenter and write segment/segmenter.weights.h5."""

from pipelines import batches
from trainers import config
from trainers.runs.files import save_weights
from trainers.runs.runtime import Runtime
from trainers.training import initial_weights, networks, seeds
from trainers.training.loop import Loop, Schedule


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Fine-tune for `segment.steps` steps, or continue an interrupted run.

    It starts from the backbone of stage mm. Variant "naive" starts from the first weights of stage
    mm.

    Returns:
        "seconds" of training.
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
            seed=seeds.data_seed(experiment.seed, "segment"),
            start_step=start_step,
            num_steps=settings.num_batches,
        )
        changes = batches.STRENGTHS[settings.augmentation]
        return batches.crops(runtime.dataset.train.labelled(), view, order, changes)

    seconds = Loop(runtime, Schedule("segment", settings), model, data).run()
    save_weights(model, runtime.folder("segment") / "segmenter.weights.h5")
    return {"seconds": seconds}


def _starting_point(experiment, runtime):
    if runtime.variant == "naive":
        return initial_weights.backbone(experiment, runtime)
    backbone = networks.backbone(experiment)
    backbone.load_weights(runtime.needed("mm", "backbone.weights.h5"))
    return backbone
