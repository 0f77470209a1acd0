"""The TFDS builder of all data sets: records, label maps, an index file, and their cache.

A builder reads the items of a plan in order. It writes the bytes of each image and a gray PNG of
its class ids into the TFDS records. It also writes the PNG as a file, so that any image can be read
by its number. Everything is generated in a temporary folder that is renamed at the end, so a
finished folder is always complete.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import logging
import os
import pathlib
import random
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from google.protobuf import json_format
from PIL import Image

from pipelines.datasets import (
    copies,
    division,
    exchange,
    faults,
    inspection,
    masks,
    planes,
    tiles,
)
from pipelines.datasets.spec import VOID, DatasetError, DatasetSpec, printable, suggest

# Part of each cache key: raise it when the records or the checks change.
CODE_VERSION = 6
_INDEX_FILE = "index.json"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image in the index; paths are relative to the records' folder unless absolute.

    checksum: CRC-32 of the image file's bytes and the label map's pixels.
    class_pixels: number of pixels of each class.
    """

    id: str
    image: str
    label: str
    has_labels: bool
    height: int
    width: int
    checksum: int
    class_pixels: list[int]


@dataclasses.dataclass
class Index:
    """The content of a prepared folder.

    Attributes:
        splits: split name -> entries, in order.
        unreadable: the files left out, each with the reason.
        messages: sentences for the log, known only after all files were read.
        mask_values: the value of each class in the masks of the data set.
        stamps: relative path of each file of the copy -> its stamp.
    """

    splits: dict[str, list[Entry]] = dataclasses.field(default_factory=dict)
    unreadable: list[str] = dataclasses.field(default_factory=list)
    messages: list[str] = dataclasses.field(default_factory=list)
    mask_values: list[int] = dataclasses.field(default_factory=list)
    stamps: dict[str, copies.Stamp] = dataclasses.field(default_factory=dict)

    def save(self, file: pathlib.Path) -> None:
        """Write the index as JSON."""
        file.write_text(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def load(cls, file: pathlib.Path) -> "Index":
        """Read an index that `save` wrote.

        Raises:
            DatasetError: if the file is damaged.
        """
        try:
            raw = json.loads(file.read_text())
            parts = raw.pop("splits")
            splits = {name: [Entry(**entry) for entry in part] for name, part in parts.items()}
            return cls(splits, **raw)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise copies.damaged(file.parent, error) from error


@dataclasses.dataclass(frozen=True)
class Plan:
    """A data set whose files were found, but not read yet.

    Attributes:
        spec: the facts of the data set.
        builder: the TFDS builder; the records' folder has its name.
        splits: split name -> items of the split, one per image.
        read: function that reads and checks an item; several threads may call it.
        rule: the meaning of the values in the masks.
        train_split: name of the split to train on.
        eval_split: name of the split to measure on.
        fingerprint: text that changes whenever the records must be written again.
        messages: sentences for the log.
        found: faults found before any file is read.
        reader: function that reads and checks an item with a rule; None if the rule is fixed.
        root: folder of the images; empty if they are generated.
        divided: names of the splits for training and evaluation if a hash divided their items,
            which have an `id`.
        notes: further sentences for the log, known only after all files were read.
    """

    spec: DatasetSpec
    builder: type["RecordsBuilder"]
    splits: dict[str, Sequence]
    read: Callable[[object], inspection.CheckedImage]
    rule: masks.MaskRule
    train_split: str
    eval_split: str
    fingerprint: str
    messages: tuple[str, ...] = ()
    found: faults.Faults = dataclasses.field(default_factory=faults.Faults)
    reader: Callable[[object, masks.MaskRule], inspection.CheckedImage] | None = None
    root: str = ""
    divided: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "messages", tuple(map(printable, self.messages)))
        for split in self.splits:
            if not re.fullmatch(r"\w+", split, re.ASCII) or split == "all":
                raise DatasetError(
                    f"A split cannot be called '{split}': use letters, digits and _ only, and not "
                    "'all', which TFDS reserves. Rename its folders or list."
                )

    def revised(
        self, inspected: inspection.Inspection, classes: Mapping[str, frozenset[int]]
    ) -> "Plan | None":
        """Return the plan with which the files must be read again, or None.

        Args:
            inspected: the results of reading all files of this plan.
            classes: id of each image without faults -> its classes.
        """
        rule = inspected.revised_rule()
        if rule is not None and self.reader is not None:
            read = functools.partial(self.reader, rule=rule)
            return dataclasses.replace(self, rule=rule, read=read)
        return self._redivided(classes) if self.divided else None

    def _redivided(self, classes) -> "Plan | None":
        """Return the plan whose training images have all classes of its evaluation images.

        Augmented copies of a picture stay together, so a division of copies is not changed.
        """
        parts = [self.splits[name] for name in self.divided]
        if any(division.source_picture(item.id) != item.id for part in parts for item in part):
            return None
        names = [[item.id for item in part if item.id in classes] for part in parts]
        moves = exchange.moves(*names, classes)
        if not moves.to_train:
            return None
        items = {item.id: item for part in parts for item in part}
        left, added = {*moves.to_train, *moves.to_evaluation}, moves
        kept = ([item for item in part if item.id not in left] for part in parts)
        splits = {
            name: (*part, *(items[moved] for moved in names))
            for name, part, names in zip(self.divided, kept, added, strict=True)
        }
        train, evaluation = self.divided
        note = (
            f"{len(left)} images changed sides, so that each class of split '{evaluation}' is in "
            f"split '{train}', too: {faults.named(sorted(left))}."
        )
        return dataclasses.replace(
            self, splits={**self.splits, **splits}, notes=(*self.notes, printable(note))
        )

    @property
    def key(self) -> str:
        """Name of the cache folder: a hash of everything that the records depend on."""
        facts = (self.fingerprint, self.rule, list(self.splits), CODE_VERSION)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    @property
    def origin(self) -> str:
        """The request without the state of the files: a newer copy for it replaces older ones."""
        return repr((self.root, list(self.splits), self.rule.table))


