"""The working folder: whole files, its own configuration only, results of all stages."""

import dataclasses
import json
import types

import pytest

from trainers import config
from trainers.runs import records, results, runtime, stage_scope
from trainers.stages import STAGES, find, of_experiment, select


@pytest.fixture
def run(tmp_path):
    split = types.SimpleNamespace(num_images=3, ids=("a", "b", "c"), checksums=(1, 2, 3))
    spec = types.SimpleNamespace(class_names=("a", "b"))
    dataset = types.SimpleNamespace(spec=spec, train=split, eval=split)
    console = types.SimpleNamespace(print=lambda *_, **__: None)
    return runtime.Runtime(tmp_path, dataset, console)


def _finish(run, name, experiment, **figures):
    stage = dataclasses.replace(find(name), run=lambda *_: figures)
    stage_scope.run_stage(stage, experiment, run)


def test_a_stage_leaves_configuration_results_and_cost(run):
    _finish(run, "mm", config.Experiment())
    result = run.result("mm")
    assert result["seconds"] >= 0 and result["peak_bytes"] > 2**20
    recorded = json.loads((run.folder("mm") / "config.json").read_text())
    assert recorded["mm.margin"] == 2.1 and recorded["classes"] == ["a", "b"]
    assert not [path for path in run.folder("mm").iterdir() if "tmp" in path.name]


def test_a_stage_that_fails_is_not_done(run):
    def fail(experiment, runtime):
        raise RuntimeError

    stage = dataclasses.replace(find("mm"), run=fail)
    with pytest.raises(RuntimeError):
        stage_scope.run_stage(stage, config.Experiment(), run)
    assert run.result("mm") is None


def test_another_configuration_is_refused_by_its_keys(run):
    experiment = config.Experiment()
    _finish(run, "mm", experiment)
    records.check_workdir(run, experiment, STAGES)
    with pytest.raises(runtime.WorkdirError, match=r"mm.margin: 2.1 there, 1.0 asked for"):
        records.check_workdir(run, config.replace(experiment, "mm.margin", 1.0), STAGES)


def test_changed_images_or_masks_are_refused(run):
    experiment = config.Experiment()
    _finish(run, "mm", experiment)
    changed = types.SimpleNamespace(**vars(run.dataset.train) | {"checksums": (1, 2, 4)})
    run.dataset.eval = changed  # mm was not made from it
    records.check_workdir(run, experiment, STAGES)
    run.dataset.train = changed
    with pytest.raises(runtime.WorkdirError, match="other images and masks .*train_checksum: "):
        records.check_workdir(run, experiment, STAGES)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mm.log_every", 7),
        ("mm.checkpoint_every", 7),
        ("data.data_dir", "elsewhere"),
        ("segment.steps", 7),  # stage mm does not depend on it
    ],
)
def test_what_does_not_change_a_stage_is_free(run, key, value):
    _finish(run, "mm", config.Experiment())
    records.check_workdir(run, config.replace(config.Experiment(), key, value), STAGES)


def test_results_of_all_stages_and_of_both_arms_are_gathered(run):
    _finish(run, "mm", config.Experiment())
    _finish(run, "evaluate", config.Experiment(), miou=0.5)
    _finish(run.naive(), "evaluate", config.Experiment(), miou=0.4)
    gathered = results.gather(run, STAGES)
    assert gathered["miou"] == 0.5 and set(gathered["stages"]) == {"mm", "evaluate"}
    assert gathered["naive"]["miou"] == 0.4 and set(gathered["naive"]["stages"]) == {"evaluate"}
    assert gathered == json.loads((run.workdir / "results.json").read_text())


def test_a_missing_file_names_the_stage_that_writes_it(run):
    with pytest.raises(runtime.WorkdirError, match="--stage=segment"):
        run.needed("segment", "segmenter.weights.h5")


def test_weights_that_changed_after_their_stage_are_refused(run):
    def write(experiment, runtime):
        (runtime.folder("mm") / "backbone.weights.h5").write_bytes(b"weights")
        return {}

    stage_scope.run_stage(dataclasses.replace(find("mm"), run=write), config.Experiment(), run)
    path = run.needed("mm", "backbone.weights.h5")
    path.write_bytes(b"weighty")
    with pytest.raises(runtime.WorkdirError, match="mm wrote it.* --overwrite --stage=mm$"):
        run.needed("mm", "backbone.weights.h5")
    (run.folder("mm") / "results.json").write_text("{}")  # as earlier versions wrote it
    assert run.needed("mm", "backbone.weights.h5") == path


