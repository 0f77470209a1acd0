"""The working folder: whole files, its own configuration only, results of all stages."""

import dataclasses
import json
import types

import pytest

from trainers import config
from trainers.runs import records, results, runtime, stage_scope
from trainers.stages import STAGES, find


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