@dataclasses.dataclass(eq=False, kw_only=True)
class PlanConfig(tfds.core.BuilderConfig):
    """A TFDS config that carries the plan to the builder.

    Attributes:
        plan: the plan, perhaps revised.
        origin: `Plan.origin` of the plan before it was revised.
        max_unreadable: the largest number of damaged files to leave out.
    """

    plan: Plan = dataclasses.field(repr=False)
    origin: str = ""
    max_unreadable: int = 0


_PARSE_ERRORS = (ValueError, LookupError, TypeError, json_format.ParseError)


class RecordsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Write samples as {"image", "label", "id"} records, in order, with an index file."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS 4.9 searches for checksums of downloads next to the builder's code. It uses
    # importlib_resources for this, which it does not install. This builder downloads nothing.
    code_path = None

    def __init__(self, **kwargs):
        try:
            super().__init__(**kwargs)  # it reads dataset_info.json of a copy that exists
        except _PARSE_ERRORS as error:
            raise copies.damaged(pathlib.Path(self._data_dir), error) from error
        self.index = Index(mask_values=list(self.builder_config.plan.rule.values))
        self.revised_plan: Plan | None = None
        self._inspection = inspection.Inspection(self.builder_config.plan.rule)
        self._classes: dict[str, frozenset[int]] = {}

    def _samples(self, split: str) -> Iterator[inspection.Sample]:
        """Yield the samples of a split that have no faults."""
        plan, num_yielded = self.builder_config.plan, 0
        for item in plan.splits[split]:
            checked = plan.read(item)
            self._inspection.add(checked)
            if checked.sample is not None:
                num_yielded += 1
                self._classes[checked.id] = present(masks.value_counts(checked.sample.label))
                yield from tiles.cut(checked.sample, checked.pixels, planes.encode)
        if not num_yielded:
            # TFDS cannot write an empty split, so fail here, and report the other faults too.
            splits = list(plan.splits)
            for later in splits[splits.index(split) + 1 :]:
                for item in plan.splits[later]:
                    self._inspection.add(plan.read(item))
            self._check()
            raise DatasetError(
                f"Split '{split}' has no readable image; unreadable are "
                f"{faults.named(self._inspection.unreadable)}. Restore these files."
            )

    def _check(self) -> None:
        """Raise one DatasetError for all faults, or if the masks must be read by another rule."""
        plan = self.builder_config.plan
        self.revised_plan = plan.revised(self._inspection, self._classes)
        if self.revised_plan is not None:
            raise DatasetError("The files must be read again, by another plan.")
        self._inspection.found().check(f"Data set '{plan.spec.name}'")
        self.index.unreadable = self._inspection.unreadable
        self.index.messages = [
            *plan.notes,
            *self._inspection.messages(),
            *self._inspection.warning_lines(),
        ]
        check_unreadable(self.index.unreadable, self.builder_config.max_unreadable)

    def _info(self) -> tfds.core.DatasetInfo:
        channels = 3 if self.builder_config.plan.spec.num_bands == 3 else 1  # planes are gray
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, channels)),
                "label": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                "id": tfds.features.Text(),
            }
        )
        source = self.builder_config.plan.spec.source
        return tfds.core.DatasetInfo(
            builder=self, description=source, features=features, disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.builder_config.plan.splits}

    def _generate_examples(self, split):
        entries = self.index.splits[split] = []
        for number, sample in enumerate(self._samples(split)):
            entry = self._write(split, sample)
            entries.append(entry)
            image, label = self.data_path / entry.image, self.data_path / entry.label
            yield number, {"image": image, "label": label, "id": sample.id}
        # TFDS generates one split after the other, so after the last one all files were read.
        if len(self.index.splits) == len(self.builder_config.plan.splits):
            self._check()

    def _download_and_prepare(self, *args, **kwargs):
        """Generate all files, and then write the index with their stamps."""
        super()._download_and_prepare(*args, **kwargs)
        folder = pathlib.Path(self.data_path)
        copies.write_origin(folder, self.builder_config.origin)
        self.index.stamps = copies.stamps(folder)
        self.index.save(folder / _INDEX_FILE)

    def _write(self, split: str, sample: inspection.Sample) -> Entry:
        folder = pathlib.Path(self.data_path)  # the temporary one, while TFDS generates
        image, label = str(sample.image), f"labels/{split}/{sample.id}.png"
        content = sample.image
        if isinstance(content, bytes):
            image = f"images/{split}/{sample.id}.png"
            _write_file(folder / image, content)
        else:
            content = pathlib.Path(content).read_bytes()
        _write_file(folder / label, encode_png(sample.label))
        has_labels = bool((sample.label != VOID).any())
        checksum = zlib.crc32(sample.label.tobytes(), zlib.crc32(content))
        num_classes = self.builder_config.plan.spec.num_classes
        counts = masks.value_counts(sample.label)[:num_classes]
        return Entry(
            sample.id, image, label, has_labels, *sample.label.shape, checksum, counts.tolist()
        )


