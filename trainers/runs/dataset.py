"""The data set of a run."""

import dataclasses

from pipelines import datasets
from trainers import config

GENERATED = "texture_scenes"
"""The data set without files."""


def load_dataset(data: config.Data, channels: int | None = None) -> datasets.Dataset:
    """Load the data set and select the part that the settings ask for.

    Args:
        data: the settings.
        channels: number of bands that the network takes (`network.channels`), or None.

    Raises:
        config.ConfigError: the data set is missing or not usable; the message names the fix.
    """
    check_folder(data)
    try:
        whole = _load(data, data.eval_split, channels)
        dataset = datasets.select(whole, data.num_train_images, data.holdout)
        dataset = _with_validation(dataset, data, channels)
        if data.pseudo_labels == config.REST:
            dataset = datasets.with_left_out(dataset, whole)
    except datasets.DatasetError as error:
        raise config.ConfigError(str(error)) from error
    if channels not in (None, dataset.spec.num_bands):
        raise config.ConfigError(
            f"network.channels={channels}, but the images of data set {data.dataset} have "
            f"{dataset.spec.num_bands} bands. Leave network.channels out."
        )
    return dataset


def _load(data, eval_split, channels):
    return datasets.load(
        data.dataset,
        data_dir=data.data_dir,
        train_split=data.train_split,
        eval_split=eval_split,
        max_unreadable=data.max_unreadable,
        void_value=data.void_value,
        reading=reading(data, channels),
    )


def _with_validation(dataset, data, channels):
    """Return the data set with the split that `data.validation` names."""
    if data.validation is None:
        return dataset
    if data.validation == "train":
        return datasets.hold_out_validation(dataset, data.validation_images)
    if data.validation in ("eval", dataset.eval.name):
        split = dataset.eval
    else:
        split = _load(data, data.validation, channels).eval
    return dataclasses.replace(dataset, validation=datasets.evenly(split, data.validation_images))


def shrinking_notice(data: config.Data, shorter_side: int) -> str | None:
    """Return a sentence if training shrinks images to less than half their size, otherwise None.

    Args:
        data: the settings.
        shorter_side: median of the shorter sides of the images, in pixels.

    Example:
        >>> shrinking_notice(config.Data(shorter_side=180), 300)
    """
    if data.shorter_side is None or shorter_side <= 2 * data.shorter_side:
        return None
    return (
        f"Images are shrunk: their shorter side of {shorter_side} pixels becomes "
        f"{data.shorter_side} (data.shorter_side). Thin and small objects may be lost. "
        "--stage=doctor shows how much of each class is left, and --preset=detail keeps the "
        "resolution."
    )


def reading(data: config.Data, channels: int | None = None) -> datasets.Reading:
    """Return the choices on reading a user's own files; see `load_dataset`."""
    return datasets.Reading(
        unlabelled=data.unlabelled,
        unannotated=data.unannotated,
        images=data.images,
        window=data.window,
        percentiles=data.percentiles,
        bands=data.bands,
        channels=channels,
    )


def check_folder(data: config.Data) -> None:
    """Raise an error if a folder is given and the data set reads none.

    Raises:
        config.ConfigError: names the data sets that read a folder.
    """
    if data.dataset == GENERATED and data.data_dir is not None:
        raise config.ConfigError(
            f"data.data_dir={data.data_dir} is given, but data set {GENERATED} is generated and "
            "reads no folder. Add --dataset=folder for your own images, or name another data set: "
            f"{', '.join(name for name in datasets.names() if name != GENERATED)}."
        )
