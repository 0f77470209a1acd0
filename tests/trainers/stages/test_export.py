"""Stage export: its files, and refusals before a network is loaded."""

import importlib.util
import json

import numpy as np
import pytest

import mm_keras
from trainers import config
from trainers.runs import stage_scope
from trainers.stages import export, find


@pytest.fixture
def experiment():
    return config.replace(config.Experiment(), "export.format", "onnx")


def test_onnx_without_its_packages_names_the_extra(experiment, make_runtime, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(config.ConfigError, match=r'pip install -e ".\[onnx\]"'):
        export.run(experiment, make_runtime(tmp_path))


def test_onnx_with_windows_is_refused(experiment, make_runtime, tmp_path):
    experiment = config.replace(experiment, "evaluate.window", 512)
    with pytest.raises(config.ConfigError, match="Set evaluate.window=none"):
        export.run(experiment, make_runtime(tmp_path))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("export.format", "onyx"),
        ("export.format", "onnx,onnx"),
        ("export.size", "360"),
        ("export.size", "360,0"),
    ],
)
def test_unknown_formats_and_sizes_are_refused(key, value):
    with pytest.raises(config.ConfigError, match=f"{key} must be .* Received"):
        config.replace(config.Experiment(), key, value)


def test_formats_and_size_are_lists():
    experiment = config.replace(config.Experiment(), "export.format", "saved_model,litert")
    assert experiment.export.format == ("saved_model", "litert")
    assert config.replace(experiment, "export.size", "360,480").export.size == (360, 480)


@pytest.mark.slow  # saves a model
def test_the_exported_model_knows_its_classes(members, make_runtime, tmp_path):
    workdir = members["gray"]
    experiment = config.from_flat(
        {
            key: value
            for key, value in json.loads((workdir / "segment" / "config.json").read_text()).items()
            if key in config.all_keys()
        },
        "test",
    )
    run = make_runtime(workdir)
    stage_scope.run_stage(find("export"), experiment, run)
    predictor = mm_keras.load_predictor(workdir)
    assert predictor.classes == export.class_table(run.dataset.spec)
    image = np.random.default_rng(0).integers(0, 256, (30, 44, 3)).astype("uint8")
    class_ids, probability = predictor(image)
    assert class_ids.shape == probability.shape == (30, 44)
    np.testing.assert_array_equal(predictor.probabilities(image).argmax(-1), class_ids)