def prepare(plan: Plan, max_unreadable: int) -> tuple[str, Index]:
    """Write the records of a plan unless they exist; several processes may call this.

    Args:
        plan: the plan of a data set.
        max_unreadable: int, the largest number of damaged files to leave out.

    Returns:
        The records' folder and its index.

    Raises:
        DatasetError: if the files have faults; no files are left behind then. Also if a file of the
            copy was changed after it was written.
    """
    plan.found.check(f"Data set '{plan.spec.name}'")
    folder = _build(plan, plan, max_unreadable)
    index = Index.load(folder / _INDEX_FILE)
    copies.check(folder, index.stamps)
    _of_folder(folder)  # it reads features.json, which TFDS writes after the stamps are taken
    check_unreadable(index.unreadable, max_unreadable)
    if old := copies.superseded(folder, plan.origin):
        index.messages.append(copies.message(old))
    return str(folder), index


def _of_folder(folder) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder_from_directory(folder)
    except _PARSE_ERRORS as error:
        raise copies.damaged(pathlib.Path(folder), error) from error


def _build(plan: Plan, first: Plan, max_unreadable: int) -> pathlib.Path:
    """Return the records' folder, and write it if it does not exist.

    Args:
        plan: the plan to read the files by.
        first: the plan before it was revised, which gives the folder its name.
        max_unreadable: see `prepare`.
    """
    config = PlanConfig(
        name=first.key, plan=plan, origin=first.origin, max_unreadable=max_unreadable
    )
    # Read the variable here: TFDS reads it only once, when it is imported.
    with _quiet():
        builder = plan.builder(config=config, data_dir=os.environ.get("TFDS_DATA_DIR"))
    folder = pathlib.Path(builder.data_dir)
    index_file = folder / _INDEX_FILE
    if not index_file.exists():
        try:
            with _quiet(), tempfile.TemporaryDirectory() as no_downloads:
                builder.download_and_prepare(download_dir=no_downloads)
        except DatasetError:
            if builder.revised_plan is None:
                raise
            return _build(builder.revised_plan, first, max_unreadable)
        except RuntimeError as error:
            # TFDS hides the errors of TensorFlow's files, for example of a full disk.
            if isinstance(error.__cause__, tf.errors.OpError):
                raise error.__cause__ from None
            raise
        except OSError:
            # Another process was first to rename an equal folder; TFDS removed this one.
            if not index_file.exists():
                raise
    return folder


