"""Networks from settings: all stages build, load and compile their networks here."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import keras
import numpy as np
import rich.progress

from mm_keras import backbones, inference
from mm_keras.backbones import libraries
from mm_keras.inference import protocols
from mm_keras.models.segmenter import Segmenter
from mm_keras.weights import imagenet, sources
from pipelines import datasets
from trainers import config
from trainers.config import resolved
from trainers.runs import ensemble
from trainers.runs.runtime import Runtime
from trainers.training import hubs, proxy_tasks, segmenters

PUBLISHED = ("imagenet", "pretrained")
"""The inits whose weights a library publishes."""


def check(experiment: config.Experiment):
    """Raise an error if the networks of a run cannot be built, or cannot predict.

    The commands call it before any file is read or written.

    Args:
        experiment: the settings.

    Raises:
        config.ConfigError: the backbone refuses its arguments, or the init has no weights. The
            protocol does not allow a size or a scale. A member of an ensemble cannot be read. A
            decay of the rates over blocks without AdamW.
    """
    settings = experiment.evaluate
    for part in ensemble.parts(experiment):
        try:
            protocols.check(
                settings.protocol, part.data.shorter_side, settings.scales, settings.window
            )
        except ValueError as error:
            raise config.ConfigError(
                f"{error} (keys evaluate.protocol, evaluate.scales, evaluate.window, "
                "data.shorter_side)"
            ) from error
    if not experiment.ensemble:  # members were checked when they were trained
        _check_network(experiment.network)
        _check_layer_decay(experiment)


def with_possible_width(
    settings: resolved.Resolved, console: rich.console.Console
) -> resolved.Resolved:
    """Return the settings without the preset's `network.width` if a network has only one width.

    Args:
        settings: the settings. A width that a person chose is kept, and checked by `check`.
        console: prints a line if the width is left out.
    """
    network = settings.experiment.network
    is_published = network.init in PUBLISHED and network.init_weights is None
    has_width = backbones.has_width(network.backbone) and not is_published
    is_asked_for = not settings.origin("network.width").startswith("preset ")
    if network.width == 1 or is_asked_for or has_width:
        return settings
    subject = f"{network.backbone} with {network.init} weights comes in one width"
    console.print(f"{subject}: network.width={network.width} is left out", highlight=False)
    return settings.changed({"network.width": 1.0}, "derived")


def _check_network(network: config.Network):
    is_wrapped = libraries.is_wrapped(network.backbone)
    try:
        backbones.check(network.backbone, **_arguments(network))
        if network.init == "imagenet" and network.init_weights is None and not is_wrapped:
            imagenet.check(network.backbone, network.width)
    except ValueError as error:
        raise config.ConfigError(str(error)) from error
    if network.init == "pretrained" and not is_wrapped:
        raise config.ConfigError(
            f"network.init=pretrained is for the networks of other libraries: {network.backbone} "
            "has no such weights. Use network.backbone=applications/NAME or kerashub/NAME, or "
            "another init."
        )
    proxy_tasks.check_backbone(network.init, network.backbone)
    if has_preset_folder(network) or network.init_weights is None:
        return
    if network.init_source is not None and network.init_source not in sources.SOURCES:
        raise config.ConfigError(
            config.unknown("network.init_source", network.init_source, sources.SOURCES)
        )
    if not pathlib.Path(network.init_weights).is_file():
        raise config.ConfigError(
            f"network.init_weights={network.init_weights}: there is no such file. Expected a file "
            "with weights."
        )


def _check_layer_decay(experiment):
    for section in config.TRAINING:
        settings = getattr(experiment, section)
        if settings.layer_decay < 1 and settings.optimizer != "adamw":
            raise config.ConfigError(
                f"{section}.layer_decay={settings.layer_decay:g} needs {section}.optimizer=adamw. "
                f"Received {settings.optimizer}."
            )


def has_preset_folder(network: config.Network) -> bool:
    """Return whether `network.init_weights` is a preset folder of KerasHub, and no file."""
    is_hub = network.backbone.startswith("kerashub/") and network.init == "pretrained"
    return is_hub and network.init_weights is not None


def backbone(experiment: config.Experiment, load: bool = False) -> backbones.Backbone:
    """Return the backbone of a run.

    Args:
        experiment: the settings.
        load: whether to load the weights of a library that the init asks for; else all weights are
            random.

    Raises:
        config.ConfigError: settings that `check` refuses, a failed download, weights that cannot be
            read, images below the smallest size of the network, or a head that it cannot have.
    """
    # All stages and both variants start from the same random weights.
    keras.utils.set_random_seed(experiment.seed)
    network = experiment.network
    try:
        num_bands = network.channels or 3
        result = backbones.build(
            network.backbone, **_arguments(network), load=load, num_bands=num_bands
        )
    except ValueError as error:
        hint = " (key network.init_weights)" if network.init == "pretrained" else ""
        hint = hint if num_bands == 3 else " (key network.channels)"
        raise config.ConfigError(f"{error}{hint}") from error
    sides = {
        "mm.patch_size": experiment.mm.patch_size,
        "segment.crop": experiment.segment.crop,
        "evaluate.window": experiment.evaluate.window,
    }
    for key, side in sides.items():
        if side is not None and side < result.spec.min_size:
            raise config.ConfigError(
                f"{key} must be at least {result.spec.min_size} for {network.backbone}. "
                f"Received {side}."
            )
    _check_head(experiment, result.spec)
    return result


def _check_head(experiment, spec):
    """Raise an error before the first stage, and not when the segmenter is built."""
    strides = {tap.stride for tap in (*spec.taps, spec.embedding)}
    if experiment.segment.head == "unet" and len(strides) == 1:
        raise config.ConfigError(
            f"segment.head=unet needs maps of several strides, and {spec.name} has stride "
            f"{spec.embedding.stride} alone. Use segment.head=hypercolumn."
        )
    hubs.check(experiment, spec)


def _arguments(network):
    """Return the arguments of `backbones.build` and `check`."""
    is_wrapped = libraries.is_wrapped(network.backbone)
    pixels = network.pixels
    if pixels is None and not is_wrapped:
        pixels = proxy_tasks.pixels(network.init)
    is_asked_for = network.init in PUBLISHED and is_wrapped
    has_file = network.init_weights is not None and not has_preset_folder(network)
    return {
        "pixels": pixels,
        "width": network.width,
        "weights": network.init if is_asked_for and not has_file else None,
        "folder": network.init_weights if has_preset_folder(network) else None,
    }


def segmenter(
    experiment: config.Experiment,
    num_classes: int,
    body: backbones.Backbone | None = None,
    loss: Callable | None = None,
) -> Segmenter:
    """Return the segmenter of the kind that the spec of its backbone names.

    Args:
        experiment: the settings.
        num_classes: number of classes.
        body: the backbone; None for a new one with random weights.
        loss: the loss over pixels; None for cross-entropy without weights.

    `segment.frozen` freezes the backbone.
    """
    body = body or backbone(experiment)
    body.trainable = not experiment.segment.frozen
    return segmenters.build(experiment, body, num_classes, loss)


def predictor(
    experiment: config.Experiment, runtime: Runtime, stage: str = "segment"
) -> inference.Predictor:
    """Return the predictor with the weights of stage segment or teacher.

    The predictor of an ensemble has one network per member.

    Raises:
        WorkdirError: the stage is not done.
        config.ConfigError: a window that the network cannot have.
    """
    parts, settings = ensemble.parts(experiment), experiment.evaluate
    num_classes = runtime.dataset.spec.num_classes
    files = ensemble.weights(experiment) or [runtime.needed(stage, ensemble.WEIGHTS)]
    models = [_trained(part, num_classes, file) for part, file in zip(parts, files, strict=True)]
    try:
        return inference.Predictor(
            models,
            settings.protocol,
            shorter_side=[part.data.shorter_side for part in parts],
            flip=settings.flip,
            scales=settings.scales,
            window=settings.window,
            overlap=settings.overlap,
        )
    except ValueError as error:
        raise config.ConfigError(f"{error} (keys evaluate.window, evaluate.overlap)") from error


def predictions(
    predictor: inference.Predictor, runtime: Runtime, title: str
) -> Iterator[tuple[dict, np.ndarray]]:
    """Yield every example of the evaluation split with its predicted class ids.

    Args:
        predictor: predicts the class ids.
        runtime: the run, with its data set.
        title: text beside the progress bar.

    Yields:
        (example, class ids, int32 [H, W]).
    """
    split = runtime.dataset.eval
    for example in rich.progress.track(
        datasets.examples(split), title, total=split.num_images, console=runtime.console
    ):
        yield example, predictor.predict(example["image"][None]).class_ids[0].numpy()


def _trained(experiment: config.Experiment, num_classes: int, weights: pathlib.Path):
    with _precision(experiment.precision):
        model = segmenter(experiment, num_classes)
    model.load_weights(weights)
    return model


@contextlib.contextmanager
def _precision(name):
    """Set the precision of new layers inside the block; members of an ensemble may differ in it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def background_label(experiment: config.Experiment, spec: datasets.DatasetSpec) -> int | None:
    """Return the class that the patch sampler treats as background (setting `mm.background`)."""
    return 0 if experiment.mm.background == "class_zero" else spec.background_label
