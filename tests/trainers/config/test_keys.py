"""Settings as keys and values: reading, bounds, descriptions, sizes as shares."""

import json

import pytest

from trainers import config
from trainers.config import keys, presets


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("mm.margin", "1.5", 1.5),
        ("mm.margin", 2, 2.0),
        ("mm.steps", "7", 7),
        ("mm.drops", "10,20", (10, 20)),
        ("mm.drops", "", ()),
        ("mm.mirror", "false", False),
        ("mm.min_size", "64", 64),
        ("mm.min_size", "0.25", 0.25),
        ("data.shorter_side", "none", None),
        ("data.shorter_side", "180", 180),
        ("data.data_dir", "none", None),
        ("data.data_dir", "a/b", "a/b"),
        ("seed", 3, 3),
        ("evaluate.scales", "1,1.5", (1.0, 1.5)),
        ("evaluate.flip", "true", True),
        ("ensemble", "runs/a,runs/b", ("runs/a", "runs/b")),
    ],
)
def test_values_are_read_as_the_type_of_their_field(key, given, expected):
    value = config.flatten(config.replace(config.Experiment(), key, given))[key]
    expected = list(expected) if isinstance(expected, tuple) else expected
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mm.margn", "2", "Unknown config key 'mm.margn'. Did you mean mm.margin"),
        ("mm", "2", "Unknown config key 'mm'"),
        ("nothing", "2", "Unknown config key 'nothing'"),
        ("mm.steps", "2.5", "mm.steps must be int, at least 0. Received '2.5'"),
        ("mm.mirror", "maybe", "mm.mirror must be bool"),
        ("data.shorter_side", "small", "data.shorter_side must be none or int"),
        ("mm.drops", "1,x", "mm.drops must be"),
    ],
)
def test_wrong_keys_and_values(key, value, message):
    with pytest.raises(config.ConfigError, match=message):
        config.replace(config.Experiment(), key, value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mm.rule", "papr", "Unknown mm.rule 'papr'; known: paper, release. Did you mean paper"),
        ("precision", "float16", "Unknown precision .float16.; known: float32, mixed_float16"),
        ("evaluate.output_stride", 4, "Unknown evaluate.output_stride 4; known: 1, 2"),
        ("segment.steps", 0, "segment.steps must be int, at least 1. Received 0"),
        ("mm.learning_rate", -0.1, "mm.learning_rate must be float, at least 0. Received -0.1"),
        (
            "colorization.learning_rate",
            -1.0,
            "colorization.learning_rate must be float, at least 0",
        ),
        (
            "mm.learning_rate",
            float("nan"),
            "mm.learning_rate must be float, at least 0. Received nan",
        ),
        (
            "segment.crop",
            -4,
            "segment.crop must be int, at least 1, at most 16384 or float",
        ),
        ("mm.crop", 0, "mm.crop must be int, at least 1"),
        ("data.shorter_side", 0, "data.shorter_side must be none or int, at least 1"),
        (
            "mm.background_share",
            3.0,
            "mm.background_share must be float, at least 0, at most 1. Received 3.0",
        ),
        ("segment.dropout", 1.5, "segment.dropout must be float, at least 0, less than 1"),
        ("mm.drops", "20,10", "ascending"),
        ("mm.drops", "-3,5", "1 or more"),
        ("seed", -1, "seed must be int, at least 0"),
        ("mm.momentum", 1.5, "mm.momentum must be float, at least 0, at most 1"),
        ("segment.dropout", 1, "less than 1"),
        ("segment.crop", 10**9, "at most 16384"),
        ("evaluate.num_pictures", 10**9, "at most 1000"),
        (
            "data.num_train_images",
            0,
            "data.num_train_images must be none or int, at least 1. Received 0",
        ),
        ("data.holdout", -1, "data.holdout must be int, at least 0"),
        ("mm.chunk", 0, "mm.chunk must be none or int, at least 1. Received 0"),
        (
            "mm.graph",
            "globel",
            "Unknown mm.graph 'globel'; known: replica, global. Did you mean glo",
        ),
        ("strategy", "mirored", "Unknown strategy 'mirored'.* Did you mean mirrored"),
        ("segment.warmup", 1.0, "segment.warmup must be float, at least 0, less than 1"),
        ("timeout", 0, "timeout must be int, at least 1"),
        (
            "data.service",
            "localhost:5000",
            "data.service must be the dispatcher.s grpc://HOST:PORT",
        ),
        ("data.service", "grpc://a/b:1", "Received 'grpc://a/b:1'"),
    ],
)
def test_values_that_would_fail_later_are_refused(key, value, message):
    with pytest.raises(config.ConfigError, match=message):
        config.replace(config.Experiment(), key, value)


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_what_was_written_is_read_back(preset):
    experiment = presets.experiment(preset, "voc_sbd")
    experiment = config.replace(experiment, "evaluate.scales", "0.5,1")
    written = json.loads(json.dumps(config.flatten(experiment)))
    assert config.from_flat(written, "config.json") == experiment
    part = {key: value for key, value in written.items() if key.startswith("mm.")}
    assert config.from_flat(part, "config.json") == config.Experiment(mm=experiment.mm)


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"mm.margn": 2.1}, "Unknown config key 'mm.margn'. Did you mean mm.margin"),
        ({"mm.steps": [1]}, "mm.steps must be int"),
        ({"mm.drops": 7}, "mm.drops must be"),
        ({"segment.steps": 0}, "segment.steps must be int, at least 1"),
    ],
)
def test_what_another_version_wrote_is_refused(flat, message):
    with pytest.raises(config.ConfigError, match=f"a/config.json was written by.*{message}"):
        config.from_flat(flat, "a/config.json")


