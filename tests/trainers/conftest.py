"""A tiny data set on disk, two runs of one step on it, and made-up folders of finished runs."""

import dataclasses
import json

import numpy as np
import pytest
import rich.console
from absl.testing import flagsaver
from PIL import Image

from pipelines import datasets
from trainers import config, mm
from trainers.config import presets
from trainers.runs import runtime, stage_scope
from trainers.stages import find

CLASS_NAMES = ("ground", "wall", "sky")
MEMBERS = {
    "gray": {"network.pixels": "gray", "data.shorter_side": 24, "seed": 1},
    "color": {"network.pixels": "bgr", "network.width": 0.5, "precision": "mixed_bfloat16"},
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
    """The tiny folder, loaded."""
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

    Both are fine-tuned without M&M. The folder of variant "naive" is a working folder as well.
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
        stage_scope.run_stage(find("segment"), experiment, make_runtime(folder / name).naive())
    return {name: folder / name / "naive" for name in MEMBERS}


CLASSES = ["background", *(f"class{k}" for k in range(1, 21))]


def write_run(folder, experiment, miou, ious=None, variant="", facts=(10582, 1449), seconds=10.0):
    """Write the files of a finished run, without weights.

    Args:
        ious: {class name: IoU}; None gives every class the mIoU.
        facts: number of images of the train split and of the eval split.
    """
    recorded = config.flatten(experiment) | {
        "classes": list(ious or CLASSES),
        "num_train_images": facts[0],
        "num_eval_images": facts[1],
    }
    ious = ious or dict.fromkeys(CLASSES, miou)
    results = {"miou": miou, "pixel_accuracy": 0.9, "mean_accuracy": 0.5, "per_class_iou": ious}
    for stage in ("segment", "evaluate") if variant else ("mm", "segment", "evaluate"):
        place = folder / variant / stage
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(recorded))
        content = (results if stage == "evaluate" else {}) | {"seconds": seconds, "peak_bytes": 1}
        (place / "results.json").write_text(json.dumps(content))
    return folder / variant


@pytest.fixture
def make_run():
    """Function `write_run`."""
    return write_run


@pytest.fixture
def make_preset_run(tmp_path):
    """Function(name, preset, miou, **changes of keys with __ for dots) -> folder."""

    def make(name, preset, miou, variant="", facts=(10582, 1449), ious=None, **changes):
        experiment = presets.experiment(preset)
        for key, value in changes.items():
            experiment = config.replace(experiment, key.replace("__", "."), value)
        return write_run(tmp_path / name, experiment, miou, ious, variant, facts)

    return make


@pytest.fixture
def parsed_flags():
    """Parse the flags once, for tests that call a `main`."""
    if not mm.FLAGS.is_parsed():
        mm.FLAGS(["mm"])


@pytest.fixture
def flags():
    """Function(*arguments) that parses a command line; the flags are restored after the test."""
    with flagsaver.flagsaver():
        yield _with_flags


def _with_flags(*arguments):
    for flag in mm.FLAGS:
        mm.FLAGS[flag].unparse()
    mm.FLAGS(["mm", *arguments])
