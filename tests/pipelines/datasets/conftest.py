"""A cache of its own for each test, and small folders of images and masks to damage."""

import pathlib

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Return the folder that holds this test's records."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def write_pair():
    """Return a function that writes one image and its mask (a palette PNG unless mode="L")."""

    def write(
        root, name, split="", size=(24, 32), seed=0, ending=".jpg", values=(0, 1, 255), mode="P"
    ):
        rng = np.random.default_rng([seed, *name.encode()])
        image_file = pathlib.Path(root, "images", split, name + ending)
        mask_file = pathlib.Path(root, "masks", split, name + ".png")
        for file in (image_file, mask_file):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(image_file)
        pixels = rng.choice(np.array(values, np.uint8), size)
        pixels.flat[: len(values)] = values  # each value is there
        mask = Image.fromarray(pixels)
        if mode == "P":
            mask = Image.frombytes("P", mask.size, pixels.tobytes())
            mask.putpalette([(7 * k) % 256 for k in range(768)])
        mask.save(mask_file)
        return image_file, mask_file, pixels

    return write


@pytest.fixture
def folder(tmp_path, write_pair):
    """Return a sound data set: three images to train on, two to measure on, two classes."""
    root = tmp_path / "data"
    for split, names in (("train", "abc"), ("val", "de")):
        for name in names:
            write_pair(root, name, split)
    (root / "classes.txt").write_text("ground\nthing\n")
    return root
