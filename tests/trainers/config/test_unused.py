"""Settings without effect are refused when a user gives them."""

import pytest

from mm_keras.models import objective
from trainers import config
from trainers.config import keys, resolved, unused


def check(preset="quick", **given):
    given = {key.replace("__", ".", 1): value for key, value in given.items()}
    unused.check(resolved.of_preset(preset).changed(given, "flag").experiment, given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"segment__drops": "1600"}, "segment.drops=1600 has no effect with segment.schedule=cosi"),
        ({"segment__drops": "9", "segment__schedule": "poly"}, "use segment.schedule=drops"),
        ({"segment__momentum": 0.5}, "segment.optimizer=adamw.*segment.optimizer=sgd"),
        ({"segment__num_points": 64}, "segment.head=unet.*segment.head=hypercolumn"),
        ({"preset": "paper", "segment__patience": 3}, "=0.*another segment.validate_every"),
        ({"preset": "paper", "data__validation_images": 5}, "data.validation=none"),
        ({"data__service": "grpc://a:1"}, "data.service=grpc://a:1 has no effect with mm.steps=0"),
        ({"data__pseudo_share": 0.2}, "with data.pseudo_labels=none"),
        ({"mm__margin": 1.0}, "mm.margin=1.0 has no effect with mm.steps=0"),
        ({"mm__loss": "softmax"}, "mm.loss=softmax has no effect with mm.steps=0"),
        ({"preset": "tuned", "mm__margin": 1.0}, "mm.loss=softmax.*=triplet or mm.loss=triplet_al"),
        ({"preset": "tuned", "mm__matching": "random_triplets"}, "mm.matching=random_triplets has"),
        ({"preset": "paper", "mm__warmup": 0.1}, "mm.schedule=drops.*=cosine or mm.schedule=poly"),
        ({"preset": "paper", "segment__backbone_rate": 0.1}, "segment.optimizer=sgd"),
        ({"preset": "paper", "segment__deep_supervision": 1, "segment__head": "fcn"}, "=fcn"),
    ],
)
def test_a_setting_without_effect_is_refused(given, message):
    with pytest.raises(config.ConfigError, match=message):
        check(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"segment__drops": "1600", "segment__schedule": "drops"},
        {"segment__drops": ""},
        {"segment__schedule": "drops", "segment__warmup": 0},
        {"segment__deep_supervision": 0, "segment__head": "hypercolumn"},
        {"segment__patience": 3},
        {"segment__patience": 3, "segment__validate_every": 0},
        {"mm__loss": "softmax", "mm__steps": 0},
        {"mm__loss": "softmax", "mm__steps": 9},
        {"preset": "naive", "mm__loss": "supcon", "mm__temperature": 0.2, "mm__steps": 0},
        {"preset": "tuned", "mm__loss": "softmax+triplet", "mm__margin": 1.0},
        {"preset": "paper", "segment__num_points": 64},  # the head follows from the backbone
        {"preset": "paper", "segment__decoder_width": 1.0},
    ],
)
def test_a_setting_with_effect_or_with_its_default_is_accepted(given):
    check(**given)


def test_all_keys_exist_and_name_existing_values():
    settings = keys.settings()
    for key, needs in ((key, one) for key, all_ in unused.NEEDS.items() for one in all_):
        assert key in settings and needs.key in settings
        if settings[needs.key].choices:
            assert set(needs.values) <= set(settings[needs.key].choices), key


@pytest.mark.parametrize(
    ("key", "losses"),
    [("mm.temperature", objective.TEMPERATURES), ("mm.loss_margin", objective.MARGINS)],
)
def test_the_losses_of_a_setting_are_those_of_the_objective(key, losses):
    assert set(unused.NEEDS[key][0].values) - {"pixel_contrast"} == set(losses)
