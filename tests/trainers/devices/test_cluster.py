"""TF_CONFIG: correct and wrong descriptions, and workers that do not answer."""

import json
import socket
import threading
import time

import pytest

from trainers.devices import cluster

WORKERS = ["a:1000", "b:1000"]


def described(workers=WORKERS, kind="worker", index=0, **jobs):
    content = {"cluster": {"worker": workers, **jobs}, "task": {"type": kind, "index": index}}
    return json.dumps(content)


def test_workers_are_in_tensorflows_order_with_the_chief_first():
    assert cluster.read(described(index=1)) == (("a:1000", "b:1000"), 1)
    with_chief = {"chief": ["c:1000"]}
    assert cluster.read(described(index=1, **with_chief)) == (("c:1000", "a:1000", "b:1000"), 2)
    assert cluster.read(described(kind="chief", **with_chief)).index == 0
    assert cluster.read(described(["[::1]:80"])).workers == ("[::1]:80",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "TF_CONFIG is not set"),
        ("", "TF_CONFIG is not set"),
        ("{", "TF_CONFIG is not JSON"),
        ("[1]", "object 'cluster'"),
        ('{"cluster": 3, "task": {"type": "worker"}}', "object 'cluster'"),
        ('{"cluster": {"worker": ["a:1"]}}', "object 'task'"),
        (described(ps=["c:1"]), "job 'ps'. Expected chief or worker"),
        (described(kind="evaluator"), "task.type is 'evaluator'"),
        (described(kind=[]), "task.type is \\[\\]"),
        (described(index=2), "from 0 to 1, .* Received 2"),
        (described(index=-1), "Received -1"),
        (described(index="0"), "Received '0'"),
        (described(index=True), "Received True"),
        (described([]), "cluster.worker must be a list"),
        (described("a:1"), "cluster.worker must be a list"),
        (described(["a:1", "a"]), "must hold 'host:port' .* Received 'a'"),
        (described(["a:1", 5]), "Received 5"),
        (described(["a:1", "b:70000"]), "Received 'b:70000'"),
        (described(["a:1", ":7"]), "Received ':7'"),
        (described(["a:1", "a:1"]), "repeats an address"),
        (described(chief=["c:1", "d:1"]), "2 chiefs. Expected one"),
        ("[" * 100_000, "TF_CONFIG"),
    ],
)
def test_a_wrong_description_is_refused_with_an_example(text, message):
    with pytest.raises(cluster.ClusterError, match=message) as error:
        cluster.read(text)
    assert cluster.EXAMPLE in str(error.value) and len(str(error.value)) < 1000
    assert error.value.__cause__ is None


def ports(number):
    servers = [socket.create_server(("", 0)) for _ in range(number)]
    found = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return [f"localhost:{port}" for port in found]


def test_workers_find_each_other_in_any_order_of_starts():
    workers = tuple(ports(3))
    finished = []

    def work(index):
        time.sleep(0.3 * index)
        cluster.await_peers(cluster.Cluster(workers, index), timeout=20)
        # Next, TensorFlow opens the port and answers the workers that still wait.
        with socket.create_server(("", int(workers[index].rpartition(":")[2]))):
            finished.append(index)
            while len(finished) < 3:
                time.sleep(0.05)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(finished) == [0, 1, 2]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_worker_answers_on_both_protocols(host):
    own = f"{host}:{ports(1)[0].rpartition(':')[2]}"
    with cluster._answering(own):
        assert cluster._answers(own)


def test_a_worker_that_never_answers_is_named_after_the_timeout():
    workers = tuple(ports(2))
    started = time.monotonic()
    with pytest.raises(
        cluster.ClusterError, match=f"within 1 seconds from worker 1 at {workers[1]}"
    ):
        cluster.await_peers(cluster.Cluster(workers, 0), timeout=1)
    assert time.monotonic() - started < 10


def test_a_port_in_use_is_refused():
    with socket.create_server(("", 0)) as server:
        own = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(cluster.ClusterError, match="Check whether another run uses it"):
            cluster.await_peers(cluster.Cluster((own, *ports(1)), 0), timeout=1)
