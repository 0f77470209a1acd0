"""The workers of a run on several machines.

This module reads and checks TF_CONFIG before TensorFlow does, and waits until all workers answer.
"""

import contextlib
import json
import socket
import threading
import time
from typing import NamedTuple

from trainers import config

EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)
"""A TF_CONFIG. The cluster is equal on all workers; each worker has its own index."""

_JOBS = ("chief", "worker")


class ClusterError(config.UserError):
    """The description of the cluster is wrong, or a worker does not answer."""


class Cluster(NamedTuple):
    """The workers of a run.

    Attributes:
        workers: "host:port" of each worker in TensorFlow's order; the first one is the chief.
        index: the index of this process.
    """

    workers: tuple[str, ...]
    index: int


def read(text: str | None) -> Cluster:
    """Return the cluster that the environment variable TF_CONFIG describes.

    Args:
        text: the value of TF_CONFIG; None if it is not set.

    Raises:
        ClusterError: names the fault, and contains an example.

    >>> read(EXAMPLE)
    Cluster(workers=('host0:2222', 'host1:2222'), index=0)
    """
    try:
        return _parsed(text)
    except ClusterError as error:
        raise ClusterError(
            f"{error} strategy=multi_worker needs the environment variable TF_CONFIG on each "
            f"worker, for example TF_CONFIG='{EXAMPLE}'. Received: {_shortened(text)}"
        ) from None


def _parsed(text):
    if not text:
        raise ClusterError("TF_CONFIG is not set.")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ClusterError(f"TF_CONFIG is not JSON ({error}).") from None
    jobs, task = (_mapping(content, key) for key in ("cluster", "task"))
    for job in jobs:
        if job not in _JOBS:
            raise ClusterError(f"TF_CONFIG has the job {job!r}. Expected chief or worker.")
    kind, index = task.get("type"), task.get("index")
    if kind not in list(jobs):
        raise ClusterError(f"TF_CONFIG's task.type is {kind!r}, which is not a job of its cluster.")
    workers = [address for job in _JOBS if job in jobs for address in _addresses(job, jobs[job])]
    if len(set(workers)) < len(workers):
        raise ClusterError(f"TF_CONFIG repeats an address: {', '.join(workers)}.")
    count = len(jobs[kind])
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
        raise ClusterError(
            f"TF_CONFIG's task.index must be an integer from 0 to {count - 1}, because its cluster "
            f"has {count} of type {kind!r}. Received {index!r}."
        )
    return Cluster(tuple(workers), index + (len(jobs.get("chief", ())) if kind == "worker" else 0))


def _mapping(content, key):
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, dict) or not value:
        raise ClusterError(f"TF_CONFIG must be a JSON object with an object {key!r}.")
    return value


def _addresses(job, addresses):
    if not isinstance(addresses, list) or not addresses:
        raise ClusterError(f"TF_CONFIG's cluster.{job} must be a list of 'host:port'.")
    if job == "chief" and len(addresses) > 1:
        raise ClusterError(f"TF_CONFIG has {len(addresses)} chiefs. Expected one.")
    for address in addresses:
        host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise ClusterError(
                f"TF_CONFIG's cluster.{job} must hold 'host:port' with a port from 1 to 65535. "
                f"Received {address!r}."
            )
    return addresses


def _shortened(text, length=300):
    text = str(text)
    return text if len(text) <= length else f"{text[:length]} ..."


def await_peers(cluster: Cluster, timeout: float):
    """Wait until a connection to every other worker was accepted.

    TensorFlow itself waits for missing workers without a message. Until TensorFlow opens the port
    of this worker, a listener here answers in its place. A peer that already runs TensorFlow
    answers as well.

    Args:
        cluster: the workers.
        timeout: largest number of seconds to wait.

    Raises:
        ClusterError: the port of this worker is in use, or a worker does not answer (named).
    """
    missing = {k: worker for k, worker in enumerate(cluster.workers) if k != cluster.index}
    deadline = time.monotonic() + timeout
    with _answering(cluster.workers[cluster.index]):
        while missing:
            missing = {k: worker for k, worker in missing.items() if not _answers(worker)}
            if missing and time.monotonic() > deadline:
                names = ", ".join(f"worker {k} at {worker}" for k, worker in missing.items())
                raise ClusterError(
                    f"No answer within {timeout:g} seconds from {names}. Start the same command on "
                    "every worker of TF_CONFIG, and check host names, ports and firewalls. Raise "
                    "the setting timeout to wait longer."
                )
            time.sleep(0.2 if missing else 0)


@contextlib.contextmanager
def _answering(address):
    """Accept connections at the port of `address` inside the block."""
    port = int(address.rpartition(":")[2])
    try:
        both = socket.has_dualstack_ipv6()  # IPv6, and IPv4 with it
        family = socket.AF_INET6 if both else socket.AF_INET
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise ClusterError(
            f"Port {port} of this worker in TF_CONFIG ({address}) cannot be opened: "
            f"{error.strerror}. Check whether another run uses it."
        ) from error

    def accept():
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                listener.accept()[0].close()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        # close() alone would not end accept() in the thread, and the port would stay open.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _answers(address) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:
        return False
    return True
