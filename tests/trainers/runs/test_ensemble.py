"""Ensembles: members read back from their folders, refused if they do not fit, averaged exactly."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines import datasets
from trainers import config
from trainers.runs import ensemble, files, records, runtime, stage_scope
from trainers.stages import STAGES, find
from trainers.training import networks


@pytest.fixture
def both(members):
    return ensemble.of_workdirs([str(folder) for folder in members.values()])


def _images(dataset):
    return [example["image"][None] for example in datasets.examples(dataset.eval)]


def _probabilities(experiment, run, images):
    predictor = networks.predictor(experiment, run)
    return [predictor.probabilities(image).numpy() for image in images]


def test_members_come_back_as_they_were_trained(both):
    gray, color = ensemble.parts(both)
    assert (gray.network.pixels, gray.data.shorter_side, gray.seed) == ("gray", 24, 1)
    assert (color.network.width, color.precision) == (0.5, "mixed_bfloat16")
    assert gray.segment.steps == 1 and gray.network.backbone == "testing"
    changed = config.replace(both, "evaluate.output_stride", 1)
    assert [part.evaluate.output_stride for part in ensemble.parts(changed)] == [1, 1]


@pytest.mark.slow
def test_the_ensemble_and_its_saved_model_are_the_mean_of_the_members(
    both, members, make_runtime, tiny_dataset, tmp_path
):
    images = _images(tiny_dataset)
    single = [
        _probabilities(
            dataclasses.replace(part, evaluate=both.evaluate),
            make_runtime(members[name].parent).naive(),
            images,
        )
        for name, part in zip(members, ensemble.parts(both), strict=True)
    ]
    assert np.abs(single[0][0] - single[1][0]).max() > 1e-3
    run = make_runtime(tmp_path)
    records.check_workdir(run, both, STAGES, ["evaluate", "export"])
    for name in ("evaluate", "export"):
        stage_scope.run_stage(find(name), both, run)
    saved = tf.saved_model.load(str(run.folder("export") / "saved_model"))
    serve = saved.signatures["serve_probabilities"]
    for k, live in enumerate(_probabilities(both, run, images)):
        expected = np.mean([answers[k] for answers in single], axis=0)
        np.testing.assert_allclose(live, expected, atol=1e-6)
        served = serve(images=tf.constant(images[k]))["probabilities"]
        np.testing.assert_allclose(served, expected, atol=1e-4)
    assert len(run.result("evaluate")["confusion_matrix"]) == 3


def test_each_member_keeps_its_precision(both, make_runtime, tmp_path):
    predictor = networks.predictor(both, make_runtime(tmp_path))
    policies = [model.backbone.dtype_policy.name for model in predictor.models]
    assert policies == ["float32", "mixed_bfloat16"]
    assert keras.config.dtype_policy().name == "float32"


def test_another_ensemble_or_a_member_trained_anew_is_refused(
    both, members, make_runtime, tmp_path
):
    copies = [tmp_path / name for name in members]
    for copy, folder in zip(copies, members.values(), strict=True):
        shutil.copytree(folder / "segment", copy / "segment")
    both = ensemble.of_workdirs([str(copy) for copy in copies])
    run = make_runtime(tmp_path / "own")
    files.write_json(_made(run, "evaluate"), records.record(both, find("evaluate"), run.dataset))
    records.check_workdir(run, both, STAGES, ["evaluate"])
    turned = dataclasses.replace(both, ensemble=both.ensemble[::-1])
    with pytest.raises(runtime.WorkdirError, match="ensemble: .* there, .* asked for"):
        records.check_workdir(run, turned, STAGES, ["evaluate"])
    _change(copies[0], {"segment.steps": 2})
    with pytest.raises(runtime.WorkdirError, match="gray segment.steps: 1 there, 2 asked for"):
        records.check_workdir(run, both, STAGES, ["evaluate"])


def _made(run, stage):
    run.folder(stage).mkdir(parents=True)
    return run.folder(stage) / "config.json"


def _change(workdir, changes, drop=()):
    path = workdir / "segment" / "config.json"
    flat = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in flat.items() if key not in drop}))


@pytest.fixture
def copies(members, tmp_path):
    """Working folders with nothing but the members' records."""
    for name, folder in members.items():
        (tmp_path / name / "segment").mkdir(parents=True)
        shutil.copy(folder / "segment" / "config.json", tmp_path / name / "segment")
    return {name: tmp_path / name for name in members}


