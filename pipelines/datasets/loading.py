"""Data sets by name, checked and ready to be read.

`load` returns images with one class id a pixel; 255 marks pixels without a class. Each split is
there twice: as TFDS records in the split's order (`examples`), and as files for reading by index
(`Split.image_files`, `Split.label_files`). Both hold the same bytes.
"""

import dataclasses
import functools
import os
import statistics
from typing import TYPE_CHECKING

from pipelines.datasets.sources import SOURCES
from pipelines.datasets.spec import VOID, Dataset, DatasetError, Split, suggest

if TYPE_CHECKING:
    import tensorflow as tf

    from pipelines.datasets import records


def names() -> tuple[str, ...]:
    """Returns the names that `load` takes, sorted."""
    return tuple(sorted(SOURCES))


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    train_split: str | None = None,
    eval_split: str | None = None,
    max_unreadable: int = 0,
    void_value: int = VOID,
) -> Dataset:
    """Finds a data set, checks every file of it, and writes its records if they are not there yet.

    Records are kept under TFDS_DATA_DIR (default ~/tensorflow_datasets), in a folder whose name
    depends on the files' names, sizes and times: a changed data set is read anew.

    Args:
        name: one of `names()`.
        data_dir: the data set's own folder or its parent; not needed for texture_scenes, and
            voc_sbd is fetched from its official addresses without.
        train_split: name of the split to train on; None means the data set's usual one.
        eval_split: name of the split to measure on; None means the data set's usual one. The split
            "test" may come without masks.
        max_unreadable: how many damaged images or masks may be left out.
        void_value: for "folder": the value in the masks of pixels without a class, 0 to 255. The
            classes have the other values in their order, so with 0 they start at 1; 255 always
            means void, too.

    Raises:
        DatasetError: for an unknown name or split, missing or wrong files; it says what to do.
    """
    found = plan(name, data_dir, train_split, eval_split, void_value)
    from pipelines.datasets import records

    folder, index = records.prepare(found, max_unreadable)
    train, eval_ = (_split(folder, index, split) for split in (found.train_split, found.eval_split))
    if not train.is_labelled:
        raise DatasetError(f"{name}: {no_labels(train.name)}")
    splits = (train,) if train == eval_ else (train, eval_)
    messages = (
        *found.messages,
        *_index_messages(index),
        *_label_messages(splits),
        *_overlap(splits),
    )
    return Dataset(found.spec, train, eval_, messages)


def plan(
    name: str,
    data_dir: str | os.PathLike | None = None,
    train_split: str | None = None,
    eval_split: str | None = None,
    void_value: int = VOID,
) -> "records.Plan":
    """Finds a data set's files and pairs them; reads none of them.

    Args: see `load`.

    Raises:
        DatasetError: for an unknown name or split, or where there is nothing to read. What is wrong
            with single files stands in the plan.
    """
    if name not in SOURCES:
        raise DatasetError(
            f"There is no data set {name!r}; there are {', '.join(names())}."
            f"{suggest(name, names())} For your own images use 'folder'."
        )
    return SOURCES[name](data_dir, train_split, eval_split, void_value)


def examples(split: Split) -> "tf.data.Dataset":
    """Read the records of a split one after the other, in the split's order.

    Returns:
        Dataset of {"image": uint8 [height, width, 3] RGB, "label": uint8 [height, width],
        "id": string}.

    Raises:
        ValueError: if the split was made by hand and has no records.
    """
    from pipelines.datasets import records

    return records.read(split.records, split.name, split.positions)


def no_labels(split: str) -> str:
    """Returns what to say of a split to train on that has no labelled pixel."""
    return (
        f"no mask of split '{split}' has a labelled pixel, all are {VOID} (void). Training needs "
        "labels: check the masks."
    )


def spread(num_chosen: int, num_all: int) -> tuple[int, ...]:
    """Returns `num_chosen` of the indices 0 .. num_all - 1, evenly spaced from 0 on.

    Index k is floor(k * num_all / num_chosen). Neighbors in a split may be frames of one film, so
    an even choice shows more of a data set than its first images do.

    Raises:
        ValueError: more are asked for than there are, or less than none.
    """
    if not 0 <= num_chosen <= num_all:
        raise ValueError(f"Expected 0..{num_all} to choose of {num_all}, got {num_chosen}.")
    return tuple(k * num_all // num_chosen for k in range(num_chosen))


def select(dataset: Dataset, num_train_images: int | None = None, holdout: int = 0) -> Dataset:
    """Trains on a part of the train split, and measures on another part of it if asked to.

    Both parts are chosen evenly (`spread`) among the images that have labels: first those to train
    on, then, from what is left, those to hold out. The images to train on therefore do not depend
    on `holdout`, unless `num_train_images` is None, where they are all that is not held out.

    Args:
        dataset: from `load`.
        num_train_images: how many images to train on; None for all.
        holdout: how many images of the train split to measure on in place of the eval split, for
            choosing settings without a look at it; 0 for none.

    Raises:
        DatasetError: the train split has too few images with labels.
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
    chosen, held_out = _parts(pool.num_images, num_train_images, holdout)
    message = f"Training on {num_chosen} of the {pool.num_images} labelled images of '{pool.name}'."
    if holdout:
        message += (
            f" Evaluation on {holdout} others of them, which is for choosing settings: figures to "
            f"report come from '{dataset.eval.name}', without data.holdout."
        )
    return dataclasses.replace(
        dataset,
        train=pool.take(chosen, f"{num_chosen} chosen evenly"),
        eval=pool.take(held_out, f"{holdout} held out") if holdout else dataset.eval,
        messages=(*dataset.messages, message),
    )


def _parts(num_all, num_train_images, holdout):
    """The indices to train on and the indices to hold out, of a pool of `num_all` images."""
    if num_train_images is None:
        held_out = spread(holdout, num_all)
        return sorted(set(range(num_all)) - set(held_out)), held_out
    chosen = spread(num_train_images, num_all)
    left = sorted(set(range(num_all)) - set(chosen))
    return chosen, [left[k] for k in spread(holdout, len(left))]


def _split(folder: str, index: "records.Index", name: str) -> Split:
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
    )


def _index_messages(index: "records.Index") -> tuple[str, ...]:
    if not index.unreadable:
        return ()
    return (f"Left out {len(index.unreadable)} unreadable: {'; '.join(index.unreadable)}.",)


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
