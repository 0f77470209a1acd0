"""The lock of a working folder: one run at a time writes there, readers are never blocked."""

import contextlib
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator

import filelock

from trainers.runs import files
from trainers.runs.runtime import WorkdirError

OWNER = ".owner.json"
"""The file that names the process that holds the lock."""


@contextlib.contextmanager
def holding(workdir: pathlib.Path, flag: str = "--workdir") -> Iterator[None]:
    """Hold the lock of a working folder while the body runs.

    The operating system releases the lock when its process ends, also after a crash. A lock file
    that is left behind is therefore no obstacle. Temporary files of a killed process are removed.

    Args:
        workdir: the folder; it is created if it does not exist.
        flag: the flag that names the folder, for the message.

    Raises:
        WorkdirError: another process holds the lock; the message names process and host.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(workdir / ".lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise WorkdirError(
            f"{workdir} is in use by {_owner(workdir)}. Wait for its end, stop it, or choose "
            f"another {flag}."
        ) from None
    try:
        files.remove_leftovers(workdir)
        files.write_json(workdir / OWNER, _this_process())
        yield
    finally:
        (workdir / OWNER).unlink(missing_ok=True)
        lock.release()


def _this_process():
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"process": os.getpid(), "host": socket.gethostname(), "started": started}


def _owner(workdir):
    try:
        owner = json.loads((workdir / OWNER).read_text(encoding="utf-8"))
        return f"process {owner['process']} on {owner['host']}, started {owner['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
