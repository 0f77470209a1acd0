"""The benchmark at tiny sizes: every line has its figure or its reason. No time is asserted."""

import io
import json
import os
import pathlib
import subprocess
import sys

import pytest
import rich.console
from absl.testing import flagsaver

from trainers import benchmark
from trainers.benchmarks import costs, cpu, gpu
from trainers.benchmarks.timing import NotRun, Reading

SMALL = cpu.Scale(
    backbone="testing",
    nodes=(400, 500, 600),
    calls=1,
    image=(40, 50),
    steps=(1, 2),
    patches=4,
    patch_size=16,
    crop=32,
    points=4,
    rounds=1,
)
SMALL_GPU = gpu.Scale(
    vgg=("testing", 4),
    alexnet=("alexnet_one_column", 2),
    patch_size=64,
    crop=64,
    matrix=8,
    steps=(1, 9),
    iterations=10,
    rounds=3,
)


@pytest.fixture
def in_this_process(monkeypatch):
    """Costs are measured here: a process of its own takes seconds to begin."""
    monkeypatch.setattr(cpu, "alone", lambda function, *arguments: function(*arguments))


def _keys(group):
    return {line.key for line in benchmark.LINES if line.group == group}


def _complete(reading):
    return (reading.figure is None) == bool(reading.reason)


def test_match_and_its_peer():
    readings = cpu.match(SMALL)
    assert readings.keys() == {f"match_{n}{xla}" for n in SMALL.nodes for xla in ("", "_xla")}
    assert readings["match_400"].ratio > 0 and all(map(_complete, readings.values()))
    full = cpu.Scale()
    assert {f"match_{n}{xla}" for n in full.nodes for xla in ("", "_xla")} == _keys("match")


@pytest.mark.parametrize("group", ["mix", "step", "hypercolumn"])
def test_groups_read_all_their_lines(group, in_this_process):
    readings = getattr(cpu, group)(SMALL)
    assert readings.keys() == _keys(group)
    assert all(map(_complete, readings.values()))
    assert any(reading.ratio is not None for reading in readings.values())


def test_gpu_lines_on_whatever_device():
    readings = gpu.measure(SMALL_GPU)
    assert readings.keys() == _keys("gpu")
    assert all(map(_complete, readings.values()))


def test_without_a_gpu_the_lines_say_so():
    with pytest.raises(NotRun, match="no GPU is visible to tensorflow"):
        gpu.names()


def test_operations_of_vgg16_are_the_known_ones():
    """30.07 GFLOP per patch of 128, forward and backward."""
    from mm_keras import backbones

    count = 3 * 2 * gpu.multiply_adds(backbones.build("vgg16"), 128)
    assert count == pytest.approx(30.07e9, rel=1e-3)


def test_files_are_as_large_as_those_of_voc(tmp_path):
    files = cpu.image_files(tmp_path, (375, 500), num=2)
    images, labels = (
        [pathlib.Path(file).stat().st_size for file in part]
        for part in (files.image_files, files.label_files)
    )
    assert all(90_000 < size < 120_000 for size in images)
    assert all(1_000 < size < 6_000 for size in labels)


def test_groups_left_out_and_missed_targets(tmp_path, monkeypatch):
    """Exit status 1 names what was missed; the files hold every line."""
    figures = {"match_400": Reading(0.1, peer=5.0), "match_4096": Reading(7.0)}
    others = {key: Reading(reason="not today") for key in _keys("match") - figures.keys()}
    monkeypatch.setattr(cpu, "match", lambda scale: figures | others)
    console = rich.console.Console(file=io.StringIO(), width=200)
    readings = benchmark.measured(["match"], "cpu", console)
    assert readings["mix"].reason == "left out by --only"
    assert readings["vgg_f32"].reason == "left out by --only"
    console.print(benchmark.table(readings))
    assert "MISSED" in console.file.getvalue()
    benchmark.write(tmp_path, readings, "cpu")
    lines = json.loads((tmp_path / "benchmark.json").read_text())["lines"]
    verdicts = {line["key"]: line["is_met"] for line in lines}
    assert verdicts["match_400"] is True and verdicts["match_4096"] is False
    assert verdicts.keys() == readings.keys()
    text = (tmp_path / "benchmark.md").read_text()
    assert "| match, 4,096 nodes | 7 ms |  |  | at most 5 | MISSED |" in text


def test_each_device_measures_its_own_lines():
    console = rich.console.Console(file=io.StringIO())
    assert "no GPU" in benchmark.measured(["gpu"], "gpu", console)["run"].reason
    assert "--device=gpu" in benchmark.measured(["gpu"], "cpu", console)["run"].reason


def test_the_table_of_costs(in_this_process):
    said = []
    table = costs.table(
        said.append,
        tuning=((1.0, 4, 16),),
        fine_tuning=((1.0, 1, 32),),
        inference=((1.0, 32),),
        mix=(((40, 50), 2, 16),),
        backbone="testing",
    )
    assert table.splitlines() == said and len(said) == 6
    assert said[2].startswith("| mm | step of 4 nodes of 16 pixels, width 1 |")


def test_costs_come_with_other_groups_and_once(tmp_path, monkeypatch, capsys, parsed_flags):
    reading = Reading(reason="not today")
    monkeypatch.setattr(cpu, "match", lambda scale: dict.fromkeys(_keys("match"), reading))
    monkeypatch.setattr(costs, "table", lambda say: say("| mm | a row |") or "| mm | a row |")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with flagsaver.flagsaver(only=["match", "cost"], results=str(tmp_path)):
        benchmark.main(["benchmark"])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"  # a GPU would not show in CPU times
    printed = capsys.readouterr().out
    assert printed.count("| mm | a row |") == 1 and "not today" in printed
    assert "| mm | a row |" in (tmp_path / "cost.md").read_text()
    assert "lines" in json.loads((tmp_path / "benchmark.json").read_text())


def test_costs_are_the_cpus(parsed_flags):
    with (
        flagsaver.flagsaver(only=["cost"], device="gpu"),
        pytest.raises(SystemExit, match="measures the CPU"),
    ):
        benchmark.main(["benchmark"])


def test_gpus_stand_beside_their_figures(monkeypatch):
    monkeypatch.setattr(gpu, "names", lambda: ["A Name 100"])
    assert "cores, A Name 100; keras" in benchmark.machine("gpu")
    assert "A Name" not in benchmark.machine("cpu")


@pytest.mark.slow
def test_memory_is_measured_in_a_fresh_process():
    cost = cpu.alone(cpu.dense_cost, "testing", 32)
    assert cost.seconds > 0 and cost.peak_bytes > 0


@pytest.mark.slow
def test_gpu_lines_on_jax_without_tensorflow():
    code = """
import sys
sys.modules["tensorflow"] = None
from trainers.benchmarks import gpu
from tests.trainers.test_benchmark import SMALL_GPU
readings = gpu.measure(SMALL_GPU)
assert all(reading.figure > 0 for key, reading in readings.items() if "rate" not in key), readings
try:
    gpu.names()
except Exception as error:
    assert "no GPU is visible to jax" in str(error)
"""
    root = pathlib.Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        cwd=root,
        check=True,
        timeout=300,
    )
