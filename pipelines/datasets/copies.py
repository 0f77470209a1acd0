"""Copies of data sets on disk: files that were changed are found, copies of the past are reported.

`pipelines.datasets.records` writes a copy: records, label maps and an index. Everything in it is
read again by each run, so a file that another program replaced would change the results unseen.
"""

import json
import pathlib
import shlex
import time
from collections.abc import Iterator, Mapping

from pipelines.datasets import faults, files
from pipelines.datasets.spec import DatasetError, printable

ORIGIN_FILE = "origin.json"
"""The file of a copy with the request that it was made for."""

_IDLE = 3600  # seconds without a change, after which no process is writing a temporary folder
_UNITS = ("bytes", "kB", "MB", "GB", "TB")

Stamp = tuple[int, int, int]
"""Size in bytes, time in nanoseconds and CRC-32 of a file."""


def stamps(folder: pathlib.Path) -> dict[str, Stamp]:
    """Return the stamps of all files in and below a folder, by their relative paths."""
    return {file.relative_to(folder).as_posix(): _stamp(file) for file in _files(folder)}


def check(folder: pathlib.Path, expected: Mapping[str, Stamp]) -> None:
    """Raise an error if a file is missing or has another content than its stamp.

    A file is read only if its size or time differ from the stamp, for example in a copied folder.

    Raises:
        DatasetError: names the files and the way out.
    """
    changed = [name for name, stamp in expected.items() if _is_changed(folder / name, stamp)]
    if changed:
        raise DatasetError(
            f"{len(changed)} files of the copy of the data set in {folder} were changed after they "
            f"were written: {faults.named(changed)}. Remove this folder: it is made again from the "
            "original files."
        )


def damaged(folder: pathlib.Path, error: Exception) -> DatasetError:
    """Return the error for a copy with a file that cannot be parsed."""
    return DatasetError(
        f"The copy of the data set in {folder} is damaged ({printable(str(error))}). Remove this "
        "folder: it is made again from the original files."
    )


def _is_changed(file, stamp) -> bool:
    try:
        state = file.stat()
    except OSError:
        return True
    if (state.st_size, state.st_mtime_ns) == tuple(stamp[:2]):
        return False
    return state.st_size != stamp[0] or files.checksum(file) != stamp[2]


def _stamp(file) -> Stamp:
    state = file.stat()
    return state.st_size, state.st_mtime_ns, files.checksum(file)


def _files(folder) -> Iterator[pathlib.Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def write_origin(folder: pathlib.Path, origin: str) -> None:
    """Write the request that a copy is made for, as `superseded` compares it."""
    (folder / ORIGIN_FILE).write_text(json.dumps({"made_for": origin}))


def superseded(folder: pathlib.Path, origin: str) -> list[pathlib.Path]:
    """Return the folders beside a copy that no run reads any more.

    These are copies for the same request, made from files that changed since, and the temporary
    folders of killed processes beside a complete copy.

    Args:
        folder: the current copy, CACHE/NAME/KEY/VERSION.
        origin: the request that it was made for.
    """
    found = [path for path in folder.parent.glob("incomplete.*") if _is_idle(path)]
    for path in sorted(folder.parents[1].iterdir()):
        is_other = path != folder.parent and path.is_dir()
        if is_other and _origin(path / folder.name) == origin:
            found.append(path)
    return found


def _is_idle(folder) -> bool:
    newest = max(path.stat().st_mtime for path in (folder, *_files(folder)))
    return time.time() - newest > _IDLE


def _origin(folder) -> str | None:
    try:
        return json.loads((folder / ORIGIN_FILE).read_text())["made_for"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def message(found: list[pathlib.Path]) -> str:
    """Return a sentence with the size of superseded copies and the command that removes them."""
    num_bytes = sum(file.stat().st_size for folder in found for file in _files(folder))
    command = shlex.join(["rm", "-r", *map(str, found)])
    return (
        f"{len(found)} older copies of this data set hold {_readable(num_bytes)} and are not read "
        f"any more. To remove them: {command}"
    )


def _readable(num_bytes: float) -> str:
    """Return a size with a unit.

    >>> _readable(1_500_000)
    '1.5 MB'
    """
    for unit in _UNITS[:-1]:
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} {_UNITS[-1]}"
