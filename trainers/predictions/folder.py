"""Predict the images of files and folders with an exported model, callable from Python.

>>> from trainers.predictions import folder
>>> folder.predict("runs/mine", ["photos"], "predictions")  # doctest: +SKIP
"""

import dataclasses
import io
import os
import pathlib
from collections.abc import Iterable

import rich.console
import rich.progress
import tensorflow as tf

import mm_keras
from mm_keras import inference
from pipelines import datasets
from pipelines.datasets import new_images
from pipelines.datasets.spec import PixelWindow, printable
from trainers import config
from trainers.config import terminal
from trainers.predictions import files, journal


@dataclasses.dataclass(frozen=True)
class Summary:
    """The images of a command.

    Attributes:
        num_predicted: images that were predicted now.
        num_done: images that were predicted before.
        num_turned: images that their EXIF data turned.
        skipped: (file, problem) of each image that could not be predicted.
        areas: path of the table of the areas.
    """

    num_predicted: int
    num_done: int
    num_turned: int
    skipped: tuple[tuple[str, str], ...]
    areas: pathlib.Path


def predict(
    model: str | os.PathLike,
    inputs: Iterable[str],
    output: str | os.PathLike,
    kinds: files.Kinds | None = None,
    overwrite: bool = False,
    console: rich.console.Console | None = None,
) -> Summary:
    """Predict images, and write their files and the table of areas.

    A damaged image is skipped and named. The same call again continues where it was stopped.

    Args:
        model: a working folder, its folder `export`, or a SavedModel; see
            `mm_keras.load_predictor`.
        inputs: files, folders and patterns; see `pipelines.datasets.new_images.find`.
        output: folder of the results.
        kinds: files to write; None for masks and overlays.
        overwrite: predict images again that are finished.
        console: prints progress; None prints nothing.

    Raises:
        config.UserError: model, inputs or folder cannot be used; the message names the fix.
    """
    console = console or terminal.console(file=io.StringIO())
    output, kinds = pathlib.Path(output).expanduser(), kinds or files.Kinds()
    try:
        sources = new_images.find(inputs, skipped=[output])
        predictor = mm_keras.load_predictor(model)
    except ValueError as error:
        raise config.UserError(str(error)) from error
    with journal.opened(output, journal.checksum(predictor.folder), overwrite) as record:
        return _predict_all(sources, record, predictor, kinds, console)


def _predict_all(sources, record, predictor, kinds, console) -> Summary:
    """Predict the images that are not finished."""
    left = [source for source in sources if not record.is_done(source, kinds)]
    skipped, num_turned = [], 0
    try:
        for source in rich.progress.track(left, "predict", console=console):
            try:
                num_turned += _predict(source, record, predictor, kinds)
            except (datasets.DatasetError, inference.ImageError) as error:
                skipped.append((printable(str(source.file)), str(error)))
    finally:
        areas = record.write_areas(predictor.classes, sources)
    done = len(sources) - len(left)
    return Summary(len(left) - len(skipped), done, num_turned, tuple(skipped), areas)


def _predict(
    source: new_images.Source,
    record: journal.Journal,
    predictor: inference.LoadedPredictor,
    kinds: files.Kinds,
) -> bool:
    """Predict one image; return whether it was turned."""
    window = predictor.classes.window
    image = new_images.read(source.file, window and PixelWindow(**window))
    # The array is forgotten: TensorFlow and numpy share the pixels of a large image.
    image = dataclasses.replace(image, pixels=tf.constant(image.pixels))
    result = files.write(record.folder, source.name, image, predictor, kinds)
    record.add(source, result)
    return image.is_turned
