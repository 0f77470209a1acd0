"""ZIP files of exports: unpacked once, with limits, into the cache of data sets."""

import hashlib
import os
import pathlib
import shutil
import stat
import tempfile
import zipfile
import zlib

from pipelines.datasets import files
from pipelines.datasets.spec import DatasetError

_MAX_MEMBERS = 2_000_000
_MAX_BYTES = 200 * 2**30
# A ZIP bomb unpacks to thousands of times its size. Empty masks as BMP or TIFF reach 1,000 times,
# so the ratio counts from 2 GiB on only.
_MAX_RATIO = 200
_FREE_BYTES = 2 * 2**30
_CHUNK = 2**20
# RuntimeError: the archive is encrypted. OSError: a member is a file and a folder at once.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
)


def unpacked(file: pathlib.Path) -> pathlib.Path:
    """Return the folder with the members of a ZIP file, and unpack it if this was not done yet.

    The folder is in the cache of data sets (TFDS_DATA_DIR). Its name depends on the path, the size
    and the time of the file.

    Raises:
        DatasetError: if the file is damaged, encrypted or too large, or if a member has a path
            that leaves the folder.
    """
    state = file.stat()
    key = hashlib.sha256(f"{file.resolve()} {state.st_size} {state.st_mtime_ns}".encode())
    cache = pathlib.Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    folder = cache / "mm_exports" / f"{file.stem[:40]}-{key.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix="unpacking-", dir=folder.parent))
    try:
        _unpack(file, temporary)
        _rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _rename(temporary: pathlib.Path, folder: pathlib.Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was first
            raise


def _unpack(file: pathlib.Path, folder: pathlib.Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check(file, members, shutil.disk_usage(folder).free)
            for member in members:
                if not any(map(files.is_system, _path(file, member).parts)):
                    _extract(archive, member, folder / _path(file, member))
    except _DAMAGED as error:
        raise DatasetError(
            f"{file} cannot be unpacked ({files.reason(error)}). Download it again, or unpack it "
            "and name the folder."
        ) from error


def _check(file: pathlib.Path, members: list[zipfile.ZipInfo], free: int) -> None:
    """Refuse archives that are too large, and members with bad paths, before anything is written.

    zipfile stops at the size that a member declares, so declared sizes are a bound.
    """
    size, packed = sum(m.file_size for m in members), max(1, file.stat().st_size)
    is_bomb = size > _FREE_BYTES and size > _MAX_RATIO * packed
    if len(members) > _MAX_MEMBERS or size > _MAX_BYTES or is_bomb:
        raise DatasetError(
            f"{file} would unpack to {len(members):,} files and {size:,} bytes, {size // packed:,} "
            f"times its size. Limits are {_MAX_MEMBERS:,} files, {_MAX_BYTES:,} bytes and "
            f"{_MAX_RATIO} times. If you trust it, unpack it and name the folder."
        )
    if size > free:
        raise DatasetError(f"{file} needs {size:,} bytes, only {free:,} are free. Free some space.")
    for member in members:
        _path(file, member)


def _path(file: pathlib.Path, member: zipfile.ZipInfo) -> pathlib.PurePosixPath:
    """Return the relative path of a member; archives of Windows may have backslashes.

    Raises:
        DatasetError: if the path leaves the folder.
    """
    path = pathlib.PurePosixPath(member.filename.replace("\\", "/"))
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or is_link:
        kind = "is a link" if is_link else "has a path that leaves the folder"
        raise DatasetError(
            f"{file}: member {member.filename!r} {kind}. Such archives are not unpacked."
        )
    return path


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, _CHUNK)
