"""The end of a command: one sentence for errors that a user can fix."""

import errno
import os
import signal

import pytest
import tensorflow as tf

from trainers import command_line, config


def raising(error):
    def function():
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (config.UserError("Correct it."), "error: Correct it."),
        (OSError(errno.ENOSPC, "No space left on device", "a.h5"), "a.h5: No space left .* Free"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission .*--workdir"),
        (OSError(errno.EPERM, "Operation not permitted", "a"), "Choose a folder .*--output"),
        (OSError(errno.EROFS, "Read-only file system", "a"), "Read-only .* Choose a folder"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a"), "in the place of a folder"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a"), "Restore the file; the same comm"),
        (OSError("Unable to open file\nmore"), "error: Unable to open file. Restore"),
        (OSError(), "error: OSError. Restore"),
        (tf.errors.DataLossError(None, None, ""), "error: DataLossError. Restore"),
        (tf.errors.DataLossError(None, None, "corrupted"), "error: corrupted. Restore"),
        (tf.errors.ResourceExhaustedError(None, None, "No space left"), "No space left. Free"),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), "out of memory"),
        (MemoryError("Unable to allocate 9 GiB"), "out of memory: Unable .* Use smaller batches"),
        (MemoryError(), "out of memory: MemoryError. Use smaller batches"),
    ],
)
def test_expected_errors_are_one_sentence(error, sentence):
    with pytest.raises(SystemExit, match=sentence):
        command_line.call(raising(error))


@pytest.mark.parametrize("error", [ValueError("x"), tf.errors.InvalidArgumentError(None, None, "")])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)):
        command_line.call(raising(error))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_with_their_status(number, status, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.call(lambda: os.kill(os.getpid(), number))
    assert ended.value.code == status
    assert capsys.readouterr().err == "stopped; the same command continues the run\n"


def test_control_characters_do_not_reach_the_terminal():
    with pytest.raises(SystemExit, match=r"a\\x1b\[2J"):
        command_line.call(raising(config.UserError("a\x1b[2J")))
