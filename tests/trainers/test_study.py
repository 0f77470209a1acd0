"""Studies: the lock, and a whole study that is killed, continued and summed up."""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from mm_keras import metrics

ROOT = pathlib.Path(__file__).parents[2]
SMALL = [
    *("--dataset=texture_scenes", "--backbone=testing", "--seeds=0,1"),
    "--arms=naive,class_connected",
    *("--set=network.width=1", "--set=data.shorter_side=48", "--set=data.num_train_images=6"),
    *("--set=data.holdout=4", "--set=mm.steps=3", "--set=mm.drops=", "--set=mm.num_images=2"),
    *("--set=segment.steps=3", "--set=segment.drops=", "--set=segment.num_images=2"),
    *("--set=mm.log_every=1", "--set=segment.log_every=1", "--set=segment.learning_rate=0.1"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    records = tmp_path_factory.mktemp("records")
    return {**os.environ, "TFDS_DATA_DIR": str(records), "PYTHONPATH": str(ROOT)}


def _command(*arguments):
    return [sys.executable, "-m", "trainers.study", *arguments]


def _run(environment, folder, *arguments, code=0):
    done = subprocess.run(
        _command(*arguments), capture_output=True, text=True, env=environment, cwd=folder
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def _kill_in_second_run(environment, workdir):
    process = subprocess.Popen(
        _command(*SMALL, f"--workdir={workdir}"), env=environment, stdout=subprocess.DEVNULL
    )
    started = workdir / "class_connected" / "seed0" / "log.txt"
    while not started.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()


def _miou(run):
    return 100 * json.loads((run / "evaluate" / "results.json").read_text())["miou"]


@pytest.mark.slow
def test_a_killed_study_continues_and_sums_up_what_its_runs_wrote(environment, tmp_path):
    workdir = tmp_path / "study"
    _kill_in_second_run(environment, workdir)
    first = workdir / "naive" / "seed0" / "evaluate" / "results.json"
    written = first.stat().st_mtime_ns
    output = _run(environment, tmp_path, *SMALL, f"--workdir={workdir}").stdout
    assert "[1/4] naive seed 0: running" not in output and first.stat().st_mtime_ns == written
    assert "waiting for" in output  # the run that the killed study left behind
    runs = {
        arm: [workdir / arm / f"seed{seed}" for seed in (0, 1)]
        for arm in ("naive", "class_connected")
    }
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["evaluated_on"] == "train, 4 held out (4 images)"
    mious = {arm: [_miou(run) for run in folders] for arm, folders in runs.items()}
    for arm, values in mious.items():
        assert summary["arms"][arm]["mious"] == {"0": values[0], "1": values[1]}
        assert summary["arms"][arm]["mean"] == pytest.approx(sum(values) / 2)
        deviation = abs(values[0] - values[1]) / math.sqrt(2)
        assert summary["arms"][arm]["deviation"] == pytest.approx(deviation)
    differences = np.subtract(mious["class_connected"], mious["naive"])
    over_seeds = summary["arms"]["class_connected"]["over_seeds"]
    half = 12.706205 * abs(differences[0] - differences[1]) / 2  # t at 97.5 %, 1 degree
    assert over_seeds["mean"] == pytest.approx(differences.mean(), abs=1e-9)
    assert over_seeds["high"] - over_seeds["mean"] == pytest.approx(half, abs=1e-4)
    over_images = summary["arms"]["class_connected"]["over_images"]
    assert over_images["mean"] == pytest.approx(differences.mean(), abs=1e-9)
    assert summary["arms"]["naive"]["over_seeds"] is None
    assert summary["arms"]["naive"]["steps"] == [0, 3]
    for folder in sum(runs.values(), []):
        stored = np.load(folder / "evaluate" / "per_image.npz")["confusion"]
        assert stored.shape == (4, 9, 9) and stored.dtype == np.int32
        assert 100 * metrics.mean_iou(stored.sum(axis=0)) == pytest.approx(_miou(folder))
    _the_arms_of_a_seed_are_paired(runs)
    _the_naive_arm_is_that_of_compare(environment, tmp_path, runs["naive"][0])
    text = (workdir / "summary.md").read_text()
    assert text in output and "| class_connected | 2 " in text
    assert (workdir / "summary.png").exists()
    before = (workdir / "summary.json").read_bytes()
    assert "running" not in _run(environment, tmp_path, *SMALL, f"--workdir={workdir}").stdout
    assert (workdir / "summary.json").read_bytes() == before


def _the_arms_of_a_seed_are_paired(runs):
    """M&M of no steps hands on the weights of the init, other ones for each seed; three steps lead
    not far away from them.
    """

    def kernels(folder):
        found = []

        def collect(_, item):  # a value other than None would end the visit
            if isinstance(item, h5py.Dataset) and item.ndim == 4:
                found.append(np.ravel(item[()]))

        with h5py.File(folder / "mm" / "backbone.weights.h5") as file:
            file.visititems(collect)
        return np.concatenate(found)

    zero, one = (kernels(folder) for folder in runs["naive"])
    tuned = kernels(runs["class_connected"][0])
    assert 0 < np.abs(tuned - zero).mean() < np.abs(one - zero).mean() / 3


def _the_naive_arm_is_that_of_compare(environment, folder, ours):
    own = ("--seeds", "--arms")
    shared = [argument for argument in SMALL if not argument.startswith(own)]
    command = [sys.executable, "-m", "trainers.mm", *shared, "--compare", "--stage=mm,segment"]
    subprocess.run(
        [*command, "--workdir=pair"], env=environment, cwd=folder, check=True, capture_output=True
    )
    place = pathlib.Path("segment") / "metrics.jsonl"
    theirs = folder / "pair" / "naive" / place
    assert theirs.read_text() == (ours / place).read_text()


@pytest.mark.slow
def test_the_proxy_task_is_trained_once_a_seed(environment, tmp_path):
    arguments = (
        *SMALL,
        *("--workdir=s", "--seeds=3", "--init=colorization", "--set=colorization.steps=2"),
        *("--set=colorization.drops=", "--set=colorization.num_images=2"),
        *("--set=colorization.crop=32", "--set=colorization.log_every=1"),
    )
    _run(environment, tmp_path, *arguments)
    weights = pathlib.Path("proxy") / "backbone.weights.h5"
    folders = ("shared", "naive", "class_connected")
    contents = {(tmp_path / "s" / f / "seed3" / weights).read_bytes() for f in folders}
    assert len(contents) == 1
    assert not (tmp_path / "s" / "naive" / "seed3" / "proxy" / "checkpoints").exists()
    log = (tmp_path / "s" / "naive" / "seed3" / "log.txt").read_text()
    assert "init: colorization, from the proxy stage" in log.replace("\n", " ")
    assert (tmp_path / "s" / "summary.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=s", "--arms=naiv"], "Unknown arm 'naiv'"),
        (["--workdir=s", "--seed=3"], "A study sets --seed itself"),
        (["--workdir=s", "--seeds=-1"], "whole numbers from 0 on"),
        ([], "needs a --workdir"),
    ],
)
def test_wrong_flags_get_one_clear_line(environment, tmp_path, arguments, message):
    stderr = _run(environment, tmp_path, *SMALL, *arguments, code=1).stderr
    assert message in stderr and "Traceback" not in stderr


@pytest.mark.slow
def test_a_run_that_fails_shows_the_end_of_its_log(environment, tmp_path):
    arguments = (*SMALL, "--workdir=s", "--set=mm.learning_rate=1e30", "--arms=class_connected")
    stderr = _run(environment, tmp_path, *arguments, code=1).stderr
    assert "log.txt" in stderr and "not finite" in stderr and "Traceback" not in stderr
