"""A run from Python: results, files, continuation, refusals."""

import dataclasses
import io
import json
import re

import pytest
import rich.console

from trainers import config, experiment
from trainers.config import resolved
from trainers.runs.provenance import Origin
from trainers.runs.runtime import WorkdirError


@pytest.fixture(scope="module")
def settings(tiny_data):
    base = config.Experiment()
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, dataset="folder", data_dir=str(tiny_data)),
        network=dataclasses.replace(base.network, backbone="testing"),
        mm=dataclasses.replace(base.mm, steps=0, drops=(), num_images=2, patch_size=16, crop=24),
        segment=dataclasses.replace(base.segment, steps=1, drops=(), num_images=2, crop=24),
        evaluate=dataclasses.replace(base.evaluate, boundary=False),
    )


@pytest.fixture(scope="module")
def done(settings, tmp_path_factory):
    """(workdir, results, printed text) of a run with and without M&M."""
    folder = tmp_path_factory.mktemp("experiment")
    console = rich.console.Console(file=io.StringIO(), width=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(folder / "records"))
        results = experiment.run_experiment(
            settings,
            stages=["mm", "segment", "evaluate"],
            workdir=folder / "run",
            compare=True,
            console=console,
            origin=Origin("quick", ["mm.py", "--set=a b"]),
        )
    return folder / "run", results, console.file.getvalue()


def test_the_results_are_those_of_the_folder(done):
    workdir, results, _ = done
    assert results == json.loads((workdir / "results.json").read_text())
    assert 0 <= results["miou"] <= 1 and 0 <= results["naive"]["miou"] <= 1
    assert set(results["stages"]) == {"mm", "segment", "evaluate"}


def test_the_table_shows_both_variants(done):
    _, results, text = done
    line = next(line for line in text.splitlines() if " miou " in line)
    for variant in (results, results["naive"]):
        assert f"{100 * variant['miou']:.1f}" in line


def test_stage_mm_without_steps_is_one_line_without_a_bar(done):
    text = done[2]
    assert "mm: no steps, so the first weights go to fine-tuning unchanged" in text
    assert "0/0" not in text and "1/1" in text


def test_a_run_writes_its_page_and_the_table_of_its_images(done):
    workdir, results, text = done
    page = (workdir / "index.html").read_text()
    assert page.count(f"<b>{100 * results['miou']:.1f}</b>") >= 1 and "naive miou" in page
    assert (workdir / "results.csv").read_text().count("\n") == 4  # three images
    assert f"page: {workdir / 'index.html'}" in text


def test_a_run_records_preset_command_versions_and_settings(done, settings):
    workdir, *_ = done
    (start,) = json.loads((workdir / "run.json").read_text())["starts"]
    assert start["preset"] == "quick" and start["command"] == "mm.py '--set=a b'"
    assert {"keras", "tensorflow", "mm-keras"} <= set(start["versions"])
    values, preset = resolved.read_file(workdir / "settings.json")
    assert preset == "quick" and config.changed(config.Experiment(), values) == settings


def test_the_same_settings_continue_and_others_are_refused(done, settings, monkeypatch):
    workdir, results, _ = done
    monkeypatch.setenv("TFDS_DATA_DIR", str(workdir.parent / "records"))
    stages = ["mm", "segment", "evaluate"]
    again = experiment.run_experiment(settings, stages, workdir)
    assert again["miou"] == results["miou"]
    other = config.replace(settings, "segment.steps", 2)
    with pytest.raises(WorkdirError, match="segment.steps: 1 there, 2 asked for"):
        experiment.run_experiment(other, stages, workdir)


def test_without_a_console_nothing_is_printed(done, settings, monkeypatch, capsys):
    workdir, *_ = done
    monkeypatch.setenv("TFDS_DATA_DIR", str(workdir.parent / "records"))
    experiment.run_experiment(settings, ["evaluate"], workdir)
    assert not capsys.readouterr().out


def test_a_run_says_that_its_images_are_shrunk(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for side, is_shrunk in ((12, True), (None, False)):
        console = rich.console.Console(file=io.StringIO(), width=200)
        experiment._prepared(config.replace(settings, "data.shorter_side", side), [], console)
        assert ("pixels becomes 12 (data.shorter_side)" in console.file.getvalue()) == is_shrunk


def test_an_unknown_stage_is_named_before_anything_is_read():
    with pytest.raises(config.ConfigError, match="Unknown stage 'evalute'.*Did you mean evaluate"):
        experiment.run_experiment(config.Experiment(), ["evalute"])


def test_the_default_folder_names_data_set_network_init_and_preset():
    folder = experiment.default_workdir(resolved.of_preset("quick"))
    assert folder.as_posix() == "runs/texture_scenes-vgg16-random-quick"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"seed": 1}, "texture_scenes-vgg16-random-quick-[0-9a-f]{6}"),
        ({"evaluate.flip": True, "data.eval_split": "train"}, "texture_scenes-vgg16-random-quick"),
        ({"data.dataset": "folder", "data.data_dir": "a/mine"}, "folder-mine-vgg16-random-quick"),
        ({"network.init_weights": "a.h5"}, "texture_scenes-vgg16-random-quick"),
    ],
)
def test_the_default_folder_depends_on_the_settings_of_the_training(given, expected):
    settings = resolved.of_preset("quick", given).changed(given, "flag")
    assert re.fullmatch(expected, experiment.default_workdir(settings).name)


def test_a_folder_for_generated_scenes_is_refused():
    settings = config.replace(config.Experiment(), "data.data_dir", "mine")
    with pytest.raises(config.ConfigError, match="Add --dataset=folder for your own images"):
        experiment.run_experiment(settings, ["mm"])


@pytest.mark.slow  # two trainings with one step each, and their evaluation
def test_pseudo_labels_come_from_a_first_training_and_join_a_second_one(
    settings, tiny_data, tmp_path, monkeypatch
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "records"))
    changes = {"labels": "rest", "threshold": 0.0}
    changes = {f"data.pseudo_{key}": value for key, value in changes.items()}
    settings = config.changed(settings, {**changes, "data.num_train_images": 1})
    stages = ["mm", "teacher", "pseudo", "segment", "evaluate"]
    results = experiment.run_experiment(settings, stages, tmp_path / "run")
    assert results["pseudo_labels"]["num_used"] == 1
    assert results["pseudo_labels"]["share_of_pixels"] == 1.0
    seconds = results["stages"]["segment"]["seconds"]
    again = experiment.run_experiment(settings, stages, tmp_path / "run")
    assert again["stages"]["segment"]["seconds"] == seconds  # nothing was made again
    without = config.replace(settings, "data.pseudo_labels", None)
    with pytest.raises(WorkdirError, match="data.pseudo_labels: rest there, None asked for"):
        experiment.run_experiment(without, ["evaluate"], tmp_path / "run")


def test_a_folder_for_pseudo_labels_is_checked_before_the_first_stage(
    settings, tmp_path, monkeypatch
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "records"))
    settings = config.replace(settings, "data.pseudo_labels", str(tmp_path / "nothing"))
    with pytest.raises(config.ConfigError, match="data.pseudo_labels=.* is not a folder"):
        experiment.run_experiment(settings, ["mm"], tmp_path / "run")
    assert not (tmp_path / "run").exists()
