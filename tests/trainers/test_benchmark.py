"""The benchmark at tiny sizes: every line has a figure or a reason. No time is asserted."""

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
from trainers.benchmarks import costs, cpu, gpu, groups, output, quality
from trainers.benchmarks.targets import LINES
from trainers.benchmarks.timing import Measurement, NotRun

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
    """Measure costs in this process: a new process takes seconds to start."""
    monkeypatch.setattr(cpu, "alone", lambda function, *arguments: function(*arguments))


def _keys(group):
    return {line.key for line in LINES if line.group == group}


def _complete(measurement):
    return (measurement.figure is None) == bool(measurement.reason)


@pytest.mark.slow
def test_match_measures_all_its_lines_and_its_peer():
    measurements = cpu.match(SMALL)
    assert measurements.keys() == {f"match_{n}{xla}" for n in SMALL.nodes for xla in ("", "_xla")}
    assert measurements["match_400"].ratio > 0 and all(map(_complete, measurements.values()))
    full = cpu.Scale()
    assert {f"match_{n}{xla}" for n in full.nodes for xla in ("", "_xla")} == _keys("match")


@pytest.mark.slow
@pytest.mark.parametrize("group", ["mix", "step", "hypercolumn"])
def test_groups_measure_all_their_lines(group, in_this_process):
    measurements = getattr(cpu, group)(SMALL)
    assert measurements.keys() == _keys(group)
    assert all(map(_complete, measurements.values()))
    assert any(measurement.ratio is not None for measurement in measurements.values())


@pytest.mark.slow
def test_gpu_lines_can_be_measured_on_a_cpu():
    measurements = gpu.measure(SMALL_GPU)
    assert measurements.keys() == _keys("gpu")
    assert all(map(_complete, measurements.values()))


def test_a_missing_gpu_is_reported():
    with pytest.raises(NotRun, match="no GPU is visible to tensorflow"):
        gpu.names()


def test_operations_of_vgg16_have_the_known_number():
    """30.07 GFLOP per patch of 128, forward and backward."""
    from mm_keras import backbones

    count = 3 * 2 * gpu.multiply_adds(backbones.build("vgg16"), 128)
    assert count == pytest.approx(30.07e9, rel=1e-3)


def test_image_files_are_as_large_as_in_voc(tmp_path):
    files = cpu.image_files(tmp_path, (375, 500), num=2)
    images, labels = (
        [pathlib.Path(file).stat().st_size for file in part]
        for part in (files.image_files, files.label_files)
    )
    assert all(90_000 < size < 120_000 for size in images)
    assert all(1_000 < size < 6_000 for size in labels)


def test_tables_and_files_hold_every_line_with_its_verdict(tmp_path, monkeypatch):
    figures = {"match_400": Measurement(0.1, peer=5.0), "match_4096": Measurement(7.0)}
    others = {key: Measurement(reason="not today") for key in _keys("match") - figures.keys()}
    monkeypatch.setattr(cpu, "match", lambda scale: figures | others)
    console = rich.console.Console(file=io.StringIO(), width=200)
    measurements = groups.measure(["match"], "cpu", console.print)
    assert measurements["mix"].reason == "not among the requested groups"
    assert measurements["vgg_f32"].reason == "not among the requested groups"
    assert output.missed(measurements) == ["match_4096"]
    console.print(output.table(measurements))
    assert "MISSED" in console.file.getvalue()
    assert "requested" not in console.file.getvalue()
    output.write(tmp_path, measurements, "cpu")
    lines = json.loads((tmp_path / "benchmark.json").read_text())["lines"]
    verdicts = {line["key"]: line["is_met"] for line in lines}
    assert verdicts["match_400"] is True and verdicts["match_4096"] is False
    assert verdicts.keys() == measurements.keys()
    text = (tmp_path / "benchmark.md").read_text()
    assert "| match, 4,096 nodes | 7 ms |  |  | at most 5 | MISSED |" in text


def test_each_device_measures_its_own_lines():
    assert "no GPU" in groups.measure(["gpu"], "gpu")["run"].reason
    assert groups.measure(["gpu"], "cpu")["run"].reason == "needs device gpu"
    assert groups.measure(["match"], "gpu")["match_400"].reason == "needs device cpu"


