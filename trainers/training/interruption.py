"""SIGINT and SIGTERM while a stage trains: finish the step, save, and stop."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from trainers import config

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(config.UserError):
    """The user or the system stopped a run; its last step is saved."""


class Request:
    """A request to stop, from a signal."""

    def __init__(self):
        self.is_requested = False

    def check(self, text: str) -> None:
        """Raise `Stopped` with a text, if a stop is requested."""
        if self.is_requested:
            raise Stopped(f"{text}; the same command continues there")


@contextlib.contextmanager
def deferred(is_active: bool = True) -> Iterator[Request]:
    """Note SIGINT and SIGTERM instead of stopping in the middle of a step.

    A second signal stops at once. Signals can be handled in the main thread only.

    Args:
        is_active: False leaves the signals alone. Workers that wait for each other must not stop
            at different steps.
    """
    request = Request()
    if not is_active or threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number, frame):
        del frame
        request.is_requested = True
        signal.signal(number, before[number])

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
