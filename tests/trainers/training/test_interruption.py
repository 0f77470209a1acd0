"""Signals are noted until a step is saved; a second one stops at once."""

import os
import signal

import pytest

from trainers.training import interruption


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_a_signal_is_a_request(number):
    before = signal.getsignal(number)
    with interruption.deferred() as stop:
        stop.check("not yet")
        os.kill(os.getpid(), number)
        assert stop.is_requested
        with pytest.raises(interruption.Stopped, match="step 3; the same command continues"):
            stop.check("step 3")
    assert signal.getsignal(number) == before


def test_a_second_signal_is_not_deferred():
    with pytest.raises(KeyboardInterrupt), interruption.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_workers_of_a_cluster_keep_their_handlers():
    before = signal.getsignal(signal.SIGTERM)
    with interruption.deferred(is_active=False) as stop:
        assert signal.getsignal(signal.SIGTERM) == before and not stop.is_requested