@pytest.mark.parametrize("is_folder", [False, True])
def test_other_contents_of_an_input_file_are_refused(run, tmp_path, is_folder):
    experiment = config.replace(config.Experiment(), "network.init", "colorization")
    file = tmp_path / "inputs" / "a.npz"
    file.parent.mkdir()
    file.write_bytes(b"first")
    key, value = (
        ("data.unlabelled_dir", file.parent) if is_folder else ("network.init_weights", file)
    )
    experiment = config.replace(experiment, key, str(value))
    _finish(run, "mm", experiment)
    records.check_workdir(run, experiment, STAGES)
    file.write_bytes(b"other")
    records._of_files.cache_clear()
    with pytest.raises(runtime.WorkdirError, match="checksum: .* there, .* asked for"):
        records.check_workdir(run, experiment, STAGES)


def _with_pseudo_labels(folder):
    folder.mkdir(exist_ok=True)
    (folder / "a.png").write_bytes(b"first")
    return config.replace(config.Experiment(), "data.pseudo_labels", str(folder))


def test_stages_before_the_pseudo_labels_do_not_depend_on_them(run, tmp_path):
    experiment = _with_pseudo_labels(tmp_path / "new")
    for name in ("mm", "teacher"):
        _finish(run, name, experiment)
    records.check_workdir(run, config.Experiment(), of_experiment(config.Experiment()))
    _finish(run, "segment", config.Experiment())
    assert not any("pseudo" in key for key in records.read_record(run.workdir, "segment"))
    with pytest.raises(runtime.WorkdirError, match="data.pseudo_labels: None there.*=segment"):
        records.check_workdir(run, experiment, STAGES)


def test_other_images_for_pseudo_labels_are_refused(run, tmp_path):
    experiment = _with_pseudo_labels(tmp_path / "new")
    _finish(run, "segment", experiment)
    records.check_workdir(run, experiment, STAGES)
    (tmp_path / "new" / "b.png").write_bytes(b"second")
    records._of_files.cache_clear()
    with pytest.raises(runtime.WorkdirError, match="pseudo_checksum: "):
        records.check_workdir(run, experiment, STAGES)


def test_a_run_has_the_stages_of_its_settings(tmp_path):
    names = [stage.name for stage in select(["all"], config.Experiment())]
    assert names == ["mm", "segment", "evaluate", "export"]
    experiment = _with_pseudo_labels(tmp_path / "new")
    names = [stage.name for stage in select(["all"], experiment)]
    assert names == ["mm", "teacher", "pseudo", "segment", "evaluate", "export"]
    with pytest.raises(config.ConfigError, match="It needs data.pseudo_labels=FOLDER, or rest"):
        select(["teacher"], config.Experiment())
    ensemble = dataclasses.replace(experiment, ensemble=("a", "b"))
    assert [stage.name for stage in select(["all"], ensemble)] == ["evaluate", "export"]
    with pytest.raises(config.ConfigError, match="An ensemble has no stage pseudo"):
        select(["pseudo"], ensemble)


def test_a_stage_without_its_record_is_refused(run):
    (run.folder("mm") / "checkpoints").mkdir(parents=True)
    with pytest.raises(runtime.WorkdirError, match="config.json is missing beside checkpoints"):
        records.check_workdir(run, config.Experiment(), STAGES)


def test_a_stage_that_fails_before_it_makes_anything_leaves_no_record(run):
    def fail(experiment, runtime):
        raise config.UserError("a file is missing")

    stage = dataclasses.replace(find("segment"), run=fail)
    with pytest.raises(config.UserError):
        stage_scope.run_stage(stage, config.Experiment(), run)
    assert not run.folder("segment").exists()


def test_the_message_names_the_command_that_works(run):
    _finish(run, "mm", config.Experiment())
    _finish(run.naive(), "segment", config.Experiment())
    other = config.changed(config.Experiment(), {"mm.margin": 1.0, "segment.steps": 7})
    with pytest.raises(runtime.WorkdirError, match="--overwrite --stage=mm,segment --compare"):
        records.check_workdir(run, other, STAGES, ["segment"])