def check_unreadable(unreadable: list[str], max_unreadable: int) -> None:
    """Raise DatasetError if more than `max_unreadable` files are damaged."""
    if len(unreadable) > max_unreadable:
        raise DatasetError(
            f"{len(unreadable)} unreadable, {max_unreadable} tolerated: "
            f"{faults.named(unreadable)}. Restore or remove these files (image and mask), or leave "
            f"them out with max_unreadable={len(unreadable)}."
        )


def unknown_split(split: str, known: tuple[str, ...], where: str) -> DatasetError:
    """Return the error for a split that does not exist."""
    there = f"there are {', '.join(known)}" if known else "there are no splits"
    return DatasetError(
        f"No split '{split}' {where}; {there}.{suggest(split, known)} "
        "Choose with the arguments train_split and eval_split."
    )


def read(
    folder: str, split: str, positions: tuple[int, ...], num_bands: int = 3
) -> tf.data.Dataset:
    """Read the examples of a split at `positions`, in the records' order.

    Args:
        folder: path of the records' folder.
        split: name of the split.
        positions: ints, the positions of the wanted images in the records.
        num_bands: number of bands of the images.

    Returns:
        Dataset of {"image": uint8 [height, width, num_bands], "label": uint8 [height, width], "id":
        text}.

    Raises:
        ValueError: if `folder` is empty.
    """
    if not folder:
        raise ValueError(
            f"Split '{split}' has no records, because pipelines.datasets.load did not make it. "
            "Read its image_files and label_files instead."
        )
    builder = _of_folder(folder)
    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    examples = builder.as_dataset(split=split, read_config=config, shuffle_files=False)
    wanted = np.zeros(builder.info.splits[split].num_examples, bool)
    wanted[list(positions)] = True
    pairs = tf.data.Dataset.zip(examples, tf.data.Dataset.from_tensor_slices(wanted))
    wanted = pairs.filter(lambda _, is_wanted: is_wanted)
    return wanted.map(lambda example, _: _example(example, num_bands))


def present(counts: np.ndarray) -> frozenset[int]:
    """Return the class ids with pixels.

    Args:
        counts: int [256], pixels of each class id and of void.
    """
    return frozenset(np.flatnonzero(counts[:VOID]).tolist())


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode uint8 [height, width] or [height, width, 3] as PNG bytes; see `planes` for bands.

    Example:
        >>> encode_png(np.zeros([2, 2], np.uint8))[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _example(example, num_bands):
    image = example["image"] if num_bands == 3 else planes.beside(example["image"], num_bands)
    return {**example, "image": image, "label": tf.squeeze(example["label"], axis=-1)}


def _write_file(file: pathlib.Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


@contextlib.contextmanager
def _quiet():
    """Silence TFDS' progress bars and notices, and restore the caller's `random` state.

    TFDS names its temporary folder with `random`. Two runs with the same seed would otherwise write
    into the same folder.
    """
    state = random.getstate()
    random.seed()
    tfds.disable_progress_bar()
    logger = logging.getLogger("absl")
    logger.addFilter(_is_error)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        random.setstate(state)
        logger.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
