"""Batches made by other hosts: a tf.data service distributes whole steps.

Its workers build the batches of single steps, which are pure functions of (seed, step). The service
assigns steps to workers, and batches arrive in the order in which they become ready.
"""

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator

import tensorflow as tf

_QUEUED = 2  # batches that wait in this process; the service's client buffers more


class ServiceError(RuntimeError):
    """The service returned an error, or no batch within the timeout."""


class Feed:
    """Endless batches of a tf.data service, with a timeout and counts of received steps.

    The service distributes each step at most once. Steps that a lost worker had started never
    arrive; later steps follow instead.

    Args:
        one_step: function(step) -> dataset of one dict, traced into the graph; step is an int64
            scalar. It runs on the service's workers, which must see the same files.
        address: str, grpc://HOST:PORT of the dispatcher.
        start_step: int, the first step.
        timeout: float, seconds to wait for a batch.

    Example:
        >>> feed = Feed(one_step, "grpc://localhost:5050", timeout=60)  # doctest: +SKIP
        >>> int(next(iter(feed))["step"])  # doctest: +SKIP
        0
    """

    def __init__(
        self,
        one_step: Callable[[tf.Tensor], tf.data.Dataset],
        address: str,
        *,
        start_step: int = 0,
        timeout: float = 600,
    ):
        self.one_step, self.address = one_step, address
        self.start_step, self.timeout = start_step, timeout
        self.num_batches = self.num_late = 0
        self.last_step = start_step - 1

    @property
    def num_missing(self) -> int:
        """The number of steps below the largest received step that were not received."""
        return self.last_step - self.start_step + 1 - self.num_batches

    def __iter__(self) -> Iterator[dict]:
        """Yield batches with their step number under "step", an int64 scalar.

        Raises:
            ServiceError: if the service does not answer, or returns an error.
        """
        made = self._made()
        self._await_dispatcher()
        batches, stop = queue.Queue(_QUEUED), threading.Event()
        # Use a thread, because registering and reading a dataset have no timeout. Use a daemon,
        # because a thread that waits in TensorFlow cannot be stopped.
        thread = threading.Thread(target=self._fill, args=(made, batches, stop), daemon=True)
        thread.start()
        try:
            while True:
                yield self._counted(self._next(batches))
        finally:
            stop.set()
            thread.join(timeout=2)

    def _await_dispatcher(self):
        deadline = time.monotonic() + self.timeout
        host, _, port = self.address.removeprefix("grpc://").rpartition(":")
        while True:
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"Nothing answered at the data service {self.address} within "
                        f"{self.timeout:g} seconds ({error}). Start the dispatcher, or check the "
                        "address."
                    ) from error
            time.sleep(0.2)

    def _next(self, batches):
        try:
            result = batches.get(timeout=self.timeout)
        except queue.Empty:
            raise ServiceError(
                f"No batch came from the data service {self.address} within {self.timeout:g} "
                "seconds. The program there is no dispatcher, is stuck, or has no worker: look at "
                "the logs of dispatcher and workers."
            ) from None
        if isinstance(result, Exception):
            raise ServiceError(
                f"The data service {self.address} failed: {str(result)[:500]}"
            ) from result
        return result

    def _counted(self, batch):
        step = int(batch["step"])
        self.num_batches += 1
        self.num_late += step < self.last_step
        self.last_step = max(step, self.last_step)
        return batch

    def _made(self) -> tf.data.Dataset:
        """Return the dataset that the workers run."""

        def numbered(step):
            return self.one_step(step).map(lambda batch: {**batch, "step": step})

        # The dataset is endless, because later steps replace the steps of a lost worker.
        steps = tf.data.Dataset.range(self.start_step, tf.int64.max)
        return steps.interleave(
            numbered, cycle_length=2, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False
        )

    def _fill(self, made, batches, stop):
        try:
            # Dynamic sharding assigns each element of the source (a step) to one worker.
            policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
            distribute = tf.data.experimental.service.distribute(policy, self.address)
            for batch in made.apply(distribute):
                if not _put(batches, batch, stop):
                    return
        except Exception as error:  # the training thread raises it
            _put(batches, error, stop)


def _put(batches, item, stop) -> bool:
    """Wait for space in the queue; return False if `stop` was set meanwhile."""
    while not stop.is_set():
        try:
            batches.put(item, timeout=0.5)
            return True
        except queue.Full:
            continue
    return False
