"""Load data sets by name and check their files.

`load` returns images with one class id per pixel; 255 marks pixels without a class. Each split
exists twice: as TFDS records in the split's order (`examples`), and as files that can be read by
index (`Split.image_files`, `Split.label_files`). Both hold the same bytes.
"""

import dataclasses
import functools
import os
import statistics
from typing import TYPE_CHECKING

from pipelines.datasets import division, sources
from pipelines.datasets.spec import (
    VOID,
    Dataset,
    DatasetError,
    DatasetSpec,
    Reading,
    Request,
    Split,
    printable,
    suggest,
)

if TYPE_CHECKING:
    import tensorflow as tf

    from pipelines.datasets import records

VALIDATION_SHARE = 0.1
"""Share of the training images that `hold_out_validation` takes."""
_USUAL = Reading()


def names() -> tuple[str, ...]:
    """Return the names that `load` accepts, sorted.

    Example:
        >>> names()
        ('camvid', 'cityscapes', 'folder', 'texture_scenes', 'voc_sbd')
    """
    return tuple(sorted(sources.SOURCES))


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    train_split: str | None = None,
    eval_split: str | None = None,
    max_unreadable: int = 0,
    void_value: int = VOID,
    reading: Reading = _USUAL,
) -> Dataset:
    """Find a data set, check each of its files, and write its records if they do not exist yet.

    Records are stored under TFDS_DATA_DIR (default ~/tensorflow_datasets). The name of their folder
    depends on the files' names, sizes and times, so a changed data set is read again.

    Args:
        name: str, one of `names()`.
        data_dir: path of the data set's folder or its parent. texture_scenes does not need it.
            Without it, voc_sbd is downloaded from its official addresses.
        train_split: str, name of the split to train on. None means the data set's usual split.
        eval_split: str, name of the split to measure on. None means the data set's usual split. The
            split "test" may have no masks.
        max_unreadable: int, the largest number of damaged images or masks to leave out.
        void_value: int in 0..255, the value in the masks of pixels without a class; for "folder"
            only. The classes have the other values in order, so with 0 they start at 1. 255 always
            means void, too.
        reading: further choices for annotation exports and image files, for "folder" only.

    Returns:
        The data set with both splits.

    Raises:
        DatasetError: for an unknown name or split, and for missing or wrong files. The message
            describes the fix.

    Example:
        >>> data = load("texture_scenes")  # doctest: +SKIP
        >>> data.spec.num_classes, data.train.num_images  # doctest: +SKIP
        (9, 300)
    """
    found = plan(name, data_dir, train_split, eval_split, void_value, reading)
    from pipelines.datasets import records

    folder, index = records.prepare(found, max_unreadable)
    train, eval_ = (
        _split(folder, index, split, found.spec.num_bands)
        for split in (found.train_split, found.eval_split)
    )
    if not train.is_labelled:
        raise DatasetError(f"{name}: {no_labels(train.name)}")
    splits = (train,) if train == eval_ else (train, eval_)
    messages = (
        *found.messages,
        *_index_messages(index),
        *_label_messages(splits),
        *_overlap(splits),
    )
    spec = _with_mask_values(found.spec, tuple(index.mask_values))
    return Dataset(spec, train, eval_, tuple(map(printable, messages)))


def _with_mask_values(spec: DatasetSpec, values: tuple[int, ...]) -> DatasetSpec:
    """Return the facts with the values of the user's own masks, which predictions then have.

    A benchmark states the values that its server accepts; they stay.
    """
    if spec.name != "folder" or values == spec.mask_values:
        return spec
    return dataclasses.replace(spec, label_ids=values)


def plan(
    name: str,
    data_dir: str | os.PathLike | None = None,
    train_split: str | None = None,
    eval_split: str | None = None,
    void_value: int = VOID,
    reading: Reading = _USUAL,
) -> "records.Plan":
    """Find a data set's files and pair them, without reading them.

    Args:
        name: str, one of `names()`.
        data_dir: see `load`, as for the other arguments.
        train_split: see `load`.
        eval_split: see `load`.
        void_value: see `load`.
        reading: see `load`.

    Raises:
        DatasetError: for an unknown name or split, or if there is nothing to read. Faults of single
            files are listed in the plan.

    Example:
        >>> len(plan("texture_scenes").splits["val"])
        80
    """
    if name not in sources.SOURCES:
        raise DatasetError(
            f"There is no data set {name!r}; there are {', '.join(names())}."
            f"{suggest(name, names())} For your own images use 'folder'."
        )
    return sources.find(name, Request(data_dir, train_split, eval_split, void_value, reading))


