import pytest

from trainers import config
from trainers.config import presets
from trainers.device_studies import support


@pytest.mark.parametrize("name", ["quick", "standard", "detail", "photos", "tuned", "naive"])
@pytest.mark.parametrize("init", ["random", "colorization"])
def test_our_presets_are_supported(name, init):
    support.check(presets.experiment(name, init=init))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mm.rule", "release"),
        ("mm.min_share", 0.3),
        ("segment.frozen", True),
        ("network.init_weights", "weights.h5"),
        ("network.channels", 5),
        ("precision", "mixed_float16"),
        ("data.pseudo_labels", "rest"),
        ("colorization.targets", "histogram"),
    ],
)
def test_settings_that_would_have_no_effect_are_refused(key, value):
    experiment = config.changed(presets.experiment("tuned"), {key: value})
    with pytest.raises(config.ConfigError, match=f"has only {key}=.*Received {value}"):
        support.check(experiment)


def test_cutout_mix_other_starts_and_alexnet_are_refused():
    for changes, message in (
        ({"segment.augment.cutout": 0.2}, "segment.augment.cutout=0"),
        ({"segment.augment.mix": 0.2}, "no cutout and no mix"),
        ({"network.init": "jigsaw"}, "network.init"),
        ({"network.backbone": "alexnet"}, "alexnet"),
    ):
        with pytest.raises(config.ConfigError, match=message):
            support.check(config.changed(presets.experiment("tuned"), changes))
