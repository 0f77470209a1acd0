"""Amounts of augmentation: bounds, and which of them change an image."""

import dataclasses

import pytest

from pipelines import amounts
from pipelines.amounts import Augmentation, of_strength


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scale": 0.5}, "scale must lie in 1..16, got 0.5"),
        ({"aspect": 5.0}, "aspect"),
        ({"rotation": 200.0}, "rotation"),
        ({"hue": 0.6}, "hue"),
        ({"blur": -1.0}, "blur"),
        ({"mix_share": 1.1}, "mix_share"),
    ],
)
def test_wrong_amounts_raise_an_error_with_their_name(change, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**change)


def test_every_number_has_bounds():
    numbers = {f.name for f in dataclasses.fields(Augmentation) if f.type is not bool}
    assert numbers == set(amounts.BOUNDS)


def test_strength_none_changes_nothing_and_the_others_do():
    assert of_strength("none").changes_nothing
    for name in ("light", "strong"):
        assert of_strength(name).changes_geometry and of_strength(name).changes_colors


@pytest.mark.parametrize(
    "change, share",
    [
        ({"scale": 1.1}, None),
        ({"rotation": 1.0}, "rotation_share"),
        ({"hue": 0.1}, "color_share"),
        ({"blur": 1.0}, "blur_share"),
        ({"cutout": 0.1}, "cutout_share"),
    ],
)
def test_a_single_amount_with_a_share_is_enough_to_change_images(change, share):
    assert not Augmentation(**change).changes_nothing
    assert share is None or Augmentation(**change, **{share: 0.0}).changes_nothing
