"""The plain U-Net of the comparison: it learns, and its crops keep image and label together."""

import json

import numpy as np
import PIL.Image
import pytest

from trainers.benchmarks import keras_unet_peer


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_crop_keeps_image_and_label_together(rng):
    label = rng.integers(0, 200, (40, 300), dtype=np.uint8)
    image = np.repeat(label[..., None], 3, axis=2)
    for _ in range(8):
        pixels, classes = keras_unet_peer._crop(image, label, rng)
        assert pixels.shape == (256, 256, 3)
        is_valid = classes != keras_unet_peer.VOID
        assert is_valid.sum() == 40 * 256
        np.testing.assert_array_equal(pixels[is_valid, 0], classes[is_valid])


def test_void_pixels_have_no_loss():
    labels = np.array([[[0, 255]]])
    logits = np.array([[[[2.0, 0.0], [9.0, -9.0]]]], np.float32)
    assert float(keras_unet_peer.loss(labels, logits)) == pytest.approx(np.log(1 + np.exp(-2)))
    assert float(keras_unet_peer.loss(np.full((1, 1, 2), 255), logits)) == 0


@pytest.mark.slow
def test_it_learns_to_tell_dark_from_bright(tmp_path, rng):
    label = np.repeat(np.repeat(rng.integers(0, 2, (6, 6)), 40, 0), 40, 1).astype(np.uint8)
    files = [str(tmp_path / name) for name in ("image.png", "label.png")]
    PIL.Image.fromarray(label * 200).save(files[0])
    PIL.Image.fromarray(label).save(files[1])
    task = {"train": [files], "eval": [files], "num_classes": 2, "cpu_seconds": 15, "seed": 0}
    (tmp_path / "task").write_text(json.dumps(task))
    keras_unet_peer.main(str(tmp_path / "task"), str(tmp_path / "result"))
    result = json.loads((tmp_path / "result").read_text())
    confusion = np.array(result["confusion"])
    assert confusion.sum() == 240 * 240 and np.trace(confusion) > 0.95 * 240 * 240
