"""Texture scenes: reproducible, and separable by texture but not by color."""

import hashlib

import numpy as np
import pytest

from pipelines import datasets
from pipelines.datasets.sources import texture_scenes

_NUM_CLASSES = len(texture_scenes.CLASS_NAMES)


def patches(seed, num_scenes):
    """Cuts, of each scene, up to four 16 x 16 pieces that lie within one class."""
    found = []
    rng = np.random.default_rng(0)
    for number in range(num_scenes):
        image, label = texture_scenes.scene(seed, number)
        for value in set(np.unique(label)) - {datasets.VOID}:
            ys, xs = np.nonzero(label == value)
            for k in rng.permutation(len(ys))[:60]:
                box = np.s_[ys[k] : ys[k] + 16, xs[k] : xs[k] + 16]
                if label[box].shape == (16, 16) and (label[box] == value).all():
                    found.append((image[box], int(value)))
                    break
    return found


def color_features(patch):
    """A histogram of 4 x 4 x 4 colors."""
    bins = patch.reshape(-1, 3).astype(int) // 64
    return np.bincount(bins @ [16, 4, 1], minlength=64) / 256


def texture_features(patch):
    """The spectrum of the brightness: blind to color, place and mean."""
    gray = patch.mean(-1)
    gray = (gray - gray.mean()) / (gray.std() + 1)
    spectrum = np.sort(np.abs(np.fft.fft2(gray)).ravel())[::-1]
    return np.concatenate(
        [spectrum[:40:2] / 50, [np.abs(np.diff(gray, axis=k)).mean() for k in (0, 1)]]
    )


def nearest_mean_accuracy(features, train, test):
    """Mean accuracy over classes (chance: 1 / number of classes) of a nearest-class-mean rule."""
    means = [
        np.mean([features(p) for p, label in train if label == k], axis=0)
        for k in range(_NUM_CLASSES)
    ]
    hits = [[] for _ in range(_NUM_CLASSES)]
    for patch, label in test:
        guess = np.argmin(np.square(means - features(patch)).sum(-1))
        hits[label].append(guess == label)
    return np.mean([np.mean(h) for h in hits])


def test_classes_differ_in_texture_and_not_in_color():
    train, test = patches(1, 150), patches(2, 150)
    color = nearest_mean_accuracy(color_features, train, test)
    texture = nearest_mean_accuracy(texture_features, train, test)
    assert color < 0.2, color  # chance: 0.11
    assert texture > 0.35 and texture > 2.5 * color, (texture, color)


def test_scenes_are_reproducible():
    """The hash is of the scenes of this version; a new one needs a new CODE_VERSION in records."""
    digest = hashlib.sha256()
    for number in range(4):
        image, label = texture_scenes.scene(1, number)
        digest.update(image.tobytes() + label.tobytes())
    assert digest.hexdigest()[:16] == "e6c1b7fedf0e5320"


def test_scenes_have_objects_borders_and_varied_sizes():
    shapes, seen = set(), np.zeros(256, int)
    for number in range(60):
        image, label = texture_scenes.scene(2, number)
        assert image.dtype == label.dtype == np.uint8 and image.shape == (*label.shape, 3)
        shapes.add(label.shape)
        counts = np.bincount(label.ravel(), minlength=256)
        seen += counts > 0
        assert 1 <= (counts[1:_NUM_CLASSES] > 0).sum() <= 4
        assert counts[datasets.VOID] > 0 and counts[0] > 0.3 * label.size
        # Between an object and anything else there is always a border.
        for a, b in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
            assert (a == b)[(a != datasets.VOID) & (b != datasets.VOID)].all()
    assert shapes == {(160, 160), (160, 200), (200, 160)}
    assert (seen[:_NUM_CLASSES] >= 5).all() and (seen[_NUM_CLASSES : datasets.VOID] == 0).all()


@pytest.mark.parametrize("name", texture_scenes.CLASS_NAMES[1:])
def test_each_texture_covers_half_of_the_area(name):
    rng = np.random.Generator(np.random.PCG64(0))
    v, u = np.mgrid[:200, :200] - 100.0
    texture = texture_scenes._TEXTURES[name]
    shares = [texture(rng, u, v, 10.0).mean() for _ in range(8)]
    assert abs(np.mean(shares) - 0.5) < 0.05


def test_loading_needs_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(texture_scenes, "_NUM_IMAGES", {"train": 4, "val": 2})
    data = datasets.load("texture_scenes")
    assert data.spec.background_label == 0 and data.spec.num_classes == 9
    assert (data.train.num_images, data.eval.num_images) == (4, 2) and data.messages == ()
    image, label = texture_scenes.scene(1, 3)
    example = list(datasets.examples(data.train))[3]
    np.testing.assert_array_equal(example["image"], image)
    np.testing.assert_array_equal(example["label"], label)
    assert "not used" in datasets.load("texture_scenes", tmp_path).messages[0]
    with pytest.raises(
        datasets.DatasetError, match="No split 'test' in texture_scenes.*train, val"
    ):
        datasets.load("texture_scenes", eval_split="test")


@pytest.mark.slow
def test_the_whole_data_set_has_its_sizes():
    data = datasets.load("texture_scenes")
    assert (data.train.num_images, data.eval.num_images) == (300, 80)
    assert all(data.train.has_labels) and data.train.shorter_side == 160
