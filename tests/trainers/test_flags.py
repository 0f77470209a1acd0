"""Flags become settings: order, origins, settings files, ensembles."""

import json

import pytest

from trainers import config
from trainers import flags as run_flags
from trainers.config import presets, resolved


def test_set_wins_over_flags_and_flags_over_the_preset(flags):
    flags("--preset=paper", "--seed=3", "--set=seed=4", "--set=mm.steps=7")
    settings = run_flags.read()
    assert settings.experiment.seed == 4 and settings.experiment.mm.steps == 7
    assert settings.experiment.segment == presets.experiment("paper").segment
    assert settings.origin("seed") == settings.origin("mm.steps") == "flag"


def test_without_flags_the_settings_are_those_of_preset_quick(flags):
    flags()
    assert run_flags.read() == resolved.of_preset("quick")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set=mm.margin"], "--set takes KEY=VALUE. Received 'mm.margin'"),
        (["--set=mm.margn=1"], "Unknown config key 'mm.margn'. Did you mean mm.margin"),
        (["--preset=papr"], "Unknown preset 'papr'.* Did you mean paper"),
        (["--init=colorisation"], "Unknown network.init .* Did you mean colorization"),
        (["--config=nothing.yaml"], "nothing.yaml cannot be read"),
        (["--set=segment.drops=900"], "segment.drops=900 has no effect with segment.schedule=cos"),
    ],
)
def test_wrong_flags_are_named(flags, arguments, message):
    flags(*arguments)
    with pytest.raises(config.ConfigError, match=message):
        run_flags.read()


def test_a_settings_file_changes_its_preset_and_flags_change_the_file(flags, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: release\nmm.margin: 1.5\nseed: 2\nnetwork:\n  backbone: alexnet\n")
    flags(f"--config={file}", "--seed=3")
    settings = run_flags.read()
    assert settings.preset == "release"
    assert settings.experiment.mm.margin == 1.5 and settings.experiment.seed == 3
    assert settings.origin("mm.margin") == str(file) and settings.origin("seed") == "flag"
    # Preset release has further settings for AlexNet.
    assert settings.experiment.mm.num_images == 40


def test_the_settings_that_a_run_wrote_give_the_same_run(flags, tmp_path):
    flags("--preset=paper", "--set=mm.drops=1,2")
    first = run_flags.read()
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(resolved.as_file(first)))
    flags(f"--config={file}")
    assert run_flags.read().experiment == first.experiment
    assert run_flags.read().preset == "paper"


def test_all_problems_of_a_settings_file_are_named_at_once(flags, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("mm.margn: 2\nmm.steps: many\ndata: {holdout: -1}\n")
    flags(f"--config={file}")
    with pytest.raises(config.ConfigError) as error:
        run_flags.read()
    for word in (str(file), "Did you mean mm.margin", "mm.steps must be int", "data.holdout"):
        assert word in str(error.value)


@pytest.mark.slow
def test_an_ensemble_takes_the_settings_of_its_members(flags, members):
    workdirs = ",".join(map(str, members.values()))
    flags(f"--ensemble={workdirs}", "--set=evaluate.flip=true", "--eval_split=train")
    experiment = run_flags.read().experiment
    assert experiment.evaluate.flip and experiment.data.eval_split == "train"
    assert experiment.data.dataset == "folder" and len(experiment.ensemble) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set=network.width=1"], "network.width is fixed by the members"),
        (["--backbone=vgg16"], "network.backbone is fixed by the members"),
        (["--set=data.shorter_side=9"], "data.shorter_side is fixed by the members"),
        (["--set=data.pseudo_labels=a"], "data.pseudo_labels is fixed by the members"),
        (["--preset=paper"], "--preset has no meaning for an ensemble"),
        (["--config=a.yaml"], "--config has no meaning for an ensemble"),
    ],
)
def test_flags_that_an_ensemble_cannot_have_are_refused(flags, arguments, message):
    flags("--ensemble=a,b", *arguments)
    with pytest.raises(config.ConfigError, match=message):
        run_flags.read()
