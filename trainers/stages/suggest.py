"""Stage suggest: name the images to label next, and the masks that the network doubts.

It writes suggest/unlabelled.csv, suggest/labelled.csv, and a page with pictures of both.
"""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterator

import keras
import numpy as np
import rich.progress
from PIL import Image

from mm_keras import inference, visualize
from mm_keras.inference import ranking
from pipelines import datasets
from pipelines.datasets import new_images
from pipelines.datasets.spec import VOID, printable
from trainers import config
from trainers.runs.files import replacing
from trainers.runs.runtime import Runtime
from trainers.stages import suggest_page
from trainers.training import networks

FEATURE_SIDE = 224
"""Shorter side in pixels of the images whose features are compared. Source: ours."""


@dataclasses.dataclass(frozen=True)
class Scored:
    """An image with its score.

    Attributes:
        name: path of a new image, id of a labelled one.
        score: uncertainty or doubt, 0 to 1.
        image: uint8 [h, w, 3], for the page.
        truth: its mask over the image, uint8 [h, w, 3]; None without a mask.
        prediction: the predicted classes over the image, uint8 [h, w, 3].
    """

    name: str
    score: float
    image: np.ndarray
    truth: np.ndarray | None
    prediction: np.ndarray


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Rank new images and training images, and write the tables and the page.

    Returns:
        "num_new", "num_labelled": images that were ranked. "skipped": new images that could not be
        read.

    Raises:
        config.UserError: `suggest.images` leads to no image.
    """
    settings = experiment.suggest
    sources = _sources(settings.images)
    predictor = networks.predictor(experiment, runtime)
    features = _Features(predictor.models[0].backbone)
    masks, known = _ranked_masks(predictor, features, runtime, settings.number)
    new, skipped = [], []
    if sources:
        new, skipped = _ranked_images(predictor, features, known, sources, runtime, settings)
    folder = runtime.folder("suggest")
    _write_table(folder / "unlabelled.csv", ("image", "uncertainty"), new)
    _write_table(folder / "labelled.csv", ("image", "doubt"), masks)
    with replacing(folder / suggest_page.NAME) as temporary:
        text = suggest_page.render(runtime.dataset.spec, new, masks, has_images=bool(sources))
        temporary.write_text(text, encoding="utf-8")
    for name, problem in skipped:
        runtime.log(f"suggest: skipped {name}: {problem}")
    runtime.log(f"suggest: {folder / suggest_page.NAME}")
    num_new = len(sources) - len(skipped)
    return {
        "num_new": num_new,
        "num_labelled": runtime.dataset.train.num_images,
        "skipped": [name for name, _ in skipped],
    }


def _sources(images) -> list[new_images.Source]:
    if images is None:
        return []
    try:
        return new_images.find([images])
    except datasets.DatasetError as error:
        raise config.UserError(f"{error} (key suggest.images)") from error


def _ranked_masks(predictor, features, runtime, number) -> tuple[list[Scored], np.ndarray]:
    """Return the training images with the most doubtful masks, and the features of all."""
    split, found, vectors = runtime.dataset.train, [], []
    examples = _tracked(datasets.examples(split), split.num_images, "masks", runtime)
    for example in examples:
        image, label = example["image"].numpy(), example["label"].numpy()
        prediction = _prediction(predictor, image)
        vectors.append(features(image))
        score = ranking.doubt(label, *prediction, void=VOID)
        if len(found) == number and score <= found[-1].score:
            continue  # it would not be shown
        name = example["id"].numpy().decode()
        found.append(_scored(name, score, image, label, prediction[0], runtime.dataset.spec))
        found = sorted(found, key=lambda scored: -scored.score)[:number]
    return [scored for scored in found if scored.score > 0], np.array(vectors)


def _ranked_images(predictor, features, known, sources, runtime, settings):
    """Return the new images to label, in order, and (path, problem) of the unreadable ones."""
    spec, read, skipped, vectors = runtime.dataset.spec, [], [], []
    scores = []
    for source in _tracked(sources, len(sources), "new images", runtime):
        try:
            image = new_images.read(source.file, spec.window).pixels
        except (datasets.DatasetError, inference.ImageError) as error:
            skipped.append((printable(str(source.file)), str(error)))
            continue
        read.append(source)
        scores.append(ranking.uncertainty(_prediction(predictor, image)[1]))
        vectors.append(features(image))
    chosen = ranking.choose(np.array(scores), np.array(vectors), settings.number, known)
    found = []
    for k in chosen:  # read again: all images together may not fit the memory
        image = new_images.read(read[k].file, spec.window).pixels
        class_ids = _prediction(predictor, image)[0]
        name = printable(str(read[k].file))
        found.append(_scored(name, scores[k], image, None, class_ids, spec))
    return found, skipped


def _prediction(predictor, image) -> tuple[np.ndarray, np.ndarray]:
    """Return class ids [H, W] and their probabilities [H, W] of one image."""
    class_ids, probability = predictor.predict(image[None])
    return class_ids[0].numpy(), probability[0].numpy()


def _scored(name, score, image, label, class_ids, spec) -> Scored:
    small = Image.fromarray(np.ascontiguousarray(visualize.as_rgb(image)))
    small.thumbnail((suggest_page.SIDE, suggest_page.SIDE))

    def painted(labels):
        nearest = Image.Resampling.NEAREST
        part = Image.fromarray(labels.astype(np.uint8)).resize(small.size, nearest)
        return visualize.overlay(
            np.asarray(small), np.asarray(part), spec.colors, 0.6, spec.background_label
        )

    truth = None if label is None else painted(label)
    return Scored(name, score, np.asarray(small), truth, painted(class_ids))


class _Features:
    """Return one vector of length 1 for an image: the mean of the backbone's embedding."""

    def __init__(self, backbone):
        self.backbone = backbone

    def __call__(self, image) -> np.ndarray:
        height, width = image.shape[:2]
        factor = min(1.0, FEATURE_SIDE / min(height, width))
        spec = self.backbone.spec
        size = [max(spec.min_size, round(side * factor)) for side in (width, height)]
        bands = (Image.fromarray(band).resize(size) for band in np.moveaxis(image, -1, 0))
        pixels = np.stack([np.asarray(band) for band in bands], axis=-1)
        maps = self.backbone(pixels[None], training=False)
        cells = keras.ops.convert_to_numpy(maps[spec.embedding.name])
        vector = cells.astype(np.float64).mean(axis=(0, 1, 2))
        return vector / max(np.linalg.norm(vector), 1e-12)


def _tracked(items, total, title, runtime) -> Iterator:
    return rich.progress.track(items, title, total=total, console=runtime.console)


def _write_table(path: pathlib.Path, columns, images: list[Scored]):
    """Write a CSV with one row per image, which Label Studio imports as tasks."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("rank", *columns))
    writer.writerows((k, scored.name, f"{scored.score:.4f}") for k, scored in enumerate(images, 1))
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
