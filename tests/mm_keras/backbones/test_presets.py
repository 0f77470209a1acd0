"""Preset folders: accepted classes, settings and pixels, and damaged folders."""

import json

import pytest

from mm_keras import backbones
from mm_keras.backbones import presets

SETTINGS = {"patch_size": 14, "num_layers": 2, "hidden_dim": 32, "image_shape": [70, 70, 3]}


def _write(folder, config, **files):
    folder.mkdir(exist_ok=True)
    for name, content in {"config": config, **files}.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.json").write_text(text)
    return folder


def _keras(class_name="DINOV2Backbone", **settings):
    common = {"name": "a", "dtype": {"class_name": "DTypePolicy"}, "dropout_rate": 0.5}
    return {
        "registered_name": f"keras_hub>{class_name}",
        "config": common | SETTINGS | settings,
    }


def test_settings_of_keras_hub_are_read_without_name_precision_and_dropout(tmp_path):
    preset = presets.read(_write(tmp_path / "a", _keras()))
    assert (preset.class_name, preset.is_keras, preset.pixels) == ("DINOV2Backbone", True, None)
    assert preset.arguments == SETTINGS


def test_a_folder_of_hugging_face_is_recognized_by_its_model_type(tmp_path):
    config = {"model_type": "dinov2_with_registers", "hidden_size": 32, "id2label": {"0": "x"}}
    preset = presets.read(_write(tmp_path / "a", config))
    assert (preset.class_name, preset.is_keras) == ("DINOV2Backbone", False)
    assert "id2label" not in preset.arguments


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("image_converter", {"config": {"scale": [0.1, 0.2, 0.5], "offset": [-1.0, -2.0, -3.0]}}),
        (
            "image_converter",
            {"config": {"scale": 1, "mean": [10.0, 10.0, 6.0], "variance": [100, 25, 4]}},
        ),
        (
            "preprocessor_config",
            {"rescale_factor": 1, "image_mean": [10.0, 10.0, 6.0], "image_std": [10, 5, 2]},
        ),
    ],
)
def test_pixels_follow_the_file_of_the_folder(tmp_path, name, content):
    pixels = presets.read(_write(tmp_path / "a", _keras(), **{name: content})).pixels
    assert pixels.scale == pytest.approx((0.1, 0.2, 0.5))
    assert pixels.mean == pytest.approx((1.0, 2.0, 3.0))
    assert (pixels.color, pixels.pad_color) == ("rgb", (10, 10, 6))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "config.json: is no JSON file"),
        ("[" * 100_000, "config.json: is no JSON file"),
        ("[]", r"config.json: must be an object. Received \[\]"),
        ({}, "another kind of network: None. Expected one of dinov2, "),
        (_keras("GemmaBackbone"), "another kind of network: 'keras_hub>GemmaBackbone'"),
        (
            {"registered_name": "builtins>eval", "config": {}, "module": "builtins"},
            "another kind of network: 'builtins>eval'. Expected one of DINOV2Backbone",
        ),
        ({"model_type": "llama"}, "another kind of network: 'llama'"),
        ({"registered_name": "keras_hub>ViTBackbone"}, "'config' must be an object. Received None"),
        (_keras(hidden_dim={"class_name": "Lambda"}), "hidden_dim must be a number, a word or"),
        (_keras(hidden_dim=10**9), "hidden_dim must be at most 16384. Received 1000000000"),
        (_keras(image_shape=[float("inf"), 1, 3]), "image_shape must be at most 16384"),
        (_keras(image_shape=[float("nan"), 1, 3]), "image_shape must be at most 16384"),
        (" " * (2 << 20), "larger than 1048576 bytes"),
    ],
)
def test_damaged_and_foreign_folders_are_rejected(tmp_path, config, message):
    folder = _write(tmp_path / "a", config)
    with pytest.raises(ValueError, match=message) as caught:
        presets.read(folder)
    assert str(folder / "config.json") in str(caught.value)


@pytest.mark.parametrize(
    "converter",
    [
        {"config": {"scale": 0}},
        {"config": {"scale": [1, 2]}},
        {"config": {"scale": "much"}},
        {"config": None},
        {},
    ],
)
def test_unusable_pixels_are_rejected(tmp_path, converter):
    folder = _write(tmp_path / "a", _keras(), image_converter=converter)
    with pytest.raises(ValueError, match="image_converter.json: has no usable scale and offset"):
        presets.read(folder)


def test_a_missing_folder_and_a_folder_without_settings_are_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere: there is no such folder"):
        presets.read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="config.json: there is no such file"):
        presets.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "is_folder"),
    [("dinov2_small", False), ("my/dinov2", True), ("/a/b", True), (".", True)],
)
def test_paths_are_distinguished_from_names(name, is_folder):
    assert presets.is_folder(name) == is_folder


def test_a_folder_applies_to_keras_hub_only(tmp_path):
    with pytest.raises(ValueError, match="folder applies to kerashub/NAME only"):
        backbones.check("applications/ResNet50", weights="pretrained", folder=str(tmp_path))
    with pytest.raises(ValueError, match="built with random weights"):
        backbones.check("testing", folder=str(tmp_path))
