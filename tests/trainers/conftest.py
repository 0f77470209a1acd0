"""A tiny data set on disk, and runs on it that were fine-tuned for one step."""

import dataclasses

import numpy as np
import pytest
import rich.console
from PIL import Image

from pipelines import datasets
from trainers import config, runtime, segment

CLASS_NAMES = ("ground", "wall", "sky")
MEMBERS = {
    "grey": {"network.pixels": "gray", "data.shorter_side": 24, "seed": 1},
    "colour": {"network.pixels": "bgr", "network.width": 0.5, "precision": "mixed_bfloat16"},
}


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Folder with two training and three evaluation images of 30 x 44 pixels, three classes."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    (folder / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    for split, count in (("train", 2), ("val", 3)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for k in range(count):
            labels = rng.integers(0, 3, (5, 6)).repeat(6, 0).repeat(8, 1)[:, :44].astype("uint8")
            labels[:2] = 255
            pixels = labels[..., None] * 30 + rng.integers(0, 60, (*labels.shape, 3))
            Image.fromarray(pixels.astype("uint8")).save(folder / "images" / split / f"{k}.png")
            Image.fromarray(labels).save(folder / "masks" / split / f"{k}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_dataset(tiny_data, tmp_path_factory):
    """The folder as `datasets.load` reads it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("records")))
        yield datasets.load("folder", data_dir=tiny_data)


@pytest.fixture(scope="session")
def make_runtime(tiny_dataset):
    """Function(workdir) -> Runtime on the tiny data set."""
    return lambda workdir: runtime.Runtime(workdir, tiny_dataset, rich.console.Console(quiet=True))


@pytest.fixture(scope="session")
def members(make_runtime, tiny_data, tmp_path_factory):
    """{name: working folder} of two runs that differ in pixels, width, precision and image size.

    They are fine-tuned without M&M: the folder of that arm is a working folder like any other.
    """
    folder = tmp_path_factory.mktemp("runs")
    base = config.Experiment()
    base = dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, dataset="folder", data_dir=str(tiny_data)),
        network=dataclasses.replace(base.network, backbone="testing"),
        segment=dataclasses.replace(
            base.segment, steps=1, drops=(), num_images=2, crop=24, stddev=0.1
        ),
    )
    for name, changes in MEMBERS.items():
        experiment = base
        for key, value in changes.items():
            experiment = config.replace(experiment, key, value)
        segment.run(experiment, make_runtime(folder / name).naive())
    return {name: folder / name / "naive" for name in MEMBERS}
