"""The command trainers.mm on several devices, on two workers and with a data service."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[3]
PROGRAMS = pathlib.Path(__file__).parents[1] / "programs"
SERVER = ROOT / "tests" / "pipelines" / "batches" / "programs" / "data_service.py"
SMALL = [
    "--dataset=folder",
    "--backbone=testing",
    "--set=network.width=1",
    "--set=data.shorter_side=none",
    "--set=evaluate.boundary=false",
    "--set=mm.num_images=2",
    "--set=mm.patches_per_image=4",
    "--set=mm.patch_size=16",
    "--set=mm.min_size=8",
    "--set=mm.max_size=24",
    "--set=mm.crop=30",
    "--set=segment.num_images=2",
    "--set=segment.crop=24",
    *(
        f"--set={stage}.{key}={value}"
        for stage in ("mm", "segment")
        for key, value in (("steps", 6), ("drops", ""), ("log_every", 1), ("checkpoint_every", 2))
    ),
]


@pytest.fixture
def start(tiny_data, tmp_path):
    """Function(command, flags, environment) -> process. The fixture kills it after the test."""
    processes = []

    def run(command, *flags, **variables):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TFDS_DATA_DIR": str(tmp_path / "r")}
        process = subprocess.Popen(
            [sys.executable, *command, *SMALL, f"--data_dir={tiny_data}", *flags],
            env=environment | variables,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait()


def _output(process, code=0, timeout=300):
    stdout, stderr = process.communicate(timeout=timeout)
    assert process.returncode == code, stdout[-2000:] + stderr[-4000:]
    return " ".join((stdout + stderr).split())


def _ports(number):
    servers = [socket.create_server(("", 0)) for _ in range(number)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def _losses(workdir, stage):
    lines = (workdir / stage / "metrics.jsonl").read_text().splitlines()
    return [(entry["step"], entry["loss"]) for entry in map(json.loads, lines)]


@pytest.fixture
def start_workers(start):
    """Function(workdir, flags) -> processes of two workers."""

    def run(workdir, *flags):
        workers = [f"localhost:{port}" for port in _ports(2)]
        return [
            start(
                ["-m", "trainers.mm"],
                "--strategy=multi_worker",
                f"--workdir={workdir}",
                *flags,
                TF_CONFIG=json.dumps(
                    {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
                ),
            )
            for index in range(2)
        ]

    return run


@pytest.mark.slow
def test_two_workers_continue_after_one_was_lost(start_workers, tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    chief, worker = start_workers(unbroken)
    assert "2 replicas (CPU, 2 workers; this is worker 0)" in _output(chief)
    assert "miou" not in _output(worker)
    results = json.loads((unbroken / "results.json").read_text())
    assert set(results["stages"]) == {"mm", "segment", "evaluate", "export"}
    recorded = json.loads((unbroken / "mm" / "config.json").read_text())
    assert recorded["num_replicas"] == 2

    chief, worker = start_workers(broken)
    deadline = time.monotonic() + 200
    metrics = broken / "segment" / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
        assert chief.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    worker.kill()
    message = _output(chief, code=1, timeout=120)
    assert "error: Another worker of TF_CONFIG was lost or has stopped. Start the same" in message
    chief, worker = start_workers(broken)
    output = _output(chief)
    assert "mm: done already" in output and "segment: continuing at step" in output
    _output(worker)
    for stage in ("mm", "segment"):
        assert (
            _losses(broken, stage) == _losses(unbroken, stage) and len(_losses(broken, stage)) == 6
        )


@pytest.mark.slow
def test_workers_with_other_settings_are_refused(start_workers, start, tmp_path):
    ports = _ports(2)
    processes = [
        start(
            ["-m", "trainers.mm"],
            "--strategy=multi_worker",
            f"--set=mm.margin={2 + index}",
            TF_CONFIG=json.dumps(
                {
                    "cluster": {"worker": [f"localhost:{port}" for port in ports]},
                    "task": {"type": "worker", "index": index},
                }
            ),
        )
        for index in range(2)
    ]
    for process in processes:
        assert "Worker 1 of TF_CONFIG has other settings" in _output(process, code=1)


@pytest.mark.slow
def test_a_single_worker_stops_after_the_timeout(start):
    workers = [f"localhost:{port}" for port in _ports(2)]
    description = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": 0}}
    process = start(
        ["-m", "trainers.mm"],
        "--strategy=multi_worker",
        "--set=timeout=2",
        TF_CONFIG=json.dumps(description),
    )
    message = _output(process, code=1, timeout=120)
    assert f"No answer within 2 seconds from worker 1 at {workers[1]}" in message
    assert "Traceback" not in message


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_all_stages_run_on_two_devices_in_mixed_precision(start, tiny_data, tmp_path, precision):
    flags = (
        f"--precision={precision}",
        f"--workdir={tmp_path / 'run'}",
        "--init=jigsaw",
        f"--unlabelled_dir={tiny_data / 'images' / 'val'}",
        "--set=jigsaw.steps=3",
        "--set=jigsaw.drops=",
        "--set=jigsaw.num_images=2",
        "--set=jigsaw.cell=14",
        "--set=jigsaw.tile=12",
        "--set=jigsaw.shorter_side=none",
        "--set=mm.graph=global",
        "--set=mm.chunk=2",
        "--strategy=mirrored",
    )
    output = _output(start([PROGRAMS / "main_on_devices.py", "2"], *flags))
    assert "2 replicas (CPU) share the images of each step" in output
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["stages"]) == ["proxy", "mm", "segment", "evaluate", "export"]
    assert 0 <= results["proxy"]["accuracy"] <= 1 and 0 <= results["miou"] <= 1
    for stage in ("proxy", "mm", "segment"):
        lines = (tmp_path / "run" / stage / "metrics.jsonl").read_text().splitlines()
        last = json.loads(lines[-1])
        assert np.isfinite(last["loss"]) and last["non_finite"] == 0
        assert ("skipped_steps" in last) == (precision == "mixed_float16")
    # A run that was trained on two devices can be predicted on one.
    again = _output(start(["-m", "trainers.mm"], *flags[:-1], "--stage=mm,evaluate"))
    assert "mm: done already" in again and "evaluate: done already" in again


@pytest.mark.slow
def test_stage_mm_uses_the_batches_of_a_data_service(start, tmp_path):
    dispatcher, first, second = _ports(3)
    servers = []
    for ports in ((dispatcher,), (first, dispatcher), (second, dispatcher)):
        command = [sys.executable, SERVER, *map(str, ports)]
        servers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert servers[-1].stdout.readline() == "ready\n"
    try:
        process = start(
            ["-m", "trainers.mm"],
            f"--data_service=grpc://localhost:{dispatcher}",
            "--stage=mm",
            "--set=timeout=100",
            f"--workdir={tmp_path / 'run'}",
        )
        output = _output(process)
    finally:
        for server in servers:
            server.kill()
    assert "cannot be repeated or continued exactly" in output
    assert "mm: 6 batches came from the data service" in output
    assert len(_losses(tmp_path / "run", "mm")) == 6


@pytest.mark.slow
def test_a_data_service_that_does_not_answer_is_an_error_without_traceback(start, tmp_path):
    process = start(
        ["-m", "trainers.mm"],
        f"--data_service=grpc://localhost:{_ports(1)[0]}",
        "--stage=mm",
        "--set=timeout=2",
        f"--workdir={tmp_path / 'run'}",
    )
    message = _output(process, code=1, timeout=120)
    assert "error: Stage mm: Nothing answered at the data service grpc://localhost" in message
    assert "Traceback" not in message