def examples(split: Split) -> "tf.data.Dataset":
    """Read the records of a split in the split's order.

    Returns:
        Dataset of {"image": uint8 [height, width, bands], RGB if there are three, "label": uint8
        [height, width], "id": string}.

    Raises:
        ValueError: if the split was made by hand and has no records.

    Example:
        >>> split = load("texture_scenes").train  # doctest: +SKIP
        >>> next(iter(examples(split)))["label"].shape  # doctest: +SKIP
        TensorShape([160, 160])
    """
    from pipelines.datasets import records

    return records.read(split.records, split.name, split.positions, split.num_bands)


def no_labels(split: str) -> str:
    """Return the error message for a training split without any labelled pixel."""
    return (
        f"no mask of split '{split}' has a labelled pixel, all are {VOID} (void). Training needs "
        "labels: check the masks."
    )


def spread(num_chosen: int, num_all: int) -> tuple[int, ...]:
    """Return `num_chosen` of the indices 0 .. num_all - 1, evenly spaced from 0.

    Index k is floor(k * num_all / num_chosen). Neighbors in a split may be frames of one film, so
    an even choice represents a data set better than its first images.

    Args:
        num_chosen: int in 0..num_all.
        num_all: int, at least 0.

    Raises:
        ValueError: if num_chosen is out of range.

    Example:
        >>> spread(4, 10)
        (0, 2, 5, 7)
    """
    if not 0 <= num_chosen <= num_all:
        raise ValueError(f"num_chosen must lie in 0..{num_all} (num_all), got {num_chosen}.")
    return tuple(k * num_all // num_chosen for k in range(num_chosen))


def select(dataset: Dataset, num_train_images: int | None = None, holdout: int = 0) -> Dataset:
    """Return a data set that trains on a part of the train split, and optionally holds out another.

    Both parts are chosen evenly (`spread`) among the images with labels: first the training images,
    then the held-out images from the rest. The training images therefore do not depend on
    `holdout`. The exception is num_train_images=None, which trains on all images not held out.

    Args:
        dataset: a data set from `load`.
        num_train_images: int, the number of training images. None means all.
        holdout: int, the number of images of the train split to measure on, instead of the eval
            split. Use it to choose settings without looking at the eval split. 0 means none.

    Raises:
        DatasetError: if the train split has too few images with labels.

    Example:
        >>> small = select(load("texture_scenes"), 20, holdout=10)  # doctest: +SKIP
        >>> small.train.num_images, small.eval.title  # doctest: +SKIP
        (20, 'train, 10 held out')
    """
    if num_train_images is None and not holdout:
        return dataset
    pool = dataset.train.labelled()
    num_left = pool.num_images - holdout
    num_chosen = num_left if num_train_images is None else num_train_images
    if not 1 <= num_chosen <= num_left:
        raise DatasetError(
            f"{dataset.spec.name}: split '{pool.name}' has {pool.num_images} images with labels, "
            f"too few for {num_chosen} to train on and {holdout} to hold out."
        )
    chosen, held_out = _parts(pool.ids, num_train_images, holdout)
    message = f"Training on {num_chosen} of the {pool.num_images} labelled images of '{pool.name}'."
    if holdout:
        message += (
            f" Evaluation on {holdout} others of them, to choose settings: measure the figures to "
            f"report on '{dataset.eval.name}', with holdout=0."
        )
    return dataclasses.replace(
        dataset,
        train=pool.take(chosen, f"{num_chosen} chosen evenly"),
        eval=pool.take(held_out, f"{holdout} held out") if holdout else dataset.eval,
        messages=(*dataset.messages, message),
    )


def hold_out_validation(dataset: Dataset, max_images: int) -> Dataset:
    """Return a data set whose `validation` is a tenth of its training images, chosen evenly.

    Args:
        dataset: a data set from `load` or `select`.
        max_images: int, largest number of validation images.

    Raises:
        DatasetError: if there are fewer than two training images with labels.
    """
    pool = dataset.train.labelled()
    if pool.num_images < 2:
        raise DatasetError(
            f"{dataset.spec.name}: split '{pool.name}' has {pool.num_images} image with labels, "
            "too few to hold one out for validation. Label more images, or name another split."
        )
    number = min(max_images, max(1, round(VALIDATION_SHARE * pool.num_images)))
    chosen, held_out = _parts(pool.ids, None, number)
    message = f"Validation on {number} of the {pool.num_images} labelled images of '{pool.name}'."
    return dataclasses.replace(
        dataset,
        train=pool.take(chosen, f"without {number} for validation"),
        validation=pool.take(held_out, f"{number} for validation"),
        messages=(*dataset.messages, message),
    )


def with_left_out(dataset: Dataset, whole: Dataset) -> Dataset:
    """Return a data set whose `left_out` has the images of the train split that it does not use.

    They are the images that `select` left out, and the images without labels. Augmented copies of
    pictures to measure on are not among them.

    Args:
        dataset: a data set from `select` or `hold_out_validation`.
        whole: the data set from `load` that it was made from.

    Example:
        >>> whole = load("texture_scenes")  # doctest: +SKIP
        >>> with_left_out(select(whole, 8), whole).left_out.num_images  # doctest: +SKIP
        292
    """
    held_out = dataset.eval if dataset.eval is not whole.eval else None
    measured = [split for split in (held_out, dataset.validation) if split is not None]
    pictures = {division.source_picture(name) for split in measured for name in split.ids}
    used = {file for split in (dataset.train.labelled(), *measured) for file in split.image_files}
    left = [
        k
        for k, (name, file) in enumerate(zip(whole.train.ids, whole.train.image_files, strict=True))
        if file not in used and division.source_picture(name) not in pictures
    ]
    return dataclasses.replace(dataset, left_out=whole.train.take(left, f"{len(left)} left out"))


def evenly(split: Split, max_images: int) -> Split:
    """Return at most `max_images` images of a split with labels, chosen evenly.

    Raises:
        DatasetError: if no image of the split has a labelled pixel.
    """
    pool = split.labelled()
    if not pool.num_images:
        raise DatasetError(
            f"Split '{split.name}' has no labels, so it cannot validate. Name a split with labels, "
            "or hold out a part of the training images."
        )
    if pool.num_images <= max_images:
        return pool
    return pool.take(spread(max_images, pool.num_images), f"{max_images} chosen evenly")


def _parts(ids, num_train_images, holdout):
    """Return the indices to train on and to hold out, of a pool of images with these names.

    An augmented copy of a held-out picture is not trained on.
    """
    if num_train_images is None:
        held_out = spread(holdout, len(ids))
        chosen = sorted(set(range(len(ids))) - set(held_out))
    else:
        chosen = spread(num_train_images, len(ids))
        left = sorted(set(range(len(ids))) - set(chosen))
        held_out = [left[k] for k in spread(holdout, len(left))]
    pictures = {division.source_picture(ids[k]) for k in held_out}
    chosen = [k for k in chosen if division.source_picture(ids[k]) not in pictures]
    if not chosen:
        raise DatasetError(
            f"All images are augmented copies of the {len(pictures)} held-out pictures, so none is "
            "left to train on. Hold out fewer images."
        )
    return chosen, held_out


def _split(folder: str, index: "records.Index", name: str, num_bands: int) -> Split:
    entries = index.splits[name]
    absolute = functools.partial(os.path.join, folder)  # leaves absolute paths as they are
    return Split(
        name=name,
        ids=tuple(entry.id for entry in entries),
        image_files=tuple(absolute(entry.image) for entry in entries),
        label_files=tuple(absolute(entry.label) for entry in entries),
        has_labels=tuple(entry.has_labels for entry in entries),
        shorter_side=int(statistics.median(min(entry.height, entry.width) for entry in entries)),
        records=folder,
        positions=tuple(range(len(entries))),
        checksums=tuple(entry.checksum for entry in entries),
        class_pixels=tuple(tuple(entry.class_pixels) for entry in entries),
        num_bands=num_bands,
    )


def _index_messages(index: "records.Index") -> tuple[str, ...]:
    if not index.unreadable:
        return tuple(index.messages)
    left_out = f"Left out {len(index.unreadable)} unreadable: {'; '.join(index.unreadable)}."
    return (left_out, *index.messages)


def _label_messages(splits: tuple[Split, ...]) -> tuple[str, ...]:
    return tuple(_label_message(split) for split in splits if not all(split.has_labels))


def _label_message(split: Split) -> str:
    if not split.is_labelled:
        return f"Split '{split.name}' has no labels: it can be predicted, not measured."
    return (
        f"{split.has_labels.count(False)} of {split.num_images} images of split '{split.name}' "
        "have no labelled pixel; training leaves such images out."
    )


def _overlap(splits: tuple[Split, ...]) -> tuple[str, ...]:
    if len(splits) == 1:
        return (f"Training and evaluation both use split '{splits[0].name}'.",)
    # Different folders may use one name for different images, so the files are compared.
    num_shared = len(set(splits[0].image_files) & set(splits[1].image_files))
    if not num_shared:
        return ()
    return (f"{num_shared} images are in both '{splits[0].name}' and '{splits[1].name}'.",)