def test_members_of_other_classes_are_refused_with_both_names(copies):
    _change(copies["color"], {"classes": ["ground", "sea", "sky"]})
    message = r"color has other classes than .*gray: class 1 is sea, not wall\. "
    with pytest.raises(runtime.WorkdirError, match=message):
        ensemble.of_workdirs(list(map(str, copies.values())))
    _change(copies["color"], {"classes": ["ground", "wall"]})
    with pytest.raises(runtime.WorkdirError, match="class 2 is missing, not sky"):
        ensemble.of_workdirs(list(map(str, copies.values())))


def test_members_of_other_classes_than_the_data_set_are_refused(both):
    ensemble.check_classes(both, "folder", ("ground", "wall", "sky"))
    with pytest.raises(runtime.WorkdirError, match="gray.* than data set camvid: class 0 is gro"):
        ensemble.check_classes(both, "camvid", ("road", "wall", "sky"))


@pytest.mark.parametrize(
    ("changes", "drop", "message"),
    [
        ({"network.depth": 3}, (), "another version.*Unknown config key 'network.depth'"),
        ({"network.width": "wide"}, (), "another version.*network.width must be float"),
        ({"segment.steps": 0}, (), "another version.*segment.steps must be int, at least 1"),
        ({}, ("classes",), "names no classes"),
    ],
)
def test_records_that_cannot_be_read_are_named(copies, changes, drop, message):
    _change(copies["gray"], changes, drop)
    with pytest.raises(config.UserError, match=f"(?s)gray.segment.config.json.*{message}"):
        ensemble.of_workdirs(list(map(str, copies.values())))


def test_folders_that_are_no_runs_are_named(copies, tmp_path):
    with pytest.raises(runtime.WorkdirError, match="cannot be read .No such file.*stage segment"):
        ensemble.of_workdirs([str(copies["gray"]), str(tmp_path / "nothing")])
    (copies["gray"] / "segment" / "config.json").write_text("{")
    with pytest.raises(runtime.WorkdirError, match="is not JSON"):
        ensemble.of_workdirs(list(map(str, copies.values())))


def test_a_member_without_weights_names_the_stage_to_run(copies, make_runtime, tmp_path):
    experiment = ensemble.of_workdirs(list(map(str, copies.values())))
    with pytest.raises(runtime.WorkdirError, match="is missing: finish this run first: python -m"):
        networks.predictor(experiment, make_runtime(tmp_path / "own"))


def test_a_member_whose_weights_changed_is_refused(members, tmp_path):
    folders = [tmp_path / name / "naive" for name in members]
    for folder, member in zip(folders, members.values(), strict=True):
        shutil.copytree(member / "segment", folder / "segment")
    experiment = ensemble.of_workdirs(list(map(str, folders)))
    assert len(ensemble.weights(experiment)) == 2
    file = folders[1] / "segment" / ensemble.WEIGHTS
    file.write_bytes(file.read_bytes()[:-1])
    command = f"--workdir={folders[1].parent} --overwrite --stage=segment --compare"
    with pytest.raises(runtime.WorkdirError, match=command):
        ensemble.weights(experiment)


@pytest.mark.parametrize("workdirs", [["a"], ["a", "b", "a"], ["a", "a/"]])
def test_an_ensemble_needs_two_different_folders(workdirs):
    with pytest.raises(config.ConfigError, match="two or more different working folders"):
        ensemble.of_workdirs(workdirs)


def test_default_workdir_names_data_set_and_members():
    experiment = dataclasses.replace(
        config.Experiment(), ensemble=("runs/texture_scenes-vgg16-random-quick/", "elsewhere/b")
    )
    folder = ensemble.default_workdir(experiment)
    assert folder.as_posix() == "runs/texture_scenes-ensemble-vgg16-random-quick+b"


def test_sizes_that_the_protocol_fixes_are_refused_before_anything_is_read(both):
    networks.check(both)
    with pytest.raises(
        config.ConfigError, match="shorter_side=24. Use protocol 'native'.*evaluate.proto"
    ):
        networks.check(config.replace(both, "evaluate.protocol", "pascal"))
