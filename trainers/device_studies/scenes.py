"""Labelled images of one shape in one file, so that a whole data set fits on an accelerator."""

import dataclasses
import json
import pathlib
import zipfile
from typing import NamedTuple

import numpy as np

from pipelines.datasets.spec import VOID
from trainers import config
from trainers.runs.files import replacing


class Scenes(NamedTuple):
    """Labelled images. Smaller ones are padded below and to the right, with label void.

    Attributes:
        images: uint8 [N, H, W, 3].
        labels: uint8 [N, H, W], 255 = void.
        sizes: int32 [N, 2], (height, width) without the padding.
    """

    images: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Packed:
    """A data set without files.

    Attributes:
        train: the training images.
        held_out: the images that are scored.
        class_names: names of the classes.
        background: id of the background class; None without one.
    """

    train: Scenes
    held_out: Scenes
    class_names: tuple[str, ...]
    background: int | None

    @property
    def shorter_side(self) -> int:
        """The smallest side of a training image in pixels."""
        return int(self.train.sizes.min())


def padded(images: list[np.ndarray], labels: list[np.ndarray], shape: tuple[int, int]) -> Scenes:
    """Return images and label maps as arrays of one shape.

    Args:
        images: uint8 [height, width, 3] each.
        labels: uint8 [height, width] each.
        shape: (H, W), at least as large as every image.

    >>> padded([np.ones((1, 2, 3), "uint8")], [np.zeros((1, 2), "uint8")], (2, 2)).labels.tolist()
    [[[0, 0], [255, 255]]]
    """
    number = len(images)
    scenes = Scenes(
        np.zeros((number, *shape, 3), np.uint8),
        np.full((number, *shape), VOID, np.uint8),
        np.array([image.shape[:2] for image in images], np.int32).reshape(number, 2),
    )
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        height, width = label.shape
        scenes.images[k, :height, :width], scenes.labels[k, :height, :width] = image, label
    return scenes


def write(path: pathlib.Path, packed: Packed) -> None:
    """Write a data set as one npz file without pickles."""
    facts = {"class_names": packed.class_names, "background": packed.background}
    parts = {"train": packed.train, "held_out": packed.held_out}
    arrays = {f"{part}_{key}": v for part, s in parts.items() for key, v in s._asdict().items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, facts=np.array(json.dumps(facts)), **arrays)


def read(path: pathlib.Path) -> Packed:
    """Read a file of `write`.

    Raises:
        config.UserError: the file cannot be read, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            train, held_out = (
                Scenes(*(file[f"{part}_{key}"] for key in Scenes._fields))
                for part in ("train", "held_out")
            )
            return Packed(train, held_out, tuple(facts["class_names"]), facts["background"])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise config.UserError(
            f"{path} is no file of a packed data set ({error}). Make one with --pack."
        ) from error
