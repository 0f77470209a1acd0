import numpy as np
import pytest

from trainers import config
from trainers.device_studies import scenes


def packed():
    rng = np.random.default_rng(0)
    parts = []
    for number in (3, 2):
        images = [rng.integers(0, 256, (4 + k, 5, 3)).astype("uint8") for k in range(number)]
        labels = [rng.integers(0, 2, (4 + k, 5)).astype("uint8") for k in range(number)]
        parts.append(scenes.padded(images, labels, (6, 7)))
    return scenes.Packed(*parts, ("sky", "road"), 0)


def test_a_file_holds_everything(tmp_path):
    written = packed()
    scenes.write(tmp_path / "a.npz", written)
    read = scenes.read(tmp_path / "a.npz")
    assert (read.class_names, read.background, read.shorter_side) == (("sky", "road"), 0, 4)
    for ours, theirs in ((read.train, written.train), (read.held_out, written.held_out)):
        for values, others in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(values, others)


def test_padding_is_void():
    labels = packed().train.labels
    assert (labels[0, 4:] == 255).all() and (labels[:, :, 5:] == 255).all()
    assert (labels[0, :4, :5] < 2).all()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", None])
def test_another_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "other.npz"
    if content is None:
        np.savez(path, images=np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(config.UserError, match="other.npz is no file of a packed data set"):
        scenes.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(config.UserError, match="none.npz is no file"):
        scenes.read(tmp_path / "none.npz")
