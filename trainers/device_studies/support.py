"""The settings that a device study does not have are refused."""

from trainers import config
from trainers.config.keys import flatten
from trainers.training import amounts

STARTS = {"random": None, "colorization": "gray"}
"""{network.init that a device study can start from: pixels of its backbone}."""

_FIXED = (
    "colorization.enlarge",
    "colorization.targets",
    "data.pseudo_labels",
    "mm.background",
    "mm.chunk",
    "mm.min_share",
    "mm.rule",
    "network.channels",
    "network.init_weights",
    "network.rescale",
    "precision",
    "segment.frozen",
)
"""Keys that must have their defaults."""


def check(experiment: config.Experiment) -> None:
    """Raise an error if a setting asks for something that a device study leaves out.

    Args:
        experiment: the settings of a run.

    Raises:
        config.ConfigError: names the key.
    """
    if experiment.network.init not in STARTS:
        raise config.ConfigError(config.unknown("network.init", experiment.network.init, STARTS))
    if experiment.network.backbone.startswith("alexnet"):
        raise config.ConfigError(
            f"A device study does not renew the statistics of {experiment.network.backbone}: use "
            "network.backbone=vgg16."
        )
    received, defaults = flatten(experiment), flatten(config.Experiment())
    for key in _FIXED:
        if received[key] != defaults[key]:
            raise config.ConfigError(
                f"A device study has only {key}={defaults[key]}. Received {received[key]}."
            )
    for name in ("mm", "segment"):
        changes = amounts.of_stage(getattr(experiment, name))
        if changes.cutout * changes.cutout_share > 0 or changes.mixes_images:
            raise config.ConfigError(
                f"A device study has no cutout and no mix: set {name}.augment.cutout=0 and "
                f"{name}.augment.mix=0."
            )