def test_shares_become_even_pixels_of_the_shorter_side():
    quick = presets.experiment("quick", "camvid")
    resolved = config.resolve(quick, shorter_side=360)  # shrunk to 180
    assert (resolved.mm.min_size, resolved.mm.max_size) == (30, 122)  # 64/375 and 256/375 of 180
    assert resolved.mm.crop == resolved.segment.crop == 180
    small = config.resolve(quick, shorter_side=3)
    assert small.mm.min_size == 2 and small.mm.max_size == 2
    paper = presets.experiment("paper", "camvid")
    assert config.resolve(paper, shorter_side=360) == paper


def test_defaults_are_values_that_the_settings_accept():
    for setting in keys.settings().values():
        assert keys.read(setting.key, setting.default) == setting.default


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("mm.margin", "float, more than 0"),
        ("data.shorter_side", "none or int, at least 1, at most 16384"),
        ("colorization.held_out", "float, more than 0, less than 1"),
        ("mm.drops", "a list of int"),
        ("mm.rule", "paper or release"),
        ("network.init", " or ".join(config.STARTS)),
        ("data.service", "none or str"),
    ],
)
def test_bounds_are_described_in_words(key, expected):
    assert keys.settings()[key].expected == expected


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("jigsaw.grey_share", 0.1, "'jigsaw.grey_share' is now called 'jigsaw.gray_share'"),
        ("jigsaw.placement", "centre", "'centre' is now 'center'"),
    ],
)
def test_old_spellings_are_refused_with_the_new_one(key, value, message):
    with pytest.raises(config.ConfigError, match=message):
        config.replace(config.Experiment(), key, value)


def test_groups_inside_of_a_stage_have_keys_with_three_parts():
    experiment = config.replace(config.Experiment(), "segment.augment.scale", "1.5")
    assert experiment.segment.augment.scale == 1.5 and experiment.mm.augment.scale is None
    written = json.loads(json.dumps(config.flatten(experiment)))
    assert written["segment.augment.scale"] == 1.5
    assert config.from_flat(written, "config.json") == experiment
    with pytest.raises(config.ConfigError, match="scale must be none or float, at least 1"):
        config.replace(experiment, "segment.augment.scale", 0.5)
    with pytest.raises(config.ConfigError, match="Did you mean segment.augment.hue"):
        config.replace(experiment, "segment.augment.hu", 0.1)
    with pytest.raises(config.ConfigError, match="Unknown config key 'segment.augment'"):
        config.replace(experiment, "segment.augment", 0.1)


def test_all_problems_are_named_in_one_message():
    values = {"mm.margn": 2, "mm.steps": -1, "seed": "x", "mm.margin": 1.5}
    with pytest.raises(config.ConfigError) as error:
        config.changed(config.Experiment(), values)
    for word in ("mm.margn", "Did you mean mm.margin", "mm.steps", "seed must be int"):
        assert word in str(error.value)


def test_records_made_in_python_are_checked_as_well():
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        config.Segment(steps=0)
    with pytest.raises(ValueError, match="valid number"):
        config.Tune(margin="2.1")


def test_settings_can_be_hashed_and_compared():
    assert config.Experiment() == config.Experiment() != config.Experiment(seed=1)
    assert hash(config.Experiment()) == hash(config.Experiment())
