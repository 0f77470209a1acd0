"""One run at a time writes a working folder."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from trainers.runs import lock
from trainers.runs.runtime import WorkdirError

ROOT = pathlib.Path(__file__).parents[3]
HOLDER = """
import pathlib, sys, time
from trainers.runs import lock
with lock.holding(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of `tmp_path / "run"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert process.stdout.readline().strip() == "held"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused_until_its_owner_is_killed(holder, tmp_path):
    message = f"in use by process {holder.pid} on "
    with pytest.raises(WorkdirError, match=message), lock.holding(tmp_path / "run"):
        pass
    holder.kill()
    holder.wait()
    deadline = time.monotonic() + 10
    while True:
        try:
            with lock.holding(tmp_path / "run"):
                owner = json.loads((tmp_path / "run" / lock.OWNER).read_text())
            break
        except WorkdirError:
            assert time.monotonic() < deadline
    assert owner["process"] == os.getpid()
    assert not (tmp_path / "run" / lock.OWNER).exists()


def test_the_lock_is_released_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), lock.holding(tmp_path):
            raise RuntimeError


def test_temporary_files_of_a_killed_owner_are_removed(tmp_path):
    left, own = tmp_path / f"{'0a' * 16}.tmp.json", tmp_path / "notes.tmp.json"
    left.write_text("{")
    own.write_text("mine")
    with lock.holding(tmp_path):
        assert not left.exists()
    assert own.read_text() == "mine"
