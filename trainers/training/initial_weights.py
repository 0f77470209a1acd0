"""The first weights of a network, as `network.init` and `network.init_weights` select them.

The first source that applies is used: a file (`network.init_weights`), the proxy stage of this
working folder, ImageNet weights, random weights. The log line `init: ...` reports which weights
were loaded.
"""

import dataclasses

from mm_keras import weights
from mm_keras.backbones import Backbone, libraries
from mm_keras.weights import imagenet
from trainers import config
from trainers.runs.runtime import Runtime
from trainers.training import networks


def backbone(experiment: config.Experiment, runtime: Runtime) -> Backbone:
    """Return the backbone with the first weights of the run.

    Args:
        experiment: the settings.
        runtime: the run; its working folder holds the proxy stage.

    Raises:
        WorkdirError: stage proxy was not run.
        ConfigError: a file without these weights, or a failed download.
    """
    result = networks.backbone(experiment)
    runtime.log(f"init: {_load(result, experiment, runtime)}")
    return result


def _load(body: Backbone, experiment, runtime) -> str:
    """Load weights into `body` and return their origin."""
    network = experiment.network
    if network.init_weights is not None:
        return f"{network.init} from {_load_file(body, network)}"
    if config.proxy_task(experiment):
        path = dataclasses.replace(runtime, variant="").needed("proxy", "backbone.weights.h5")
        body.load_weights(path)
        return f"{network.init}, from the proxy stage ({path})"
    if network.init == "imagenet":
        return f"imagenet, {_load_imagenet(body, experiment)}"
    return f"random weights, seed {experiment.seed}"


def _load_file(body, network) -> str:
    try:
        return str(weights.load(body, network.init_weights, allow=network.init_allow))
    except weights.WeightsError as error:
        hint = ""
        if network.width != 1:
            hint = (
                f"\nThe network has width {network.width}. Published weights need network.width=1."
            )
        raise config.ConfigError(f"{error}{hint}") from error


def _load_imagenet(body, experiment) -> str:
    name = experiment.network.backbone
    if libraries.is_wrapped(name):
        body.set_weights(networks.backbone(experiment, weights="imagenet").get_weights())
        return f"Keras' own weights of {name}"
    try:
        return imagenet.load(body)
    except ValueError as error:
        raise config.ConfigError(str(error)) from error
