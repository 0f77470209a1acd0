"""Augmentation and sampling of patches that the settings of a stage ask for."""

import dataclasses

from pipelines.amounts import Augmentation, of_strength
from pipelines.patch_sampling import PatchSampling
from trainers import config


def of_stage(settings: config.Tune | config.Segment) -> Augmentation:
    """Return the augmentation of a stage: its strength, with single amounts replaced.

    >>> of_stage(config.Experiment().segment) == of_strength("none")
    True
    """
    return of_strength(settings.augmentation, **dataclasses.asdict(settings.augment))


def sampling(settings: config.Tune, background_label: int | None) -> PatchSampling:
    """Return how stage mm draws patches.

    Args:
        settings: settings of stage mm.
        background_label: id of the background class; None without one.

    Raises:
        ValueError: if a size or share is out of range.
    """
    return PatchSampling(
        patches_per_image=settings.patches_per_image,
        min_size=settings.min_size,
        max_size=settings.max_size,
        patch_size=settings.patch_size,
        rule=settings.rule,
        background_label=background_label,
        background_share=settings.background_share,
        class_balanced=settings.class_balanced,
        min_share=settings.min_share,
    )
