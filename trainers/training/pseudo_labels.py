"""Pseudo-labels: class ids that a fine-tuned network gives to images without masks (Lee 2013).

Stage pseudo makes them with the network of stage teacher. Stage segment trains on them beside the
labelled images. Pixels below `data.pseudo_threshold` are void.
"""

import dataclasses
import json
import math
import pathlib
import zlib
from collections.abc import Iterable

import numpy as np

from pipelines import datasets
from pipelines.batches import views
from pipelines.datasets import new_images
from pipelines.datasets.spec import VOID
from trainers import config
from trainers.runs.files import write_json
from trainers.runs.runtime import Runtime, WorkdirError

INDEX = "images.json"
"""The list of the images for stage segment, complete or not there."""


@dataclasses.dataclass(frozen=True)
class Image:
    """An image with its pseudo-labels.

    Attributes:
        name: unique among the images.
        image: path of a file that `pipelines.batches.views.read_image` decodes; a relative one is
            in the folder of stage pseudo.
        label: path of its label map in the folder of stage pseudo.
        predicted: for each class, the number of predicted pixels.
        kept: for each class, the number of confident ones.
    """

    name: str
    image: str
    label: str
    predicted: tuple[int, ...]
    kept: tuple[int, ...]

    @property
    def share(self) -> float:
        """The share of its pixels that are confident."""
        return sum(self.kept) / sum(self.predicted)


def sources(data: config.Data, dataset: datasets.Dataset) -> list[new_images.Source]:
    """Return the images without masks that `data.pseudo_labels` names.

    Raises:
        config.ConfigError: there is no such folder, or no image in it; or no training image is left
            out.
    """
    if data.pseudo_labels == config.REST:
        return _left_out(dataset)
    folder = pathlib.Path(data.pseudo_labels).expanduser()
    if not folder.is_dir():
        raise config.ConfigError(
            f"data.pseudo_labels={data.pseudo_labels} is not a folder. Name a folder of images, or "
            f"{config.REST} for the training images that are left out."
        )
    try:
        return new_images.find([str(folder)])
    except datasets.DatasetError as error:
        raise config.ConfigError(f"{error} (key data.pseudo_labels)") from error


def _left_out(dataset):
    rest = dataset.left_out
    if not rest.num_images:
        raise config.ConfigError(
            f"data.pseudo_labels={config.REST}, but the run uses all images of split "
            f"'{rest.name}'. Set data.num_train_images, or name a folder of images."
        )
    files = map(pathlib.Path, rest.image_files)
    return [new_images.Source(name, file) for name, file in zip(rest.ids, files, strict=True)]


def thresholded(class_ids: np.ndarray, probability: np.ndarray, threshold: float) -> np.ndarray:
    """Return a label map, uint8 [H, W], that is void below a confidence.

    Args:
        class_ids: int [H, W].
        probability: float [H, W], of the class ids.
        threshold: a pixel of exactly this confidence keeps its class.

    >>> thresholded(np.array([[3, 4]]), np.array([[0.9, 0.8]]), 0.9)
    array([[  3, 255]], dtype=uint8)
    """
    return np.where(probability >= threshold, class_ids, VOID).astype(np.uint8)


def fingerprint(pixels: np.ndarray) -> tuple[int, ...]:
    """Return a key that equal images share: height, width and the CRC-32 of the pixels."""
    return (*pixels.shape[:2], zlib.crc32(np.ascontiguousarray(pixels)))


def known_images(dataset: datasets.Dataset) -> set[tuple[int, ...]]:
    """Return the fingerprints of all images that the run trains or measures on."""
    splits = (dataset.train.labelled(), dataset.eval, dataset.validation)
    files = {file for split in splits if split is not None for file in split.image_files}
    return {fingerprint(views.read_image(file).numpy()) for file in files}


def report(images: Iterable[Image], used: Iterable[Image], class_names: tuple[str, ...]) -> dict:
    """Return the figures of stage pseudo.

    Args:
        images: all images with pseudo-labels.
        used: the images with enough confident pixels.
        class_names: names of the classes.

    Returns:
        "num_used", "num_unsure" (left out), "share_of_pixels" (the confident pixels of the used
        images as a share of the pixels of all images) and "classes", {name: {"pixels": confident
        pixels of the used images, "share_kept": as a share of the predicted pixels of this class in
        all images, None if there is none}}.
    """
    images, used = list(images), list(used)
    predicted = np.sum([image.predicted for image in images], axis=0).tolist()
    kept = np.sum([image.kept for image in used], axis=0).tolist()
    return {
        "num_used": len(used),
        "num_unsure": len(images) - len(used),
        "share_of_pixels": sum(kept) / sum(predicted),
        "classes": {
            name: {"pixels": k, "share_kept": k / n if n else None}
            for name, k, n in zip(class_names, kept, predicted, strict=True)
        },
    }


def write(folder: pathlib.Path, images: Iterable[Image]) -> None:
    """Write the list of the images for stage segment."""
    write_json(folder / INDEX, [dataclasses.asdict(image) for image in images])


def joined(
    labelled: datasets.Split, experiment: config.Experiment, runtime: Runtime
) -> datasets.Split:
    """Return the training images of stage segment: labelled ones and images of stage pseudo.

    Labelled images are repeated until pseudo-labelled ones are at most `data.pseudo_share` of all,
    as ST++ oversamples them (Yang et al. 2022).

    Raises:
        WorkdirError: stage pseudo is not done, or its list is damaged.
    """
    path = runtime.needed("pseudo", INDEX)
    try:
        found = [Image(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        again = runtime.command("--stage=pseudo")
        raise WorkdirError(f"{path} is damaged ({error}). Make it again: {again}") from error
    times = repetitions(labelled.num_images, len(found), experiment.data.pseudo_share)
    runtime.log(
        f"segment: {labelled.num_images} labelled images, each {times} times, and {len(found)} "
        "pseudo-labelled images"
    )
    folder = path.parent
    return dataclasses.replace(
        labelled,
        ids=labelled.ids * times + tuple(image.name for image in found),
        image_files=labelled.image_files * times + tuple(str(folder / i.image) for i in found),
        label_files=labelled.label_files * times + tuple(str(folder / i.label) for i in found),
        has_labels=labelled.has_labels * times + (True,) * len(found),
        records="",
        positions=(),
        checksums=(),
        class_pixels=(),
        part=f"{len(found)} pseudo-labelled",
    )


def repetitions(num_labelled: int, num_pseudo: int, share: float) -> int:
    """Return how often each labelled image is listed beside pseudo-labelled ones.

    Args:
        num_labelled: number of labelled images.
        num_pseudo: number of pseudo-labelled images.
        share: largest share of pseudo-labelled images, below 1.

    >>> repetitions(8, 292, 0.5)
    37
    >>> repetitions(300, 20, 0.5)
    1
    """
    return max(1, math.ceil(num_pseudo * (1 - share) / share / num_labelled - 1e-9))
