"""Data sets by name: what is true of each (DatasetSpec) and its two splits, ready to be read.

`load` returns images with one class id a pixel; 255 marks pixels without a class. Each split is
there twice: as TFDS records in the split's order (`Split.examples`), and as files for reading by
index (`Split.image_files`, `Split.label_files`); both hold the same bytes.
"""

import dataclasses
import difflib
import functools
import importlib
import os
import statistics
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

    from pipelines.builders import records

VOID = 255

# Module of pipelines.builders and its function (data_dir, train_split, eval_split) -> Plan.
_BUILDERS = {
    "camvid": ("folder", "plan_camvid"),
    "cityscapes": ("cityscapes", "plan"),
    "folder": ("folder", "plan_folder"),
    "texture_scenes": ("texture_scenes", "plan"),
    "voc_sbd": ("voc_sbd", "plan"),
}


class DatasetError(ValueError):
    """A data set that cannot be used as it is; the message names the files and the fix."""


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """What is true of a data set, whatever its files.

    Attributes:
        name: the name that `load` takes.
        class_names: class k is `class_names[k]`; void is not among them.
        colours: one RGB triple, 0..255, a class, for pictures.
        background_label: the class id of "everything else", or None where all classes are equal.
        source: origin and terms of use.
        label_ids: what a benchmark's server calls class k in the files that it takes, 0..255; None
            where that is k.
    """

    name: str
    class_names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    background_label: int | None
    source: str
    label_ids: tuple[int, ...] | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes, void not counted."""
        return len(self.class_names)


@dataclasses.dataclass(frozen=True)
class Split:
    """The images of one split, in order.

    Attributes:
        name: the split's name.
        ids: one name an image.
        image_files: absolute paths of JPEG or PNG files, the original bytes of the data set.
        label_files: absolute paths of 8-bit grey PNGs of class ids, 255 = void; all void where the
            split has no labels (`is_labelled`).
        has_labels: whether any pixel of the image has a class.
        shorter_side: median over the whole split of min(height, width), in pixels.
        records: folder of the TFDS records that hold this split.
        positions: where each image stands in the records.
        checksums: of each image and its label map.
        part: which of the split's images these are, in words; empty for all of them.
    """

    name: str
    ids: tuple[str, ...]
    image_files: tuple[str, ...]
    label_files: tuple[str, ...]
    has_labels: tuple[bool, ...]
    shorter_side: int
    records: str = ""
    positions: tuple[int, ...] = ()
    checksums: tuple[int, ...] = ()
    part: str = ""

    @property
    def num_images(self) -> int:
        """The number of images."""
        return len(self.ids)

    @property
    def is_labelled(self) -> bool:
        """Whether any pixel of the split has a class; without, it can be predicted only."""
        return any(self.has_labels)

    @property
    def title(self) -> str:
        """The name, and which part of the split it is: "train, 60 held out"."""
        return f"{self.name}, {self.part}" if self.part else self.name

    def labelled(self) -> "Split":
        """Returns the split without the images that have no labelled pixel."""
        return self.take(k for k, has_labels in enumerate(self.has_labels) if has_labels)

    def take(self, indices: Iterable[int], part: str | None = None) -> "Split":
        """Returns the images of these indices, in the split's order.

        The shorter side stays that of the whole split, so that sizes which depend on it do not
        depend on the choice.

        Args:
            indices: 0 .. num_images - 1, each at most once.
            part: the choice in words; None leaves the words as they are.

        Raises:
            ValueError: an index is out of range or comes twice.
        """
        indices = sorted(indices)
        if len(set(indices)) < len(indices) or set(indices) - set(range(self.num_images)):
            raise ValueError(
                f"Indices must be different ones of 0..{self.num_images - 1}, got {indices}."
            )
        per_image = ("ids", "image_files", "label_files", "has_labels", "positions", "checksums")
        chosen = {name: getattr(self, name) for name in per_image}
        chosen = {name: tuple(v[k] for k in indices) if v else v for name, v in chosen.items()}
        return dataclasses.replace(self, **chosen, part=self.part if part is None else part)

    def examples(self) -> "tf.data.Dataset":
        """Reads the records one after the other, in the split's order.

        Returns:
            Dataset of {"image": uint8 [height, width, 3] RGB, "label": uint8 [height, width],
            "id": string}.

        Raises:
            ValueError: if the split was made by hand and has no records.
        """
        from pipelines.builders import records

        return records.read(self.records, self.name, self.positions)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set's facts, its two splits, and what a person should know of how it was read.

    Attributes:
        spec: the facts.
        train: the split to train on; may hold images without labels (`Split.labelled`).
        eval: the split to measure on.
        messages: plain sentences for the log.
    """

    spec: DatasetSpec
    train: Split
    eval: Split
    messages: tuple[str, ...]


def names() -> tuple[str, ...]:
    """Returns the names that `load` takes, sorted."""
    return tuple(sorted(_BUILDERS))


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
    from pipelines.builders import records

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
    planner = _planner(name)
    if name == "folder":
        return planner(data_dir, train_split, eval_split, void_value)
    if void_value != VOID:
        raise DatasetError(
            f"void_value={void_value} is for data set 'folder'; {name} has a void value of its own."
        )
    return planner(data_dir, train_split, eval_split)


def no_labels(split: str) -> str:
    """Returns what to say of a split to train on that has no labelled pixel."""
    return (
        f"no mask of split '{split}' has a labelled pixel, all are {VOID} (void). Training needs "
        "labels: check the masks."
    )


def spread(num_chosen: int, num_all: int) -> tuple[int, ...]:
    """Returns `num_chosen` of the indices 0 .. num_all - 1, evenly spaced from 0 on.

    Index k is floor(k * num_all / num_chosen). Neighbours in a split may be frames of one film, so
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


def voc_colours(num_colours: int) -> tuple[tuple[int, int, int], ...]:
    """Returns the first `num_colours` (at most 256) RGB colours of PASCAL VOC's colour map.

    The map's rule (VOC development kit): of the class id's bits, number 3 i + c (from the lowest)
    becomes bit 7 - i of colour channel c: 0 is black, 1 (128, 0, 0), 255 (224, 224, 192).
    """

    def channel(label: int, c: int) -> int:
        return sum((label >> (3 * i + c) & 1) << (7 - i) for i in range(3))

    return tuple(tuple(channel(k, c) for c in range(3)) for k in range(num_colours))


def suggest(wrong: str, known: tuple[str, ...]) -> str:
    """Returns " Did you mean 'x'?" for the names of `known` close to `wrong`, or an empty text."""
    close = difflib.get_close_matches(wrong.lower(), known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def _planner(name: str):
    if name not in _BUILDERS:
        raise DatasetError(
            f"There is no data set {name!r}; there are {', '.join(names())}."
            f"{suggest(name, names())} For your own images use 'folder'."
        )
    module, function = _BUILDERS[name]
    # Imported here: the builders need this module's records, and load TFDS, which takes seconds.
    return getattr(importlib.import_module(f"pipelines.builders.{module}"), function)


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
