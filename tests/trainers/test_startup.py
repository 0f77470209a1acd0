"""Lines of TensorFlow's start: noise is held back, everything else is printed."""

import os

import pytest

from trainers import startup

NOISE = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    "I0000 00:00:1795.5 1572 cudart_stub.cc:31] Could not find cuda drivers on your machine.\n"
    "2026-01-01 noise of another kind\n"
    "E0000 00:00:1795.5 1572 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)\n"
    "E0000 00:00:1795.5 1572 cuda_dnn.cc:9] a real error\n"
)


def test_noise_of_native_code_is_held_back_and_other_lines_are_printed(capfd):
    with startup.quiet():
        os.write(2, NOISE.encode())
    assert capfd.readouterr().err.splitlines() == [
        "2026-01-01 noise of another kind",
        "E0000 00:00:1795.5 1572 cuda_dnn.cc:9] a real error",
    ]


def test_after_an_error_all_lines_are_printed(capfd):
    with pytest.raises(ImportError), startup.quiet():
        os.write(2, NOISE.encode())
        raise ImportError
    assert capfd.readouterr().err == NOISE


def test_the_standard_error_works_afterwards(capfd):
    with startup.quiet():
        pass
    os.write(2, b"I0000 00:00:1795.5 later\n")
    assert capfd.readouterr().err == "I0000 00:00:1795.5 later\n"
