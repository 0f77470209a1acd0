"""The amounts of augmentation that the settings of a stage ask for."""

import dataclasses

from pipelines.amounts import Augmentation, of_strength
from trainers import config


def of_stage(settings: config.Tune | config.Segment) -> Augmentation:
    """Return the augmentation of a stage: its strength, with single amounts replaced.

    >>> of_stage(config.Experiment().segment) == of_strength("none")
    True
    """
    return of_strength(settings.augmentation, **dataclasses.asdict(settings.augment))
