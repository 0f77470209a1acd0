"""Batches from a tf.data service: each step at most once, with time-outs instead of hangs."""

import pathlib
import socket
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from pipelines.batches import order, service

PROGRAM = pathlib.Path(__file__).parent / "programs" / "data_service.py"
ROOT = pathlib.Path(__file__).parents[3]


def one_step(step):
    def numbered(image_id, seed):
        return {"id": image_id, "seed": seed}

    step_order = order.Order(num_images=3, start_step=step, num_steps=step + 1, seed=1)
    return order.batches(7, numbered, step_order)


def free_port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def server():
    """Function(dispatcher port or nothing) -> (process, port); killed at the end."""
    processes = []

    def start(*dispatcher):
        port = free_port()
        command = [sys.executable, PROGRAM, str(port), *map(str, dispatcher)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process, port

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_each_step_is_received_once_after_a_worker_is_killed(server):
    _, dispatcher = server()
    workers = [server(dispatcher)[0] for _ in range(2)]
    feed = service.Feed(one_step, f"grpc://localhost:{dispatcher}", start_step=4, timeout=60)
    came = {}
    for batch in feed:
        step = int(batch["step"])
        assert step not in came
        came[step] = batch
        if len(came) == 40:
            workers[0].kill()
        if len(came) == 300:
            break
    whole = list(
        order.batches(
            7,
            lambda image_id, seed: {"id": image_id, "seed": seed},
            order.Order(num_images=3, num_steps=max(came) + 1, seed=1),
        ).as_numpy_iterator()
    )
    for step, batch in came.items():
        np.testing.assert_array_equal(batch["id"], whole[step]["id"])
        np.testing.assert_array_equal(batch["seed"], whole[step]["seed"])
    assert min(came) == 4 and feed.num_batches == 300
    assert feed.num_missing == len(set(range(4, max(came) + 1)) - set(came)) < 100


@pytest.mark.slow
def test_a_dispatcher_without_workers_raises_an_error(server):
    _, dispatcher = server()
    feed = service.Feed(one_step, f"grpc://localhost:{dispatcher}", timeout=3)
    with pytest.raises(service.ServiceError, match="within 3 seconds. .* has no worker"):
        next(iter(feed))


@pytest.mark.slow
@pytest.mark.parametrize("listens", [True, False])
def test_an_unanswered_request_raises_an_error_and_the_process_ends(listens):
    """A separate process also shows that the waiting thread does not keep it alive."""
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        if not listens:
            server.close()
        code = f"""
        from pipelines.batches import service
        import tensorflow as tf
        feed = service.Feed(
            lambda step: tf.data.Dataset.from_tensors({{"x": step}}),
            "grpc://localhost:{port}",
            timeout=2,
        )
        try:
            next(iter(feed))
        except service.ServiceError as error:
            print(error)
        """
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
    guess = "is no dispatcher, is stuck" if listens else "Nothing answered at the data service"
    assert "within 2 seconds" in done.stdout and guess in done.stdout, done.stderr[-2000:]
    assert done.returncode == 0 and time.monotonic() - started < 100
