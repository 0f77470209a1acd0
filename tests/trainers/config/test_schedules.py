"""Drops of the learning rate follow the steps of their stage."""

import pytest

from trainers import config
from trainers.config import resolved, schedules


def _changed(**values):
    settings = resolved.of_preset("release")
    values = {key.replace("__", "."): value for key, value in values.items()}
    return schedules.changed(settings, values, "flag")


def test_drops_keep_their_share_of_the_steps():
    settings = _changed(segment__steps=420)
    assert settings.experiment.segment.drops == (240, 360, 400)
    assert settings.origin("segment.drops") == "derived"
    assert settings.experiment.mm.drops == (6000,)


def test_text_is_read_before_drops_are_scaled():
    assert _changed(mm__steps="16000").experiment.mm.drops == (12000,)


def test_few_steps_keep_only_drops_that_happen():
    assert _changed(segment__steps=2).experiment.segment.drops == (1,)
    assert _changed(segment__steps=1).experiment.segment.drops == ()


def test_given_drops_are_kept():
    settings = _changed(mm__steps=100, mm__drops=(70,))
    assert settings.experiment.mm.drops == (70,)
    assert settings.origin("mm.drops") == "flag"


@pytest.mark.parametrize(
    "values", [{"mm__steps": 100, "mm__drops": (100,)}, {"mm__drops": (9000,)}]
)
def test_given_drops_after_the_last_step_are_refused(values):
    with pytest.raises(config.ConfigError, match="mm.drops.*beyond the last step"):
        _changed(**values)


def test_a_schedule_without_drops_ignores_them():
    settings = _changed(mm__schedule="cosine", mm__steps=10)
    assert settings.experiment.mm.drops == (6000,)
