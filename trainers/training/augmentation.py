"""The augmentation that the settings of a stage ask for."""

import dataclasses

from pipelines import batches
from trainers import config


def of_stage(settings: config.Tune | config.Segment) -> batches.Augmentation:
    """Return the augmentation of a stage: its strength, with single amounts replaced.

    >>> settings = config.Experiment().segment
    >>> of_stage(settings) == batches.NONE
    True
    """
    return batches.of_strength(settings.augmentation, **dataclasses.asdict(settings.augment))
