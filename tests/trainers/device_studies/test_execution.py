"""A device study: its runs, its files and its table. The runs themselves need JAX."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from trainers import config
from trainers.device_studies import execution, scenes
from trainers.studies import plan

ROOT = pathlib.Path(__file__).parents[3]
TINY = {
    "network.backbone": "testing",
    "network.width": 0.5,
    "segment.steps": 40,
    "segment.crop": 32,
    "mm.steps": 4,
    "mm.drops": "",
    "mm.num_images": 2,
    "mm.patch_size": 16,
    "mm.crop": 32,
    "mm.min_size": 8,
    "mm.max_size": 16,
}


def test_the_table_has_paired_differences_to_the_first_arm():
    scores = {"naive": [50.0, 52.0, 51.0], "softmax": [53.0, 55.0, 54.0], "short": [51.0]}
    results = {
        name: {seed: {"miou": value} for seed, value in enumerate(values)}
        for name, values in scores.items()
    }
    lines = execution.table(results).splitlines()
    assert lines[2] == "| naive | 51.0 |  | 3 |"
    assert lines[3] == "| softmax | 54.0 | +3.0 (+3.0 to +3.0) | 3 |"
    assert lines[4] == "| short | 51.0 | +1.0 | 1 |"


def test_another_backend_is_refused(tmp_path):
    asked = execution.Asked(["naive"], [0], [])
    with pytest.raises(plan.StudyError, match="needs KERAS_BACKEND=jax. Received tensorflow"):
        execution.run(config.Experiment(), tmp_path / "a.npz", asked, tmp_path)


def run(arguments, **environment):
    command = [sys.executable, "-m", "trainers.device_study", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs --packed"),
        (["--packed=none.npz"], "needs a --workdir"),
        (["--packed=none.npz", "--workdir=w", "--seeds=a"], "whole numbers"),
        (["--packed=none.npz", "--workdir=w"], "none.npz is no file of a packed data set"),
    ],
)
def test_wrong_arguments_give_one_sentence(arguments, message):
    done = run(arguments, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    assert done.returncode and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def two_colors(number, seed):
    """Images whose classes are colors, so that a short training learns them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (number, 5, 5)).repeat(8, 1).repeat(8, 2).astype("uint8")
    images = np.array([[200, 40, 40], [40, 40, 200]], "uint8")[labels]
    return scenes.padded(list(images), list(labels), (40, 40))


@pytest.mark.slow
def test_a_study_learns_and_continues_without_tensorflow(tmp_path):
    file = tmp_path / "colors.npz"
    packed = scenes.Packed(two_colors(12, 0), two_colors(4, 1), ("red", "blue"), None)
    scenes.write(file, packed)
    settings = [f"--set={key}={value}" for key, value in TINY.items()]
    arguments = [
        f"--packed={file}",
        f"--workdir={tmp_path / 'study'}",
        "--preset=tuned",
        *settings,
        "--arms=naive_longer,softmax",
        "--arm_set=softmax:mm.loss=softmax",
        "--seeds=0,1",
    ]
    block = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = run(arguments, **block)
    assert done.returncode == 0, done.stderr[-3000:]
    paths = sorted((tmp_path / "study").rglob("*.json"))
    results = [json.loads(path.read_text()) for path in paths]
    assert [path.parent.name for path in paths] == ["naive_longer"] * 2 + ["softmax"] * 2
    assert all(result["loss"][-1] < 0.7 * result["loss"][0] for result in results), results
    assert all(result["miou"] > 70 for result in results), results
    assert results[0]["miou"] != results[1]["miou"]
    table = done.stdout.splitlines()[-2:]
    again = run(arguments, **block)
    assert again.stdout.splitlines()[-2:] == table and "seed0.json" not in again.stdout
    changed = run([*arguments, "--set=segment.steps=41"], **block)
    assert changed.returncode and "has other settings" in changed.stderr
