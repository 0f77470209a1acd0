"""The settings of a stage as an augmentation."""

import dataclasses

import numpy as np
import pytest

from pipelines import amounts
from trainers import config
from trainers.training.amounts import of_stage


def test_every_amount_is_a_setting_of_the_stage_that_can_use_it():
    names = {field.name for field in dataclasses.fields(amounts.Augmentation)}
    settings = config.Experiment()
    assert {field.name for field in dataclasses.fields(settings.segment.augment)} == names
    of_patches = {field.name for field in dataclasses.fields(settings.mm.augment)}
    assert of_patches == names - {"mix", "mix_share"}


@pytest.mark.parametrize("stage", ["mm", "segment"])
def test_single_amounts_replace_the_amounts_of_the_strength(stage):
    values = {f"{stage}.augmentation": "strong", f"{stage}.augment.rotation": 45.0}
    values[f"{stage}.augment.hue"] = 0.0
    made = of_stage(getattr(config.changed(config.Experiment(), values), stage))
    expected = dataclasses.replace(amounts.STRENGTHS["strong"], rotation=45.0, hue=0.0)
    assert made == expected


def test_amounts_have_the_same_bounds_in_settings_and_pipelines():
    for name, bounds in amounts.BOUNDS.items():
        for value in bounds:
            key = f"segment.augment.{name}"
            of_stage(config.replace(config.Experiment(), key, value).segment)
            with pytest.raises(config.ConfigError):
                config.replace(config.Experiment(), key, value + np.sign(value - 0.25) * 20)
