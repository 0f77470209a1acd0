"""Checkpoints: the newest readable one is restored, damaged ones are passed over."""

import pytest
import tensorflow as tf

from trainers.runs.runtime import WorkdirError
from trainers.training.checkpoints import Checkpoints


class Run:
    """A variable with its checkpoints in a folder, and the lines that were logged."""

    def __init__(self, folder):
        self.folder, self.lines = folder, []
        self.value = tf.Variable([0.0] * 100)
        self.checkpoints = Checkpoints(
            tf.train.Checkpoint(value=self.value), folder, folder, self.lines.append
        )

    def save(self, *steps):
        for step in steps:
            self.value.assign([float(step)] * 100)
            self.checkpoints.save(step)


def _names(folder):
    return sorted(path.name for path in folder.glob("*.index"))


def test_the_newest_checkpoint_is_restored_and_two_are_kept(tmp_path):
    Run(tmp_path).save(10, 20, 30)
    assert _names(tmp_path) == ["ckpt-20.index", "ckpt-30.index"]
    run = Run(tmp_path)
    assert run.checkpoints.restore() == 30 and run.value.numpy()[0] == 30
    run.save(40)
    assert _names(tmp_path) == ["ckpt-30.index", "ckpt-40.index"]


def test_without_checkpoints_a_run_starts_at_step_0(tmp_path):
    run = Run(tmp_path / "nothing")
    assert run.checkpoints.restore() == 0 and run.value.numpy()[0] == 0


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_the_older_checkpoint_takes_the_place_of_a_damaged_one(tmp_path, part, damage):
    Run(tmp_path).save(10, 20)
    damage(tmp_path / f"ckpt-20.{part}")
    run = Run(tmp_path)
    assert run.checkpoints.restore() == 10 and run.value.numpy()[0] == 10
    assert "checkpoint of step 20 cannot be read" in run.lines[0]
    assert _names(tmp_path) == ["ckpt-10.index"]
    run.save(20)
    assert Run(tmp_path).checkpoints.restore() == 20


def test_a_missing_data_file_is_a_damaged_checkpoint(tmp_path):
    Run(tmp_path).save(10, 20)
    (tmp_path / "ckpt-20.data-00000-of-00001").unlink()
    assert Run(tmp_path).checkpoints.restore() == 10


def test_if_none_can_be_read_the_message_names_the_folder(tmp_path, damages):
    Run(tmp_path).save(10, 20)
    for path in tmp_path.glob("*.index"):
        damages["cut"](path)
    with pytest.raises(WorkdirError, match=r"none of the checkpoints of the steps \[10, 20\]"):
        Run(tmp_path).checkpoints.restore()
    assert len(_names(tmp_path)) == 2
