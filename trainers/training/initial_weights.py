"""The first weights of a network, as `network.init` and `network.init_weights` select them.

The first source that applies is used: a file or preset folder (`network.init_weights`), the proxy
stage of this working folder, the published weights of a library, filters from the training images,
random weights. The log line `init: ...` reports which weights were loaded.
"""

import dataclasses

from mm_keras import layers, weights
from mm_keras.backbones import Backbone, libraries
from mm_keras.weights import imagenet
from pipelines import batches
from trainers import config
from trainers.runs.runtime import Runtime
from trainers.training import data_dependent, networks, seeds

SOURCES = {
    "imagenet": ("caffe", "torchvision_vgg16", "torchvision_vgg16_bn", "torchvision_alexnet"),
    "colorization": ("larsson",),
    "jigsaw": ("noroozi",),
    "color_classes": ("zhang_color",),
    "split_brain": ("zhang_split_brain",),
    "context_encoder": ("pathak_context_encoder",),
    "bigan": ("donahue_bigan",),
}
"""{init: the sources of its published files}. Plain AlexNet files of several works look alike: the
init names the work. Files of M&M and of this library may hold any start."""

ANY_START = ("mm_release", "keras")

NUM_IMAGES = 16
"""Training images from which batch norms are set that the weights do not have."""


def backbone(experiment: config.Experiment, runtime: Runtime) -> Backbone:
    """Return the backbone with the first weights of the run.

    Args:
        experiment: the settings.
        runtime: the run; its working folder holds the proxy stage.

    Raises:
        WorkdirError: stage proxy was not run.
        ConfigError: a file without these weights, or a failed download.
    """
    is_published = _is_published(experiment.network)
    result = networks.backbone(experiment, load=is_published)
    origin = _published(result, experiment.network) if is_published else None
    runtime.log(f"init: {origin or _load(result, experiment, runtime)}")
    if experiment.network.rescale:
        files = runtime.dataset.train.image_files
        runtime.log(f"init: {data_dependent.rescale(result, files, experiment)}")
    return result


def _is_published(network) -> bool:
    """Return whether a library builds the network together with its weights."""
    has_file = network.init_weights is not None and not networks.has_preset_folder(network)
    is_wrapped = libraries.is_wrapped(network.backbone)
    return network.init in networks.PUBLISHED and is_wrapped and not has_file


def _published(body, network) -> str:
    name, folder = network.backbone, network.init_weights
    if not name.startswith("kerashub/"):
        return f"{network.init}, Keras' own weights of {name}"
    where = f" from {folder}" if folder else ""
    note = f"; their license is the {body.spec.license}" if body.spec.license else ""
    return f"{network.init}, weights of {name}{where}{note}"


def _load(body: Backbone, experiment, runtime) -> str:
    """Load weights into `body` and return their origin."""
    network = experiment.network
    if network.init_weights is not None:
        report = _load_file(body, network)
        return (
            f"{network.init} from {report}{_set_norms(body, experiment, runtime, report.identity)}"
        )
    if config.proxy_task(experiment):
        path = dataclasses.replace(runtime, variant="").needed("proxy", "backbone.weights.h5")
        body.load_weights(path)
        return f"{network.init}, from the proxy stage ({path})"
    if network.init == "imagenet":
        norms = _set_norms(body, experiment, runtime, None)
        return f"imagenet, {_load_imagenet(body)}{norms}"
    if network.init == "kmeans":
        files = runtime.dataset.train.image_files
        return data_dependent.initialize(body, files, experiment, network.filters)
    return f"random weights, seed {experiment.seed}"


def _load_file(body, network) -> weights.Report:
    try:
        among = SOURCES.get(network.init, ())
        return weights.load(
            body,
            network.init_weights,
            network.init_source,
            allow=network.init_allow,
            among=(*among, *ANY_START) if among else (),
        )
    except weights.WeightsError as error:
        hint = " (key network.init_source)" if "`source`" in str(error) else ""
        if network.width != 1:
            hint += (
                f"\nThe network has width {network.width}. Published weights need network.width=1."
            )
        raise config.ConfigError(f"{error}{hint}") from error


def _load_imagenet(body) -> str:
    try:
        return imagenet.load(body)
    except ValueError as error:
        raise config.ConfigError(str(error)) from error


def _set_norms(body, experiment, runtime, names) -> str:
    """Set batch norms from training images if the settings ask for it. Return a text for the log.

    Both variants of a run get the same images, placed as in stage mm but not mirrored.
    """
    if experiment.network.batch_norm == "identity" or names == []:
        return ""
    view = batches.View(
        crop=experiment.mm.crop,
        shorter_side=experiment.data.shorter_side,
        mirror=False,
        pad_color=body.spec.pad_color,
    )
    order = batches.Order(
        num_images=1, seed=seeds.data_seed(experiment.seed, "init"), num_steps=NUM_IMAGES
    )
    crops = batches.crops(runtime.dataset.train.labelled(), view, order)
    done = layers.set_to_statistics(body, (crop["image"].numpy() for crop in crops), names)
    return f"; {len(done)} batch norms set from {NUM_IMAGES} training images" if done else ""
