"""Copies of data sets: changed files are refused, superseded copies are reported."""

import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from pipelines import datasets


def load(root, **options):
    return datasets.load("folder", root, **options)


def labels(split):
    return [example["label"].numpy() for example in datasets.examples(split)]


def swap(first, second):
    other = first.with_name("other")
    first.rename(other)
    second.rename(first)
    other.rename(second)


def cut(file, _):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file, _):
    state, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


def remove(file, _):
    file.unlink()


@pytest.mark.parametrize("change", [swap, cut, flip, remove])
def test_changed_label_maps_are_refused_and_made_again(folder, cache, change):
    first = load(folder)
    before, copy = labels(first.train), pathlib.Path(first.train.records)
    change(*(pathlib.Path(file) for file in first.train.label_files[:2]))
    with pytest.raises(datasets.DatasetError, match=r"labels/train/a\.png") as refused:
        load(folder)
    assert f"{copy} were changed" in str(refused.value) and "Remove this folder" in str(refused)
    shutil.rmtree(copy)
    np.testing.assert_array_equal(labels(load(folder).train)[0], before[0])


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_damaged_facts_of_a_copy_are_refused_and_made_again(folder, cache, name, damage):
    copy = pathlib.Path(load(folder).train.records)
    damage(copy / name)
    with pytest.raises(datasets.DatasetError, match="Remove this folder: it is made") as refused:
        load(folder)
    assert str(copy) in str(refused.value)
    shutil.rmtree(copy)
    load(folder)


def test_changed_records_are_refused(folder, cache):
    load(folder)
    (file,) = cache.glob("folder/*/*/folder-val.tfrecord*")
    flip(file, None)
    with pytest.raises(datasets.DatasetError, match=r"1 files .*folder-val\.tfrecord"):
        load(folder)


def test_a_copied_cache_is_read_although_its_times_differ(folder, cache):
    first = load(folder)
    for file in cache.rglob("*"):
        os.utime(file, ns=(1, 1))
    assert load(folder) == first


def test_superseded_copies_are_reported_until_their_command_removes_them(folder, cache, write_pair):
    assert not [line for line in load(folder).messages if "older" in line]
    (old,) = cache.glob("folder/*")
    (old / "1.0.0" / "labels" / "train" / "a.png").write_bytes(b"x" * 2_000_000)
    write_pair(folder, "a", "train", seed=9)
    (line,) = [line for line in load(folder).messages if "older" in line]
    assert line.startswith("1 older copies of this data set hold 2") and " MB" in line
    command = line.partition("To remove them: ")[2]
    assert str(old) in command
    subprocess.run(command, shell=True, check=True)
    assert not old.exists()
    assert not [line for line in load(folder).messages if "older" in line]


def test_copies_for_other_requests_are_not_superseded(folder, cache, tmp_path):
    load(folder)
    shutil.copytree(folder, tmp_path / "second")
    for data in (load(tmp_path / "second"), load(folder, eval_split="train"), load(folder)):
        assert not [line for line in data.messages if "older" in line]


def test_temporary_folders_of_killed_processes_are_reported(folder, cache):
    copy = pathlib.Path(load(folder).train.records)
    left = copy.with_name("incomplete.ABCDEF_1.0.0")
    shutil.copytree(copy, left)
    assert not [line for line in load(folder).messages if "older" in line]  # may be in use
    for path in (left, *left.rglob("*")):
        os.utime(path, (0, 0))
    (line,) = [line for line in load(folder).messages if "older" in line]
    assert "incomplete.ABCDEF_1.0.0" in line
