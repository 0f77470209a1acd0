"""Files and folders that are complete or not there: written beside their place, then renamed."""

import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Iterator

import keras
import numpy as np

from pipelines.datasets.files import checksum


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a temporary name for a new file or folder, and rename it to `path` at the end.

    The old file or folder stays in its place until the new one is complete. If the body raises an
    error, the temporary one is removed and the old one stays.

    Yields:
        A path beside `path` with the same suffixes. The body writes a file or makes a folder there.
    """
    # Not the process id: containers that share a folder have equal ones.
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp{''.join(path.suffixes)}")
    try:
        yield temporary
        _sync(temporary)
        if path.is_dir():
            _replace_folder(temporary, path)
        else:
            temporary.replace(path)
    finally:
        _remove(temporary)


def _sync(path):
    """Write a file to the disk before it is renamed: a power cut would leave an empty file."""
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _replace_folder(new, path):
    """Exchange two folders; the system cannot rename to a folder that holds files."""
    old = path.with_name(f"{uuid.uuid4().hex}.tmp")
    path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: pathlib.Path) -> None:
    """Remove temporary files and folders that a killed process left behind.

    The lock of the working folder makes sure that no other process is writing them.
    """
    for path in folder.iterdir():
        if re.fullmatch(r"[0-9a-f]{32}\.tmp(\..*)?", path.name):
            _remove(path)


def write_json(path: pathlib.Path, content: object) -> None:
    """Write a JSON file, complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def checksums(folder: pathlib.Path) -> dict[str, int]:
    """Return {name: CRC-32} of the weight files in a folder."""
    return {path.name: checksum(path) for path in sorted(folder.glob("*.weights.h5"))}


def save_arrays(path: pathlib.Path, **arrays: np.ndarray) -> None:
    """Write a compressed .npz file, complete or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def save_weights(model: keras.Model, path: pathlib.Path) -> None:
    """Write a `.weights.h5` file, complete or not at all."""
    with replacing(path) as temporary:
        model.save_weights(temporary)