def test_a_missed_target_gives_exit_status_1(monkeypatch, parsed_flags):
    missed = {key: Measurement(1e9, peer=1.0) for key in _keys("match")}
    monkeypatch.setattr(cpu, "match", lambda scale: missed)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with (
        flagsaver.flagsaver(only=["match"]),
        pytest.raises(SystemExit, match="missed: match_400, match_4096"),
    ):
        benchmark.main(["benchmark"])


@pytest.mark.slow
def test_the_table_of_costs_has_a_row_per_task(in_this_process):
    lines = []
    table = costs.table(
        lines.append,
        tuning=((1.0, 4, 16),),
        fine_tuning=((1.0, 1, 32),),
        inference=((1.0, 32),),
        mix=(((40, 50), 2, 16),),
        backbone="testing",
    )
    assert table.splitlines() == lines and len(lines) == 6
    assert lines[2].startswith("| mm | step of 4 nodes of 16 pixels, width 1 |")


def test_costs_are_measured_once_beside_other_groups(tmp_path, monkeypatch, capsys, parsed_flags):
    measurement = Measurement(reason="not today")
    monkeypatch.setattr(cpu, "match", lambda scale: dict.fromkeys(_keys("match"), measurement))
    monkeypatch.setattr(costs, "table", lambda log: log("| mm | a row |") or "| mm | a row |")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with flagsaver.flagsaver(only=["match", "cost"], results=str(tmp_path)):
        benchmark.main(["benchmark"])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"  # CPU times would not include work on a GPU
    printed = capsys.readouterr().out
    assert printed.count("| mm | a row |") == 1 and "not today" in printed
    assert "| mm | a row |" in (tmp_path / "cost.md").read_text()
    assert "lines" in json.loads((tmp_path / "benchmark.json").read_text())


def test_costs_on_a_gpu_are_refused(parsed_flags):
    with (
        flagsaver.flagsaver(only=["cost"], device="gpu"),
        pytest.raises(SystemExit, match="measures the CPU"),
    ):
        benchmark.main(["benchmark"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"only": ["speed"]}, "Unknown group 'speed'"),
        ({"only": ["quality", "match"]}, "runs alone"),
        ({"only": ["quality"], "methods": ["SegNet"]}, "error: No method 'SegNet'"),
    ],
)
def test_wrong_flags_are_one_sentence(values, message, parsed_flags, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with flagsaver.flagsaver(**values), pytest.raises(SystemExit, match=message):
        benchmark.main(["benchmark"])


def test_seeds_of_the_quality_start_at_the_seed_of_the_run(monkeypatch, capsys, parsed_flags):
    asked = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setattr(quality, "compare", lambda comparison, *_: asked.append(comparison) or {})
    monkeypatch.setattr(quality, "table", lambda scores: "no table")
    with flagsaver.flagsaver(only=["quality"], seed=3, num_seeds=2):
        benchmark.main(["benchmark"])
    assert asked[0].seeds == (3, 4)


def test_the_machine_names_gpus_only_for_gpu_lines(monkeypatch):
    monkeypatch.setattr(gpu, "names", lambda: ["A Name 100"])
    assert "cores, A Name 100; keras" in output.machine("gpu")
    assert "A Name" not in output.machine("cpu")


@pytest.mark.slow
def test_memory_is_measured_in_a_new_process():
    cost = cpu.alone(cpu.dense_cost, "testing", 32)
    assert cost.seconds > 0 and cost.peak_bytes > 0


@pytest.mark.slow
def test_gpu_lines_run_on_jax_without_tensorflow():
    code = """
import sys
sys.modules["tensorflow"] = None
from trainers.benchmarks import gpu
from tests.trainers.test_benchmark import SMALL_GPU
measurements = gpu.measure(SMALL_GPU)
assert all(x.figure > 0 for key, x in measurements.items() if "rate" not in key), measurements
try:
    gpu.names()
except gpu.NotRun as error:
    assert "no GPU is visible to jax" in str(error)
else:
    raise AssertionError("gpu.names() must raise an error without a GPU")
"""
    root = pathlib.Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)},
        cwd=root,
        check=True,
        timeout=300,
    )
