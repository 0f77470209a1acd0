"""Batches that other hosts make: whole steps handed out by a tf.data service.

Its workers build the batches of single steps, which are pure functions of (seed, step) as ever; the
service decides which worker makes which step, and they come as they get ready.
"""

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator

import tensorflow as tf

_QUEUED = 2  # batches that wait in this process; the service's client holds more


class ServiceError(RuntimeError):
    """The service gave no batch within the time allowed, or an error."""


class Feed:
    """Endless batches of a tf.data service, with a time-out and an account of what came.

    Each step is given out once at most: the steps that a lost worker had begun never come, and
    later ones follow in their place.

    Args:
        one_step: function(step) -> dataset of one dict, traced into the graph; step is an int64
            scalar. It runs on the service's workers, which must see the same files.
        address: grpc://HOST:PORT of the dispatcher.
        start_step: the first step.
        timeout: seconds that a batch may take.
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
        """Steps below the largest one so far that have not come."""
        return self.last_step - self.start_step + 1 - self.num_batches

    def __iter__(self) -> Iterator[dict]:
        """Yields batches with their step number under "step", an int64 scalar.

        Raises:
            ServiceError: says what did not answer.
        """
        made = self._made()
        self._await_dispatcher()
        batches, stop = queue.Queue(_QUEUED), threading.Event()
        # A thread of its own: neither registering nor reading a dataset takes a time-out. A daemon,
        # since one that waits in TensorFlow for good cannot be ended.
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
                "seconds. What answers there is no dispatcher, is stuck, or has no worker: look at "
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
        """The batches as a worker makes them."""

        def numbered(step):
            return self.one_step(step).map(lambda batch: {**batch, "step": step})

        # No end: what is lost with a worker is made up for by later steps.
        steps = tf.data.Dataset.range(self.start_step, tf.int64.max)
        return steps.interleave(
            numbered, cycle_length=2, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False
        )

    def _fill(self, made, batches, stop):
        try:
            # Dynamic sharding gives each element of the source, a step, to one worker.
            policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
            distribute = tf.data.experimental.service.distribute(policy, self.address)
            for batch in made.apply(distribute):
                if not _put(batches, batch, stop):
                    return
        except Exception as error:  # whatever it is, the training thread is to raise it
            _put(batches, error, stop)


def _put(batches, item, stop) -> bool:
    """Waits for room; False if `stop` was set meanwhile."""
    while not stop.is_set():
        try:
            batches.put(item, timeout=0.5)
            return True
        except queue.Full:
            continue
    return False
