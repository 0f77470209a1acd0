"""Where a network's first weights come from: `network.init` and `network.init_weights`.

The first that applies: a file (`network.init_weights`), the proxy stage of this working folder,
Keras' ImageNet weights, random weights. What was done is said in one line.
"""

import dataclasses

from mm_keras import weights
from mm_keras.backbones import Backbone
from trainers import config
from trainers.runtime import Runtime

def load(backbone: Backbone, experiment: config.Experiment, runtime: Runtime):
    """Gives a freshly built backbone the first weights of the run and says where they are from.

    Raises:
        WorkdirError: the proxy stage was not run; names the command.
        ConfigError: a file or a download that does not give these weights.
    """
    network = experiment.network
    if network.init_weights is not None:
        runtime.say(f"init: {network.init}, {_load_file(backbone, network)}")
    elif config.proxy_task(experiment):
        path = dataclasses.replace(runtime, arm="").needed("proxy", "backbone.weights.h5")
        backbone.load_weights(path)
        runtime.say(f"init: {network.init}, from the proxy stage, {path}")
    elif network.init == "imagenet":
        runtime.say(f"init: imagenet, {_load_imagenet(backbone)}")
    else:
        runtime.say(f"init: random weights of seed {experiment.seed}")


def _load_file(backbone, network) -> str:
    try:
        report = weights.load(backbone, network.init_weights, allow=network.init_allow)
    except weights.WeightsError as error:
        raise config.ConfigError(str(error)) from error
    return f"from {network.init_weights}: {report}"
