"""Execution of a study, with made-up processes in place of real runs."""

import fcntl
import json
import pathlib
import threading
import types

import pytest

from trainers import config
from trainers.config import presets
from trainers.studies import execution, plan, step_cost

COST = step_cost.StepCost(mm=2000, segment=5000)


def make_study(workdir, names=("naive", "class_connected"), seeds=(0, 1), **settings):
    shared = presets.experiment("tuned", "camvid")
    for key, value in settings.items():
        shared = config.replace(shared, key.replace("__", "."), value)
    arms = plan.plan(list(names), list(seeds), [], config.resolve(shared, 360), COST)
    return plan.Study(workdir, arms, shared, 360, "tuned")


@pytest.fixture
def processes(monkeypatch):
    """Commands of the runs. Each one leaves results as `trainers.mm` does, or fails."""
    started = []

    def run(arguments, stdout, pass_fds, **_):
        _, stages, workdir = (argument.partition("=")[2] for argument in arguments[3:])
        started.append((stages, pathlib.Path(workdir)))
        if started.fails:
            stdout.write("first line\n" + "line\n" * 20 + "the loss is not finite\n")
            return types.SimpleNamespace(returncode=1)
        for stage in stages.split(","):
            folder = pathlib.Path(workdir) / stage
            for name in ("checkpoints", "logs"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / "weights").write_text(workdir)
            (folder / "results.json").write_text(json.dumps({"miou": 0.5}))
        return types.SimpleNamespace(returncode=0)

    class Started(list):
        fails = False

    started = Started()
    monkeypatch.setattr(execution.subprocess, "run", run)
    return started


def test_every_run_gets_its_settings_in_a_file(processes, tmp_path):
    study, lines = make_study(tmp_path), []
    execution.run(study, lines.append)
    stages = "mm,segment,evaluate"
    assert processes == [(stages, study.folder(arm, seed)) for arm, seed in study.runs()]
    for arm, seed in study.runs():
        content = json.loads(plan.settings_file(study.folder(arm, seed)).read_text())
        assert content["preset"] == "tuned" and content["seed"] == seed
        assert content["mm.steps"] == study.experiment(arm, seed).mm.steps
    assert lines[0].startswith("[1/4] naive seed 0: running, log in ")
    assert lines[-1] == "[4/4] class_connected seed 1: mIoU 50.00"


def test_finished_runs_are_not_repeated(processes, tmp_path):
    study, lines = make_study(tmp_path), []
    execution.run(study, lines.append)
    processes.clear()
    lines.clear()
    execution.run(study, lines.append)
    assert processes == [] and len(lines) == 4 and all("mIoU 50.00" in line for line in lines)


def test_the_arms_of_a_seed_get_copies_of_one_stage_proxy_without_checkpoints(processes, tmp_path):
    study = make_study(tmp_path, seeds=(3,), network__init="jigsaw")
    execution.run(study, lambda line: None)
    shared = study.first_folder(3)
    assert {folder for stages, folder in processes if "proxy" in stages} == {shared}
    for arm in study.arms:
        copy = study.folder(arm, 3) / "proxy"
        assert (copy / "weights").read_text() == str(shared)
        assert sorted(path.name for path in copy.iterdir()) == ["results.json", "weights"]


def test_the_error_of_a_failed_run_has_the_command_and_the_end_of_its_log(processes, tmp_path):
    processes.fails = True
    with pytest.raises(plan.StudyError, match="(?s)-m trainers.mm --config=.*not finite") as error:
        execution.run(make_study(tmp_path), lambda line: None)
    assert "first line" not in str(error.value) and len(processes) == 1


def test_a_study_waits_for_another_study_in_its_folder(processes, tmp_path):
    waiting, released = threading.Event(), threading.Event()

    def log(line):
        if line.startswith("waiting for another study"):
            assert not processes
            waiting.set()

    with (tmp_path / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        study = make_study(tmp_path, names=("naive",), seeds=(0,))
        thread = threading.Thread(target=lambda: (execution.run(study, log), released.set()))
        thread.start()
        assert waiting.wait(10) and not released.is_set()
        fcntl.flock(other, fcntl.LOCK_UN)
        thread.join(10)
    assert released.is_set() and len(processes) == 1
