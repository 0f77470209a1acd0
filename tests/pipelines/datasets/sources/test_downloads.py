"""Downloads of archives: unpacking, damage, missing network and disk space."""

import hashlib
import io
import socket
import tarfile

import keras
import pytest

from pipelines import datasets
from pipelines.datasets.sources import downloads

GET_FILE = keras.utils.get_file


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def get_file(fname, origin, **_):
        raise Exception(f"URL fetch failure on {origin}")

    monkeypatch.setattr("keras.utils.get_file", get_file)


def write(file, members, mode="w"):
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    return downloads.Archive(f"http://here.org/{file.name}", md5, ("kit/wanted/",), 0)


def test_only_wanted_members_are_unpacked_once(tmp_path):
    members = {"kit/wanted/sub/a": b"1", "kit/other/b": b"2", "kit/wanted/c": b"3"}
    archive = write(tmp_path / "in" / "x.tgz", members, "w:gz")
    downloads.provide((archive,), tmp_path / "in")
    files = {str(p.relative_to(tmp_path / "in")) for p in (tmp_path / "in").rglob("*")}
    assert files >= {"kit/wanted/sub/a", "kit/wanted/c"} and "kit/other/b" not in files
    (tmp_path / "in" / "x.tgz").unlink()
    downloads.provide((archive,), tmp_path / "in")  # neither the archive nor a network is needed
    # An interrupted unpacking is completed.
    (tmp_path / "in" / ".x.tgz.unpacked").unlink()
    (tmp_path / "in" / "kit" / "wanted" / "c").unlink()
    downloads.provide((write(tmp_path / "in" / "x.tgz", members, "w:gz"),), tmp_path / "in")
    assert (tmp_path / "in" / "kit" / "wanted" / "c").read_bytes() == b"3"


@pytest.mark.parametrize(
    "members",
    [
        {"kit/wanted/../../../out": b"1"},
        {"kit/wanted/link": "/etc", "kit/wanted/link/passwd": b"1"},
        {"kit/wanted/link": "../../.."},
    ],
)
def test_members_outside_the_folder_are_not_written(tmp_path, members):
    archive = write(tmp_path / "in" / "x.tar", members)
    with pytest.raises(tarfile.FilterError):
        downloads.provide((archive,), tmp_path / "in")
    assert {path.name for path in tmp_path.rglob("*")} == {"in", "x.tar"}


def test_without_a_network_the_error_lists_files_and_their_folder(tmp_path):
    archives = (
        downloads.Archive("http://here.org/x.tar", "123", (), 0),
        downloads.Archive("http://there.org/y.tar", "456", (), 0),
    )
    with pytest.raises(datasets.DatasetError) as caught:
        downloads.provide(archives, tmp_path / "in")
    for part in ("here.org/x.tar (md5 123); http://there.org/y.tar (md5 456)", tmp_path / "in"):
        assert str(part) in str(caught.value)


def test_a_download_that_stalls_fails(monkeypatch, tmp_path):
    monkeypatch.setattr("keras.utils.get_file", GET_FILE)
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:  # it accepts and never answers
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.tar"
        with pytest.raises(datasets.DatasetError, match="could not be downloaded: .*timed out"):
            downloads.provide((downloads.Archive(address, "0", (), 0),), tmp_path)
    assert socket.getdefaulttimeout() is None


def test_a_damaged_archive_and_a_full_disk_raise_an_error(tmp_path):
    archive = write(tmp_path / "x.tar", {"kit/wanted/a": b"1"})
    (tmp_path / "x.tar").write_bytes(b"no")
    with pytest.raises(datasets.DatasetError, match="x.tar is damaged.*Remove it"):
        downloads.provide((archive,), tmp_path)
    large = downloads.Archive(archive.url, archive.md5, (), 1 << 60)
    with pytest.raises(datasets.DatasetError, match="GB of free disk"):
        downloads.provide((large,), tmp_path)


def test_downloads_are_stored_next_to_the_records(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert downloads.default_folder("voc_sbd") == tmp_path / "downloads" / "voc_sbd"
    monkeypatch.delenv("TFDS_DATA_DIR")
    folder = downloads.default_folder("voc_sbd")
    assert folder.parts[-3:] == ("tensorflow_datasets", "downloads", "voc_sbd")
