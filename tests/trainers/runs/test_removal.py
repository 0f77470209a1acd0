"""--overwrite removes the parts that a command makes again, their dependents, and nothing else."""

import io
import json

import pytest
import rich.console

from trainers.runs import removal
from trainers.runs.runtime import Runtime, WorkdirError
from trainers.stages import STAGES


@pytest.fixture
def run(tmp_path):
    console = rich.console.Console(file=io.StringIO(), width=300)
    return Runtime(tmp_path / "run", None, console)


def _make(run, *titles):
    for title in titles:
        variant, _, stage = title.rpartition(" ")
        folder = run.of(variant).folder(stage)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"data.dataset": "camvid"}))
        (folder / "weights").write_text("weights")


def _titles(parts):
    return [part.title for part in parts]


@pytest.mark.parametrize(
    ("asked", "compare", "expected"),
    [
        (["evaluate"], False, "evaluate"),
        (["evaluate"], True, "evaluate, naive evaluate"),
        (["export"], False, "export"),
        (["segment"], False, "segment, evaluate, export, predict, suggest"),
        (
            ["segment"],
            True,
            "segment, evaluate, export, predict, suggest, naive segment, naive evaluate",
        ),
        (["mm"], False, "mm, teacher, pseudo, segment, evaluate, export, predict, suggest"),
        (
            ["pseudo"],
            True,
            "pseudo, segment, evaluate, export, predict, suggest, naive pseudo, naive segment, "
            "naive evaluate",
        ),
        (
            ["proxy"],
            False,
            "proxy, mm, teacher, pseudo, segment, evaluate, export, predict, suggest, "
            "naive teacher, naive pseudo, naive segment, naive evaluate",
        ),
    ],
)
def test_dependents_follow_the_files_that_stages_read(asked, compare, expected):
    assert ", ".join(_titles(removal.affected(asked, compare, STAGES))) == expected


def test_removed_parts_are_named_and_the_others_stay(run):
    _make(run, "mm", "segment", "evaluate", "export", "naive segment")
    (run.workdir / "notes.txt").write_text("mine")
    parts = removal.affected(["segment"], False, STAGES)
    removal.check(run, parts)
    removal.remove(run, parts, ["segment"])
    left = {path.name for path in run.workdir.iterdir()}
    assert left == {"mm", "naive", "notes.txt"} and run.naive().folder("segment").exists()
    text = run.console.file.getvalue()
    assert "removed segment, evaluate, export" in text
    assert "not made again by this command: evaluate, export" in text


def test_folders_of_other_programs_are_refused_and_stay(run):
    _make(run, "segment")
    foreign = run.folder("export")
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    parts = removal.affected(["segment"], False, STAGES)
    with pytest.raises(WorkdirError, match="export was not made by this program"):
        removal.check(run, parts)
    assert (foreign / "thesis.txt").exists() and run.folder("segment").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}'])
def test_a_folder_with_another_config_file_is_not_ours(run, content):
    folder = run.folder("export")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(content)
    assert not removal.is_own(folder)


def test_links_are_refused(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.json").write_text(json.dumps({"data.dataset": "camvid"}))
    run.workdir.mkdir()
    run.folder("mm").symlink_to(elsewhere)
    with pytest.raises(WorkdirError, match="is a link"):
        removal.check(run, removal.affected(["mm"], False, STAGES))
    assert (elsewhere / "config.json").exists()


def test_an_empty_folder_is_ours(run):
    run.folder("mm").mkdir(parents=True)
    assert removal.is_own(run.folder("mm"))
