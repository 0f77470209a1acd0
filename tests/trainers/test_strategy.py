"""Several replicas: equal to one device with the joint batch, or a graph for each."""

import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import types

import numpy as np
import pytest
import rich.console

from trainers import config, strategy

PROGRAM = pathlib.Path(__file__).parent / "programs" / "replicas.py"
ROOT = pathlib.Path(__file__).parents[2]


def _start(path, *devices, **environment):
    return subprocess.Popen(
        [sys.executable, PROGRAM, path, *map(str, devices)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _result(process, path, timeout=300):
    try:
        _, stderr = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == 0, stderr[-4000:]
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def of_devices(tmp_path_factory):
    """{number of logical CPU devices: results}."""
    folder = tmp_path_factory.mktemp("devices")
    paths = {number: folder / f"{number}.json" for number in (1, 2, 4)}
    return {number: _result(_start(path, number), path) for number, path in paths.items()}


@pytest.fixture(scope="module")
def of_workers(tmp_path_factory):
    """The results of each of two workers."""
    folder = tmp_path_factory.mktemp("workers")
    with socket.create_server(("", 0)) as one, socket.create_server(("", 0)) as other:
        workers = [f"localhost:{server.getsockname()[1]}" for server in (one, other)]
    started = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        path = folder / f"{index}.json"
        started.append((_start(path, TF_CONFIG=json.dumps(task)), path))
    return [_result(*process) for process in started]


def _assert_same(ours, theirs, but=()):
    assert all(edges == theirs["edges"][0] for edges in ours["edges"])
    for figures, expected in zip(ours["figures"], theirs["figures"], strict=True):
        for name in expected.keys() - {"gradient_norm"}:
            np.testing.assert_allclose(figures[name], expected[name], 1e-5, 1e-5, err_msg=name)
    for path, expected in theirs["weights"].items():
        if not path.endswith(but):
            scale = max(1, np.abs(expected).max())
            difference = np.subtract(ours["weights"][path], expected) / scale
            np.testing.assert_allclose(difference, 0, atol=1e-5, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4])
def test_a_global_graph_is_that_of_one_device_with_the_joint_batch(of_devices, number):
    """Edges of each replica, losses, and the weights and statistics that three updates leave."""
    ours, theirs = of_devices[number]["global"], of_devices[1]["global"]
    assert len(ours["edges"]) == number and len(theirs["weights"]) > 10
    assert theirs["figures"][0] != theirs["figures"][1]
    _assert_same(ours, theirs)


@pytest.mark.slow
def test_a_global_graph_over_two_processes(of_devices, of_workers):
    for worker in of_workers:
        _assert_same(worker["global"], of_devices[1]["global"])


@pytest.mark.slow
def test_a_global_graph_in_chunks(of_devices):
    """Running statistics apart: each replica's see its own chunks only."""
    ours, theirs = of_devices[2]["chunk"], of_devices[1]["chunk"]
    _assert_same(ours, theirs, but=("moving_mean", "moving_variance"))
    assert theirs["figures"][0] != of_devices[1]["global"]["figures"][0]


@pytest.mark.slow
def test_caffes_batch_normalisation_is_synchronised_too(of_devices):
    _assert_same(of_devices[2]["alexnet"], of_devices[1]["alexnet"])


@pytest.mark.slow
def test_a_graph_for_each_replica(of_devices):
    replica = of_devices[2]["replica"]
    (labels, *_), (other_labels, *_) = replica["edges"]
    whole, *_ = of_devices[1]["global"]["edges"][0]
    assert sorted(labels + other_labels) == sorted(whole) and len(labels) == len(whole) // 2
    assert replica["same_labels"][0] != replica["same_labels"][1]


@pytest.mark.slow
def test_fit_under_a_strategy_is_the_same_step(of_devices):
    figures = of_devices[1]["global"]["figures"][0]
    for name in ("loss", "positive_distance", "negative_distance"):
        np.testing.assert_allclose(of_devices[2]["fit"][name], [figures[name]], atol=1e-5)


@pytest.mark.slow
def test_an_overflow_on_the_last_replica_skips_the_step_on_all(of_devices):
    overflow = of_devices[2]["overflow"]
    assert overflow["unchanged"] and overflow["finite"]
    assert overflow["counted"] == [0, 2.0**39] and overflow["then"] == 1


def _experiment(*settings):
    experiment = config.Experiment()
    for key, value in settings:
        experiment = config.replace(experiment, key, value)
    return experiment


@pytest.mark.parametrize(
    ("settings", "number", "message"),
    [
        ((("mm.num_images", 16),), 3, "mm.num_images, .* Received 16 for 3 replicas"),
        ((("segment.num_images", 15),), 2, "segment.num_images, .* Received 15 for 2 replicas"),
        (
            (("network.init", "jigsaw"), ("jigsaw.num_images", 9)),
            2,
            "jigsaw.num_images, .* Received 9 for 2",
        ),
        ((("mm.chunk", 32),), 2, "mm.chunk=32 for 80 patches .* on 2 replicas"),
        ((("mm.chunk", 150),), 1, "mm.chunk=150 for 160 patches .mm.num_images=16 x"),
    ],
)
def test_steps_that_cannot_be_divided_are_refused(settings, number, message):
    with pytest.raises(config.ConfigError, match=message):
        strategy.check(_experiment(*settings), number)


def test_what_divides_passes():
    strategy.check(_experiment(("mm.chunk", 40), ("jigsaw.num_images", 9)), 4)


def test_one_device_is_told_and_an_unused_tf_config_too(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{")
    console = rich.console.Console(file=io.StringIO(), width=200)
    replicas = strategy.create(_experiment(("strategy", "mirrored")), console)
    assert replicas.count == 1 and replicas.is_chief and replicas.shares == [(0, 1)]
    told = console.file.getvalue()
    assert "a single device" in told and "TF_CONFIG is set, but not used" in told
    assert replicas.every_worker(7) == [7]


def test_a_malformed_tf_config_is_refused_before_tensorflow_sees_it(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{")
    with pytest.raises(config.UserError, match="TF_CONFIG is not JSON"):
        strategy.create(_experiment(("strategy", "multi_worker")), rich.console.Console())


def test_a_precision_that_a_gpu_cannot_do_is_refused(monkeypatch):
    gpu = types.SimpleNamespace(name="GPU:0", device_type="GPU")
    details = {"compute_capability": (7, 0), "device_name": "Tesla V100"}
    monkeypatch.setattr(strategy.tf.config, "list_physical_devices", lambda kind: [gpu])
    monkeypatch.setattr(strategy.tf.config.experimental, "get_device_details", lambda gpu: details)
    with pytest.raises(config.ConfigError, match="Tesla V100 has 7.0. Use mixed_float16"):
        strategy.create(_experiment(("precision", "mixed_bfloat16")), rich.console.Console())
    details["compute_capability"] = (8, 6)
    strategy.create(_experiment(("precision", "mixed_bfloat16")), rich.console.Console())


def test_mixed_precision_on_a_cpu_is_told():
    console = rich.console.Console(file=io.StringIO(), width=200)
    strategy.create(_experiment(("precision", "mixed_float16")), console)
    assert "on a CPU it is slower than float32" in console.file.getvalue()
