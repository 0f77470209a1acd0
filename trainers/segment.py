"""Stage segment: fine-tunes the segmenter and leaves segment/segmenter.weights.h5."""

from pipelines import build
from trainers import config, initialization, networks
from trainers.loop import Loop
from trainers.runtime import Runtime, save_weights, stage


def run(experiment: config.Experiment, runtime: Runtime):
    """Fine-tunes for `segment.steps` steps, continuing an interrupted run.

    Starts from the backbone of stage mm; in the arm "naive", from the weights that stage mm started
    from.
    """
    settings = experiment.segment
    with stage(runtime, "segment", experiment) as results:
        with runtime.replicas.scope():
            backbone = _starting_point(experiment, runtime)
            model = networks.segmenter(experiment, runtime.dataset.spec.num_classes, backbone)
            networks.compile_model(model, settings)

        def data(start_step, share):
            return build.crops(
                runtime.dataset.train.labelled(),
                num_images=settings.num_images,
                crop=settings.crop,
                shorter_side=experiment.data.shorter_side,
                pad_colour=backbone.spec.pad_colour,
                mirror=settings.mirror,
                share=share,
                seed=experiment.seed,
                start_step=start_step,
                num_steps=settings.steps,
            )

        results["seconds"] = Loop(runtime, "segment", model, settings, data).run()
        save_weights(model, runtime.folder("segment") / "segmenter.weights.h5")


def _starting_point(experiment, runtime):
    if runtime.arm == "naive":
        return initialization.backbone(experiment, runtime)
    backbone = networks.backbone(experiment)
    backbone.load_weights(runtime.needed("mm", "backbone.weights.h5"))
    return backbone
