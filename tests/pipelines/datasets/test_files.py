"""Names, links and text files of a data set."""

import pytest

from pipelines import datasets
from pipelines.datasets import faults, files
from pipelines.datasets.spec import printable


@pytest.mark.parametrize(
    "name",
    [".git", "._a.jpg", "@eaDir", "@EADIR", "__MACOSX", "Thumbs.db", "desktop.ini", "lost+found"],
)
def test_system_files_and_folders_are_recognized(name):
    assert files.is_system(name)


@pytest.mark.parametrize("name", ["train", "a.b", "_background", "images", "macosx"])
def test_usual_names_are_no_system_files(name):
    assert not files.is_system(name)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[2J", "a\\x1b[2J"),
        ("a\nb", "a\\nb"),
        ("\u202eb", "\\u202eb"),
        ("caf\udce9", "caf\\udce9"),
        ("Straße \u00a0 日本 [x]", "Straße \u00a0 日本 [x]"),
    ],
)
def test_control_characters_are_escaped_and_letters_are_kept(name, shown):
    assert printable(name) == shown == faults.named([name])
    assert str(datasets.DatasetError(f"{name}\n")) == f"{shown}\n".replace("a\\nb", "a\nb")
    found = faults.Faults()
    found.add(faults.Kind("problem", "Fix."), name)
    assert [*found] == [(faults.Kind("problem", "Fix."), (shown,))]


def test_a_long_unrelated_file_is_not_read_whole(tmp_path):
    file = tmp_path / "log.txt"
    file.write_bytes(b"\n\n first line \n" + b"x" * 10**6 + "ä".encode("latin-1"))
    assert files.first_line(file) == "first line"
    file.write_bytes(b"\0" * 9)
    assert files.first_line(file) == "" == files.first_line(tmp_path)


def test_a_guessed_encoding_gives_one_message(tmp_path):
    messages = []
    (tmp_path / "a.txt").write_bytes("x\n\u00fc\n\n".encode("cp1252"))
    assert files.read_lines(tmp_path / "a.txt", messages) == ("x", "ü")
    assert len(messages) == 1 and "a.txt is not UTF-8" in messages[0] and "'ü'" in messages[0]
