"""Fine-tuning of the segmenter, for stages teacher and segment."""

import functools

import numpy as np

from mm_keras import losses
from pipelines import batches, datasets
from trainers import config
from trainers.runs import ensemble
from trainers.runs.files import save_weights
from trainers.runs.runtime import Runtime
from trainers.training import (
    amounts,
    augmentation,
    hubs,
    initial_weights,
    networks,
    optimization,
    seeds,
)
from trainers.training.loop import Loop, Schedule
from trainers.training.validation import NO_VALIDATION, Validation


def run(experiment: config.Experiment, runtime: Runtime, stage: str, split: datasets.Split) -> dict:
    """Fine-tune for `segment.steps` steps, or continue an interrupted run.

    It starts from the backbone of stage mm. Variant "naive" starts from the first weights of stage
    mm. It writes STAGE/segmenter.weights.h5.

    Args:
        experiment: the settings; both stages have the section `segment`.
        runtime: the run.
        stage: name of the stage.
        split: the images, each with at least one labelled pixel.

    Returns:
        "seconds" of training. With validation, "validation" describes how the weights were chosen.
    """
    settings = experiment.segment
    with runtime.replicas.scope():
        backbone = _starting_point(experiment, runtime)
        num_classes, loss = runtime.dataset.spec.num_classes, _loss(experiment, runtime)
        model = networks.segmenter(experiment, num_classes, backbone, loss)
        if settings.start_from_hubs and runtime.variant != "naive":
            hubs.load_into(model, runtime)
        optimization.compile_model(model, settings)

    view = batches.View(
        crop=settings.crop,
        shorter_side=experiment.data.shorter_side,
        mirror=settings.mirror,
        pad_color=backbone.spec.pad_color,
        rare_share=settings.rare_share,
    )
    changes = amounts.of_stage(settings)

    def order(start_step, share):
        return batches.Order(
            num_images=settings.num_images,
            share=share,
            seed=seeds.data_seed(experiment.seed, stage),
            start_step=start_step,
            num_steps=settings.num_batches,
        )

    @functools.cache  # the picture of the first crops and the loop share one graph
    def data(start_step, share):
        return batches.crops(split, view, order(start_step, share), changes)

    if note := augmentation.unaugmented(split, view, order(0, batches.WHOLE), changes):
        runtime.log(f"{stage}: {note}")
    validation = _validation(experiment, runtime, model)
    schedule = Schedule(stage, settings, "segment")
    loop = Loop(runtime, schedule, model, data, validation=validation)
    augmentation.show_first_crops(loop, runtime.dataset.spec)
    seconds = loop.run()
    save_weights(model, runtime.folder(stage) / ensemble.WEIGHTS)
    return {"seconds": seconds} | _report(validation, runtime, stage, seconds)


def _loss(experiment, runtime):
    """Return the loss over pixels, with the weights of the classes of the training images."""
    settings = experiment.segment
    loss = losses.PIXEL_LOSSES[settings.loss]
    if settings.class_weights == "none":
        return loss
    pixels = np.array(runtime.dataset.train.labelled().class_pixels)
    weights = losses.class_weights(pixels, settings.class_weights)
    return functools.partial(loss, class_weights=weights)


def _validation(experiment, runtime, model):
    split = runtime.dataset.validation
    if split is None or not experiment.segment.validate_every:
        return NO_VALIDATION
    return Validation(model, split, experiment, runtime.dataset.spec)


def _report(validation, runtime, stage, seconds) -> dict:
    """Return and log how the weights were chosen."""
    if not validation.is_on:
        return {}
    summary = validation.summary()
    is_best = summary["kept"] == "best"
    chosen_on_eval = is_best and runtime.dataset.validation.name == runtime.dataset.eval.name
    share = 100 * summary["seconds"] / max(seconds, 1e-9)
    kept = "the weights of this step are kept" if is_best else "the last weights are kept"
    warning = " This split is also the one that is reported." if chosen_on_eval else ""
    runtime.log(
        f"{stage}: best {summary['monitor']} {summary['best']:.3f} at step {summary['best_step']} "
        f"on {summary['split']}; {kept}; validation took {share:.0f} % of the time.{warning}"
    )
    return {"validation": summary | {"is_chosen_on_reported_split": chosen_on_eval}}


def _starting_point(experiment, runtime):
    if runtime.variant == "naive":
        return initial_weights.backbone(experiment, runtime)
    backbone = networks.backbone(experiment)
    backbone.load_weights(runtime.needed("mm", "backbone.weights.h5"))
    return backbone
