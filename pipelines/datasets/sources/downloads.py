"""Download archives of data sets from their official addresses, check and unpack them."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Iterator

from pipelines.datasets.spec import DatasetError

TIMEOUT = 60.0
"""Seconds without a byte after which a download fails."""


@dataclasses.dataclass(frozen=True)
class Archive:
    """A tar file to download.

    Attributes:
        url: its official address.
        md5: its checksum, as hexadecimal digits. It protects against damage, not against attacks.
        keep: prefixes of the paths in the archive to unpack.
        num_bytes: approximate disk space of the archive and its unpacked files.
    """

    url: str
    md5: str
    keep: tuple[str, ...]
    num_bytes: int

    @property
    def filename(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


def default_folder(name: str) -> pathlib.Path:
    """Return the folder for downloads of the data set `name`, next to TFDS' records."""
    home = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(home).expanduser().resolve() / "downloads" / name


def provide(archives: tuple[Archive, ...], folder: pathlib.Path) -> None:
    """Download and unpack all archives into `folder`, if this was not done before.

    An archive that is already in `folder` is not downloaded again.

    Args:
        archives: the archives.
        folder: path of the folder, which is created if needed.

    Raises:
        DatasetError: if an archive cannot be downloaded or is damaged, or if the disk is too full.
            The message names the place for archives that you download yourself.
    """
    missing = [archive for archive in archives if not _marker(archive, folder).exists()]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    _check_space(missing, folder)
    for archive in missing:
        file = folder / archive.filename
        if not file.exists():
            _fetch(archive, archives, folder)
        _check_sum(archive, file)
        _unpack(archive, file, folder)


def _marker(archive: Archive, folder: pathlib.Path) -> pathlib.Path:
    return folder / f".{archive.filename}.unpacked"


def _check_space(archives: list[Archive], folder: pathlib.Path) -> None:
    free, needed = shutil.disk_usage(folder).free, sum(a.num_bytes for a in archives)
    if free < needed:
        raise DatasetError(
            f"{folder} has {free / 1e9:.1f} GB of free disk, downloads need {needed / 1e9:.1f}. "
            "Set TFDS_DATA_DIR to a folder with more space, or pass data_dir."
        )


def _fetch(archive: Archive, archives: tuple[Archive, ...], folder: pathlib.Path) -> None:
    import keras  # late, because the import takes seconds

    try:
        with _timeout():
            keras.utils.get_file(archive.filename, archive.url, cache_dir=folder, cache_subdir="")
    except Exception as error:  # get_file raises Exception itself
        wanted = "; ".join(f"{a.url} (md5 {a.md5})" for a in archives)
        raise DatasetError(
            f"{archive.url} could not be downloaded: {error}. Without a network, put these files "
            f"into {folder} and run again: {wanted}. Or pass data_dir if you have the data already."
        ) from error


@contextlib.contextmanager
def _timeout() -> Iterator[None]:
    """Let connections fail that stall: Keras sets no timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _check_sum(archive: Archive, file: pathlib.Path) -> None:
    with file.open("rb") as content:
        md5 = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if md5 != archive.md5:
        raise DatasetError(
            f"{file} is damaged or incomplete: its md5 is {md5}, expected {archive.md5}. Remove it "
            "and run again."
        )


def _unpack(archive: Archive, file: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpack into a temporary folder first, so that an incomplete archive is never used."""
    if not hasattr(tarfile, "data_filter"):
        raise DatasetError(
            "This Python cannot unpack archives safely: use 3.11.4 or newer, or unpack "
            f"{file} yourself and pass data_dir."
        )
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        with tarfile.open(file) as tar:
            members = (member for member in tar if member.name.startswith(archive.keep))
            tar.extractall(temporary, members, filter="data")
        shutil.copytree(temporary, folder, dirs_exist_ok=True, copy_function=os.replace)
    _marker(archive, folder).touch()
