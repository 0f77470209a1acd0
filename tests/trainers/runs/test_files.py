"""Files and folders are complete or not there."""

import json

import pytest

from trainers.runs import files


def test_a_file_takes_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "a.weights.h5"
    path.write_text("old")
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.name.endswith(".weights.h5")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    with files.replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("new")
        assert (path / "old").exists()
    assert [item.name for item in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("make", [lambda p: p.write_text("half"), lambda p: p.mkdir()])
def test_after_an_error_the_old_one_stays(tmp_path, make):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), files.replacing(path) as temporary:
        make(temporary)
        raise OSError("disk full")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_json_is_written_with_all_characters(tmp_path):
    files.write_json(tmp_path / "a.json", {"name": "Straße [b]"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "Straße [b]"}
