"""The cache of records: reuse, changed files, interrupted and simultaneous builds."""

import logging
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from pipelines import datasets
from pipelines.datasets import masks, records


def load(root):
    return datasets.load("folder", root)


def num_builds(cache):
    return len(list(cache.glob("folder/*/1.0.0/index.json")))


def test_a_second_load_reads_the_same_records(folder, cache):
    first = load(folder)
    assert load(folder) == first
    assert num_builds(cache) == 1
    assert first.train.records.startswith(str(cache))


def test_the_pixels_of_each_class_are_counted_with_the_records(folder):
    data = load(folder)
    for split in (data.train, data.eval):
        labels = [example["label"] for example in datasets.examples(split).as_numpy_iterator()]
        expected = [tuple((x == k).sum() for k in range(data.spec.num_classes)) for x in labels]
        assert list(split.class_pixels) == expected
    assert data.train.take([1]).class_pixels == data.train.class_pixels[1:2]


def test_a_changed_file_gets_new_records(folder, cache, write_pair):
    load(folder)
    _, mask, expected = write_pair(folder, "a", "train", seed=9)
    split = load(folder).train
    assert num_builds(cache) == 2
    np.testing.assert_array_equal(next(iter(datasets.examples(split)))["label"], expected)
    os.utime(mask, ns=(1, 1))  # the time alone
    load(folder)
    assert num_builds(cache) == 3
    (folder / "classes.txt").write_text("ground\nother\n")
    load(folder)
    assert num_builds(cache) == 4


def test_loading_prints_nothing_and_keeps_the_random_state(folder, capfd, caplog):
    logger = logging.getLogger("absl")
    logger.addHandler(caplog.handler)
    random.seed(3)
    expected = random.random()
    random.seed(3)
    load(folder)
    assert random.random() == expected
    logger.removeHandler(caplog.handler)
    assert not caplog.records
    out, err = capfd.readouterr()
    assert out == ""
    assert "examples" not in err


def test_a_split_without_records_raises_an_error():
    split = datasets.Split("train", ("a",), ("a.jpg",), ("a.png",), (True,), 10)
    with pytest.raises(ValueError, match="has no records"):
        datasets.examples(split)


def test_an_interrupted_build_is_not_used(folder, cache, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(masks, "read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load(folder)
    assert num_builds(cache) == 0
    # A killed process leaves a temporary folder next to the folder of the records.
    load(folder)
    records = next(cache.glob("folder/*/1.0.0"))
    records.rename(records.with_name("incomplete.ABCDEF_1.0.0"))
    assert load(folder).train.num_images == 3
    assert num_builds(cache) == 1


_BUILD = """
import random, sys
random.seed(0)
from pipelines import datasets
data = datasets.load("folder", sys.argv[1])
print(len(list(datasets.examples(data.train))), len(list(datasets.examples(data.eval))))
"""


def test_a_build_survives_an_equal_build_that_finishes_first(folder, cache, monkeypatch):
    """A complete second build runs in the middle of the first, as with two processes."""
    read, others, num_folders = masks.read, [], set()

    def read_and_build(file, rule):
        num_folders.add(len(list(cache.glob("folder/*/incomplete*"))))
        if not others:
            others.append(None)
            random.seed(0)
            others[0] = load(folder)
        return read(file, rule)

    monkeypatch.setattr(masks, "read", read_and_build)
    random.seed(0)
    data = load(folder)
    assert num_folders == {1, 2}  # each build has a folder of its own
    assert data == others[0] and len(list(datasets.examples(data.train))) == 3
    assert num_builds(cache) == 1
    assert not list(cache.glob("folder/*/incomplete*"))


@pytest.mark.slow
def test_two_processes_can_build_at_the_same_time(folder, cache, write_pair):
    for k in range(40):
        write_pair(folder, f"more{k}", "train", size=(200, 200))
    command = [sys.executable, "-c", _BUILD, str(folder)]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=100) for run in runs]
    assert [out.split() for out, _ in outputs] == [["43", "2"]] * 2, outputs
    assert num_builds(cache) == 1
    assert not list(cache.glob("folder/*/incomplete*"))


def test_a_full_disk_is_an_error_of_tensorflow_and_not_of_the_program(folder, monkeypatch):
    def fail(self, *_, **__):
        full = tf.errors.ResourceExhaustedError(None, None, "a.tfrecord; No space left on device")
        raise RuntimeError("Failed to finalize writing of split") from full

    monkeypatch.setattr(records.RecordsBuilder, "_download_and_prepare", fail)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="No space left"):
        load(folder)
