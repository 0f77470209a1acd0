"""Settings with their origins, and the files that they are written to and read from."""

import json

import pytest
import yaml

from trainers import config
from trainers.config import presets, resolved


def test_each_value_has_its_origin():
    settings = resolved.of_preset("quick").changed({"mm.margin": 1.5}, "flag")
    assert settings.origin("mm.margin") == "flag"
    assert settings.origin("mm.steps") == "preset quick"
    assert settings.origin("mm.momentum") == "default"
    lines = settings.as_yaml().splitlines()
    assert "mm.margin: 1.5  # flag" in lines and "mm.momentum: 0.9  # default" in lines


@pytest.mark.parametrize("name", presets.PRESETS)
def test_layers_give_the_settings_of_the_preset(name):
    assert resolved.of_preset(name).experiment == presets.experiment(name)


def test_a_preset_follows_the_backbone_that_is_given():
    settings = resolved.of_preset("quick", {"network.backbone": "alexnet"})
    assert settings.experiment.colorization.fc6_size == 6
    assert settings.experiment.network.backbone == "vgg16"  # it is set afterwards


def test_printed_settings_are_a_settings_file(tmp_path):
    settings = resolved.of_preset("release").changed({"evaluate.scales": "0.5,1"}, "flag")
    file = tmp_path / "settings.yaml"
    file.write_text(settings.as_yaml())
    values, preset = resolved.read_file(file)
    assert preset == "release"
    assert config.changed(config.Experiment(), values) == settings.experiment


def test_the_file_of_a_run_is_read_back(tmp_path):
    settings = resolved.of_preset("quick")
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(resolved.as_file(settings)))
    values, preset = resolved.read_file(file)
    assert preset == "quick"
    assert config.changed(config.Experiment(), values) == settings.experiment


def test_nested_and_flat_files_are_the_same(tmp_path):
    (tmp_path / "a.yaml").write_text("mm:\n  margin: 1.5\n  drops: [1, 2]\nseed: 3\n")
    (tmp_path / "b.json").write_text('{"mm.margin": 1.5, "mm.drops": [1, 2], "seed": 3}')
    first, second = (resolved.read_file(tmp_path / name) for name in ("a.yaml", "b.json"))
    assert first == second == ({"mm.margin": 1.5, "mm.drops": [1, 2], "seed": 3}, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("settings_format: 7\n", "settings_format 7; this program reads 1"),
        ("- a\n- b\n", "holds no settings"),
        ("", "holds no settings"),
        ("mm: [", "neither JSON nor YAML"),
        ("\x00", "neither JSON nor YAML"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, message):
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    with pytest.raises(config.ConfigError, match=message) as error:
        resolved.read_file(file)
    assert str(file) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(config.ConfigError, match="nothing.yaml cannot be read"):
        resolved.read_file(tmp_path / "nothing.yaml")


def test_a_file_that_asks_for_an_object_is_not_executed(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("seed: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(config.ConfigError, match="neither JSON nor YAML"):
        resolved.read_file(file)


def test_the_file_is_plain_yaml_and_holds_every_key():
    content = yaml.safe_load(resolved.of_preset("paper").as_yaml())
    assert set(content) == {"settings_format", "preset", *config.all_keys()}
