"""The whole chain from the command line: run, killed and continued, and given wrong flags."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SMALL = [
    "--backbone=testing",
    *("--set=network.width=1", "--set=data.shorter_side=64", "--set=data.holdout=12"),
    *("--set=mm.steps=8", "--set=mm.drops=", "--set=mm.num_images=2"),
    *("--set=mm.log_every=1", "--set=mm.checkpoint_every=3"),
    *("--set=segment.steps=8", "--set=segment.drops=", "--set=segment.num_images=2"),
    *("--set=segment.log_every=1", "--set=segment.checkpoint_every=3"),
    "--set=segment.validate_every=0",
]


@pytest.fixture(scope="module")
def environment(prepared_records):
    variables = {**os.environ, "TFDS_DATA_DIR": str(prepared_records), "PYTHONPATH": str(ROOT)}
    variables.pop("TF_CPP_MIN_LOG_LEVEL", None)  # users do not set it
    return variables


def _command(*arguments):
    return [sys.executable, "-m", "trainers.mm", *arguments]


def _run(environment, folder, *arguments, code=0):
    done = subprocess.run(
        _command(*arguments), capture_output=True, text=True, env=environment, cwd=folder
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def _losses(workdir, stage):
    lines = (workdir / stage / "metrics.jsonl").read_text().splitlines()
    return [(entry["step"], entry["loss"]) for entry in map(json.loads, lines)]


@pytest.fixture(scope="module")
def unbroken(environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    done = _run(environment, folder, *SMALL)
    (workdir,) = (folder / "runs").iterdir()
    (folder / "stderr").write_text(done.stderr)
    return workdir, done.stdout


@pytest.fixture(scope="module")
def compared(environment, unbroken):
    """The unbroken run with variant naive, which a second command adds."""
    workdir, _ = unbroken
    return workdir, _run(environment, workdir, f"--workdir={workdir}", "--compare").stdout


def test_a_run_prints_no_line_of_other_programs(unbroken):
    printed = (unbroken[0].parents[1] / "stderr").read_text().splitlines()
    ours = ("texture_scenes", "Generat")  # progress of the data set
    assert not [line for line in printed if line.strip() and not line.startswith(ours)]


def test_the_default_folder_depends_on_the_settings(unbroken):
    assert re.fullmatch(r"texture_scenes-testing-random-quick-[0-9a-f]{6}", unbroken[0].name)


def test_all_stages_leave_their_files(unbroken):
    workdir, output = unbroken
    assert "quick" in output.splitlines()[0] and "--preset=paper" in output.splitlines()[0]
    for path in (
        "mm/backbone.weights.h5",
        "segment/segmenter.weights.h5",
        "export/saved_model/saved_model.pb",
    ):
        assert (workdir / path).exists(), path
    for stage in ("mm", "segment", "evaluate"):
        assert list((workdir / stage / "logs").glob("events*")), stage
    results = json.loads((workdir / "results.json").read_text())
    _check_figures(results)
    assert set(results["stages"]) == {"mm", "segment", "evaluate", "export"}
    for cost in results["stages"].values():
        assert cost["seconds"] > 0 and cost["peak_bytes"] > 2**20
    assert "saved_model" in output


def _check_figures(results):
    assert 0 <= results["miou"] <= 1 and 0 < results["pixel_accuracy"] <= 1
    assert len(results["per_class_iou"]) == len(results["confusion_matrix"]) == 9


@pytest.mark.slow
def test_a_comparison_adds_the_run_without_mm(compared):
    workdir, output = compared
    assert (workdir / "naive" / "segment" / "segmenter.weights.h5").exists()
    _check_figures(json.loads((workdir / "results.json").read_text())["naive"])
    assert "mm: done already" in output and "naive" in output


def _kill_at(environment, folder, workdir, stage, step):
    process = subprocess.Popen(
        _command(*SMALL, "--stage=mm,segment", f"--workdir={workdir}"),
        env=environment,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = workdir / stage / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= step):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(environment, unbroken, tmp_path):
    workdir = tmp_path / "run"
    for stage in ("mm", "segment"):
        _kill_at(environment, tmp_path, workdir, stage, 5)
        assert not (workdir / stage / "results.json").exists()
    # The run remembers its settings.
    arguments = ("--stage=mm,segment", f"--workdir={workdir}")
    output = _run(environment, tmp_path, *arguments).stdout
    assert "mm: done already" in output and "segment: continuing at step" in output
    for stage in ("mm", "segment"):
        assert _losses(workdir, stage) == _losses(unbroken[0], stage), stage
    assert len(_losses(workdir, "segment")) == 8


@pytest.mark.slow
def test_a_folder_of_another_configuration_is_refused(environment, unbroken):
    workdir = unbroken[0]
    before = (workdir / "mm" / "config.json").read_bytes()
    arguments = (*SMALL, "--set", "mm.margin=1.0", f"--workdir={workdir}")
    message = _run(environment, workdir, *arguments, code=1).stderr
    assert "mm.margin: 2.1 there, 1.0 asked for" in message
    assert (workdir / "mm" / "config.json").read_bytes() == before


def _files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_refused_overwrite_removes_nothing(environment, unbroken):
    workdir = unbroken[0]
    before = _files(workdir)
    for arguments in (
        ("--stage=segment,evaluate,export", "--set=mm.margin=1.5"),
        ("--stage=predict", "--set=evaluate.protocol=pascal"),
    ):
        command = (f"--workdir={workdir}", "--overwrite", *arguments)
        message = _run(environment, workdir, *command, code=1).stderr
        assert "Traceback" not in message
        assert _files(workdir) == before


@pytest.mark.slow
def test_overwriting_the_evaluation_leaves_the_export_and_the_other_variant(environment, compared):
    workdir = compared[0]
    kept = [workdir / "export" / "saved_model" / "saved_model.pb"]
    kept += [workdir / "naive" / "evaluate" / "results.json"]
    before = [path.read_bytes() for path in kept]
    command = (f"--workdir={workdir}", "--stage=evaluate", "--overwrite")
    output = " ".join(_run(environment, workdir, *command).stdout.split())
    assert f"--overwrite removed evaluate in {workdir}" in output
    assert [path.read_bytes() for path in kept] == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset=papr"], "Unknown preset 'papr'.*Did you mean paper"),
        (["--init=imagnet"], "Unknown network.init 'imagnet'.*Did you mean imagenet"),
        (["--set", "mm.margn=2"], "Unknown config key 'mm.margn'. Did you mean mm.margin"),
        (["--set", "mm.steps=many"], "mm.steps must be int, at least 0. Received 'many'"),
        pytest.param(
            ["--init=imagenet", "--backbone=alexnet"],
            "bvlc_alexnet.caffemodel.*init_weights",
            marks=pytest.mark.slow,
        ),
        (
            ["--stage=proxy"],
            "Stage proxy trains a pretext task. It needs network.init=colo",
        ),
        pytest.param(
            ["--init=jigsaw", "--init_weights=a.h5"],
            "init_weights=a.h5: there is no such file",
            marks=pytest.mark.slow,
        ),
        (["--stage=evalute"], "Unknown stage 'evalute'.*Did you mean evaluate"),
        (["--precision=float8"], "Unknown precision 'float8'"),
        pytest.param(
            ["--backbone=vgg61"],
            "Unknown backbone 'vgg61'.*Did you mean 'vgg16'",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--dataset=camvids"], "no data set 'camvids'.*camvid", marks=pytest.mark.slow
        ),
    ],
)
def test_wrong_flags_get_one_clear_line(environment, tmp_path, arguments, message):
    stderr = _run(environment, tmp_path, *arguments, code=1).stderr
    assert re.search(message, stderr) and "Traceback" not in stderr


@pytest.mark.slow
def test_stages_say_what_they_need(environment, tmp_path):
    message = _run(environment, tmp_path, *SMALL, "--stage=evaluate", code=1).stderr
    assert "segmenter.weights.h5 is missing: run the same command with --stage=segment" in message
    arguments = (*SMALL, "--init=colorization", "--stage=mm")
    message = _run(environment, tmp_path, *arguments, code=1).stderr
    assert "backbone.weights.h5 is missing: run the same command with --stage=proxy" in message


@pytest.mark.slow
def test_a_proxy_stage_comes_first_where_an_init_needs_it(environment, tmp_path):
    arguments = (*SMALL, "--init=colorization", "--set=colorization.crop=48")
    short = ("--set=colorization.steps=3", "--set=mm.steps=2", "--set=segment.steps=2")
    arguments = (*arguments, "--workdir=run")
    output = _run(environment, tmp_path, *arguments, *short, "--compare").stdout
    assert "colorization on 270 training images of texture_scenes" in output
    assert output.count("init: colorization, from the proxy stage") == 2  # mm and naive segment
    workdir = tmp_path / "run"
    results = json.loads((workdir / "results.json").read_text())
    assert list(results["stages"]) == ["proxy", "mm", "segment", "evaluate", "export"]
    assert results["proxy"]["hue_cross_entropy"] > 0
    arguments = (*arguments, *short, "--set=colorization.learning_rate=0.5")
    message = _run(environment, tmp_path, *arguments, code=1).stderr
    assert "colorization.learning_rate" in message and "--overwrite" in message
