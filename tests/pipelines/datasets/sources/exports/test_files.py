"""Untrusted files: archives, JSON, XML and YAML with limits, and names that lead elsewhere."""

import zipfile

import pytest

from pipelines import datasets
from pipelines.datasets.sources import exports
from pipelines.datasets.sources.exports import archive, tree
from pipelines.datasets.spec import DatasetError


def write_zip(file, members):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return file


@pytest.mark.parametrize(
    "name", ["../out.txt", "/etc/out.txt", "a/../../out.txt", "C:/out.txt", "..\\out.txt"]
)
def test_members_that_leave_the_folder_are_refused(tmp_path, name):
    file = write_zip(tmp_path / "a.zip", {"fine.txt": "x", name: "x"})
    with pytest.raises(DatasetError, match="leaves the folder"):
        exports.open_tree(file)
    assert not list(tmp_path.rglob("out.txt")) and not list(tmp_path.rglob("fine.txt"))


def test_links_in_archives_are_refused(tmp_path):
    member = zipfile.ZipInfo("link")
    member.external_attr = 0o120777 << 16
    file = write_zip(tmp_path / "a.zip", {member: "/etc/passwd"})
    with pytest.raises(DatasetError, match="is a link"):
        exports.open_tree(file)


def test_an_archive_that_unpacks_to_much_more_than_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_FREE_BYTES", 2**20)
    file = write_zip(tmp_path / "bomb.zip", {"zeros.bin": bytes(2**22)})
    with pytest.raises(DatasetError, match="times its size"):
        exports.open_tree(file)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no archive"])
def test_damaged_archives_give_one_sentence(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.zip cannot be unpacked"):
        exports.open_tree(tmp_path / "a.zip")


def test_an_archive_is_unpacked_once_and_again_after_it_changed(tmp_path):
    file = write_zip(tmp_path / "a.zip", {"inner/a.txt": "1", "__MACOSX/._a.txt": "x"})
    first = exports.open_tree(file)
    assert [path.name for path in first.files] == ["a.txt"]
    assert exports.open_tree(file).root == first.root
    write_zip(file, {"inner/a.txt": "22", "inner/b.txt": "3"})
    assert len(exports.open_tree(file).files) == 2


def test_large_json_files_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "MAX_JSON_BYTES", 10)
    (tmp_path / "a.json").write_text('{"a": "long text"}')
    with pytest.raises(DatasetError, match=r"a\.json has 18 bytes, the limit is 10"):
        tree.read_json(tmp_path / "a.json")


def test_a_large_json_file_in_a_folder_is_refused_by_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "MAX_JSON_BYTES", 10)
    (tmp_path / "a.json").write_text('{"a": "long text"}')
    with pytest.raises(DatasetError, match=r"a\.json has 18 bytes, the limit is 10"):
        datasets.plan("folder", tmp_path)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "\x00", "1" * 5000])
def test_damaged_json_gives_one_sentence(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DatasetError, match=r"a\.json is no valid JSON"):
        tree.read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "content",
    [
        '<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>',
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>',
        "<annotations>",
    ],
)
def test_xml_with_entities_or_damage_is_refused(tmp_path, content):
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(DatasetError, match=r"a\.xml is no valid XML"):
        tree.read_xml(tmp_path / "a.xml")


@pytest.mark.parametrize(
    "content", ["a: &x [1]\nb: [*x, *x]", "a: !!python/object/apply:os.system [ls]", "a: ["]
)
def test_yaml_with_aliases_or_objects_is_refused(tmp_path, content):
    (tmp_path / "data.yaml").write_text(content)
    with pytest.raises(DatasetError, match=r"data\.yaml is no valid YAML"):
        tree.read_yaml(tmp_path / "data.yaml")


def test_links_to_a_folder_above_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("x")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "b.txt").write_text("x")
    assert len(tree.Tree(tmp_path).files) == 2


def test_files_of_other_kinds_and_missing_files_are_refused(tmp_path):
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(DatasetError, match="file of an unknown kind"):
        exports.open_tree(tmp_path / "a.docx")
    with pytest.raises(DatasetError, match="is not a folder"):
        exports.open_tree(tmp_path / "nowhere")
