"""Several replicas: one global graph as on a single device, or one graph per replica."""

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

from trainers import config, devices
from trainers.devices import replicas

PROGRAM = pathlib.Path(__file__).parents[1] / "programs" / "replicas.py"
ROOT = pathlib.Path(__file__).parents[3]
OF_ONE = ("chunk", "alexnet", "statistics", "hubs_and_pairs", "triplet_all")


def _start(path, num_devices, *tasks, **environment):
    return subprocess.Popen(
        [sys.executable, PROGRAM, path, str(num_devices), *tasks],
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


def _on_devices(folder, number, *tasks):
    path = folder / f"{number}.json"
    return _result(_start(path, number, *tasks), path)


@pytest.fixture(scope="module")
def global_graphs(tmp_path_factory):
    """{number of logical CPU devices: results}."""
    folder = tmp_path_factory.mktemp("global")
    files = {number: folder / f"{number}.json" for number in (1, 2)}
    started = {number: _start(file, number, "global") for number, file in files.items()}
    return {number: _result(started[number], file)["global"] for number, file in files.items()}


@pytest.fixture(scope="module")
def of_one(tmp_path_factory):
    return _on_devices(tmp_path_factory.mktemp("one"), 1, *OF_ONE)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    tasks = (*OF_ONE, "replica", "same_labels", "fit", "overflow")
    return _on_devices(tmp_path_factory.mktemp("two"), 2, *tasks)


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
def test_a_global_graph_equals_one_device_with_the_joint_batch(global_graphs):
    """Compare edges of each replica, losses, and weights and statistics after three updates."""
    ours, theirs = global_graphs[2], global_graphs[1]
    assert len(ours["edges"]) == 2 and len(theirs["weights"]) > 10
    assert theirs["figures"][0] != theirs["figures"][1]
    _assert_same(ours, theirs)


@pytest.mark.slow
def test_a_global_graph_works_on_four_devices(global_graphs, tmp_path):
    four = _on_devices(tmp_path, 4, "global")["global"]
    assert len(four["edges"]) == 4
    _assert_same(four, global_graphs[1])


@pytest.mark.slow
def test_a_global_graph_works_on_two_processes(global_graphs, tmp_path):
    with socket.create_server(("", 0)) as one, socket.create_server(("", 0)) as other:
        workers = [f"localhost:{server.getsockname()[1]}" for server in (one, other)]
    started = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        path = tmp_path / f"{index}.json"
        started.append((_start(path, 0, "global", TF_CONFIG=json.dumps(task)), path))
    for process in started:
        _assert_same(_result(*process)["global"], global_graphs[1])


@pytest.mark.slow
def test_a_global_graph_works_in_chunks(global_graphs, of_one, of_two):
    """Running statistics differ, because each replica sees only its own chunks."""
    ours, theirs = of_two["chunk"], of_one["chunk"]
    _assert_same(ours, theirs, but=("moving_mean", "moving_variance"))
    assert theirs["figures"][0] != global_graphs[1]["figures"][0]


@pytest.mark.slow
def test_a_sum_of_losses_equals_one_device_with_the_joint_batch(of_one, of_two):
    ours, theirs = of_two["hubs_and_pairs"], of_one["hubs_and_pairs"]
    assert any("hubs" in path for path in theirs["weights"])
    _assert_same(ours, theirs)


@pytest.mark.slow
def test_all_triplets_sum_over_replicas_in_place_of_joining_the_nodes(of_one, of_two):
    ours, theirs = of_two["triplet_all"], of_one["triplet_all"]
    losses = [[figures["loss"] for figures in run["figures"]] for run in (ours, theirs)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    _assert_same(ours | {"figures": []}, theirs | {"figures": []})


@pytest.mark.slow
def test_the_batch_normalization_of_caffe_is_synchronized(of_one, of_two):
    _assert_same(of_two["alexnet"], of_one["alexnet"])


@pytest.mark.slow
def test_renewed_statistics_equal_one_device_with_the_joint_batch(of_one, of_two):
    ours, theirs = of_two["statistics"]["weights"], of_one["statistics"]["weights"]
    assert [value for path, value in theirs.items() if path.endswith("factor")] == [
        pytest.approx([1.999])
    ] * 5
    for path, expected in theirs.items():
        scale = max(1, np.abs(expected).max())
        np.testing.assert_allclose(
            np.divide(ours[path], scale), np.divide(expected, scale), atol=1e-5, err_msg=path
        )


@pytest.mark.slow
def test_each_replica_has_its_own_graph(global_graphs, of_two):
    (labels, *_), (other_labels, *_) = of_two["replica"]["edges"]
    whole, *_ = global_graphs[1]["edges"][0]
    assert sorted(labels + other_labels) == sorted(whole) and len(labels) == len(whole) // 2
    edges, other_edges = of_two["same_labels"]
    assert edges != other_edges


@pytest.mark.slow
def test_fit_under_a_strategy_has_the_same_step(global_graphs, of_two):
    figures = global_graphs[1]["figures"][0]
    for name in ("loss", "positive_distance", "negative_distance"):
        np.testing.assert_allclose(of_two["fit"][name], [figures[name]], atol=1e-5)


@pytest.mark.slow
def test_an_overflow_on_the_last_replica_skips_the_step_on_all(of_two):
    overflow = of_two["overflow"]
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
        devices.check(_experiment(*settings), number)


def test_steps_that_can_be_divided_are_accepted():
    devices.check(_experiment(("mm.chunk", 40), ("jigsaw.num_images", 9)), 4)


def test_a_single_device_and_an_unused_tf_config_are_reported(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{")
    console = rich.console.Console(file=io.StringIO(), width=200)
    made = devices.create(_experiment(("strategy", "mirrored")), console)
    assert made.count == 1 and made.is_chief and made.shares == [(0, 1)]
    text = console.file.getvalue()
    assert "a single device" in text and "TF_CONFIG is set, but strategy=mirrored ignores" in text
    assert made.every_worker(7) == [7]


def test_a_wrong_tf_config_is_refused_before_tensorflow_reads_it(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{")
    with pytest.raises(config.UserError, match="TF_CONFIG is not JSON"):
        devices.create(_experiment(("strategy", "multi_worker")), rich.console.Console())


def test_a_precision_that_a_gpu_does_not_support_is_refused(monkeypatch):
    gpu = types.SimpleNamespace(name="GPU:0", device_type="GPU")
    details = {"compute_capability": (7, 0), "device_name": "Tesla V100"}
    monkeypatch.setattr(replicas.tf.config, "list_physical_devices", lambda kind: [gpu])
    monkeypatch.setattr(replicas.tf.config.experimental, "get_device_details", lambda gpu: details)
    with pytest.raises(config.ConfigError, match="Tesla V100 has 7.0. Set precision=mixed_float16"):
        devices.create(_experiment(("precision", "mixed_bfloat16")), rich.console.Console())
    details["compute_capability"] = (8, 6)
    devices.create(_experiment(("precision", "mixed_bfloat16")), rich.console.Console())


def test_mixed_precision_on_a_cpu_is_reported():
    console = rich.console.Console(file=io.StringIO(), width=200)
    devices.create(_experiment(("precision", "mixed_float16")), console)
    assert "precision mixed_float16 is slower than float32 on a CPU" in console.file.getvalue()
