"""The TFDS builder behind every data set: records, index masks, an index file, and their cache.

A builder yields `Sample`s in order. The bytes of each image and a grey PNG of its class ids go into
the TFDS records; the PNG also stands beside them as a file, so that any image can be read by its
number. All is generated in a temporary folder that is renamed at the end: never half-written.
"""

import abc
import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import os
import pathlib
import random
import re
import tempfile
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from pipelines import datasets

# Part of each cache key: raise it when the records or the checks change.
CODE_VERSION = 1
_INDEX_FILE = "index.json"


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image on its way into the records.

    Attributes:
        id: the image's name, unique in its split.
        image: path of a JPEG or PNG file, or the bytes of a PNG that the builder is to write.
        label: uint8 [height, width], class ids, 255 = void.
    """

    id: str
    image: pathlib.Path | bytes
    label: np.ndarray


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image in the index; paths are relative to the records' folder unless absolute."""

    id: str
    image: str
    label: str
    has_labels: bool
    height: int
    width: int


@dataclasses.dataclass
class Index:
    """What a prepared folder holds: entries by split, in order, and names of what was left out."""

    splits: dict[str, list[Entry]] = dataclasses.field(default_factory=dict)
    unreadable: list[str] = dataclasses.field(default_factory=list)

    def save(self, file: pathlib.Path) -> None:
        """Writes the index as JSON."""
        file.write_text(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def load(cls, file: pathlib.Path) -> "Index":
        """Reads what `save` wrote."""
        raw = json.loads(file.read_text())
        splits = {name: [Entry(**entry) for entry in part] for name, part in raw["splits"].items()}
        return cls(splits, raw["unreadable"])


@dataclasses.dataclass(frozen=True)
class Plan:
    """A data set that was found, but not read yet.

    Attributes:
        spec: its facts.
        builder: the class that reads it.
        splits: by split name, what the builder's `samples` takes.
        train_split: name of the split to train on.
        eval_split: name of the split to measure on.
        fingerprint: text that changes whenever the records must be written anew.
        messages: plain sentences for the log.
    """

    spec: datasets.DatasetSpec
    builder: type["RecordsBuilder"]
    splits: dict
    train_split: str
    eval_split: str
    fingerprint: str
    messages: tuple[str, ...] = ()

    def __post_init__(self):
        for split in self.splits:
            if not re.fullmatch(r"\w+", split, re.ASCII) or split == "all":
                raise datasets.DatasetError(
                    f"A split cannot be called '{split}': letters, digits and _ are possible, and "
                    "'all' is taken by TFDS. Rename its folders or list."
                )

    @property
    def key(self) -> str:
        """Name of the cache folder: a hash of all that the records depend on."""
        facts = (self.fingerprint, self.spec.class_names, list(self.splits), CODE_VERSION)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


@dataclasses.dataclass(eq=False, kw_only=True)
class PlanConfig(tfds.core.BuilderConfig):
    """A TFDS config that carries the plan to the builder."""

    plan: Plan = dataclasses.field(repr=False)
    max_unreadable: int = 0


class RecordsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes samples as {"image", "label", "id"} records, in order, with the index beside them."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS 4.9 looks for checksums of downloads beside the builder's code, by importlib_resources,
    # which it does not install. Nothing is downloaded here.
    code_path = None

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.index = Index()

    @abc.abstractmethod
    def samples(self, split: str) -> Iterator[Sample]:
        """Yields the samples of a split; may note damaged files in `self.index.unreadable`."""

    def check(self) -> None:
        """Called when all samples were yielded; raises DatasetError if they cannot be used."""

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
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
        for number, sample in enumerate(self.samples(split)):
            entry = self._write(split, sample)
            entries.append(entry)
            image, label = self.data_path / entry.image, self.data_path / entry.label
            yield number, {"image": image, "label": label, "id": sample.id}
        # TFDS generates the splits in turn, so at the end of the last one all files were seen.
        if len(self.index.splits) == len(self.builder_config.plan.splits):
            self.check()
            self.index.save(pathlib.Path(self.data_path) / _INDEX_FILE)

    def _write(self, split: str, sample: Sample) -> Entry:
        folder = pathlib.Path(self.data_path)  # the temporary one, while TFDS generates
        image, label = str(sample.image), f"labels/{split}/{sample.id}.png"
        if isinstance(sample.image, bytes):
            image = f"images/{split}/{sample.id}.png"
            _write_file(folder / image, sample.image)
        _write_file(folder / label, encode_png(sample.label))
        has_labels = bool((sample.label != datasets.VOID).any())
        return Entry(sample.id, image, label, has_labels, *sample.label.shape)


def prepare(plan: Plan, max_unreadable: int) -> tuple[str, Index]:
    """Writes the records of a plan unless they are there; safe to call from several processes.

    Returns:
        The records' folder and its index.

    Raises:
        DatasetError: if the files are at fault; nothing is left behind then.
    """
    config = PlanConfig(name=plan.key, plan=plan, max_unreadable=max_unreadable)
    # Read here because TFDS reads the variable once only, when it is imported.
    with _quiet():
        builder = plan.builder(config=config, data_dir=os.environ.get("TFDS_DATA_DIR"))
    folder = pathlib.Path(builder.data_dir)
    index_file = folder / _INDEX_FILE
    if not index_file.exists():
        try:
            with _quiet(), tempfile.TemporaryDirectory() as no_downloads:
                builder.download_and_prepare(download_dir=no_downloads)
        except OSError:
            # Another process renamed its equal folder into place first; ours is gone again.
            if not index_file.exists():
                raise
    index = Index.load(index_file)
    check_unreadable(index.unreadable, max_unreadable)
    return str(folder), index


def check_unreadable(unreadable: list[str], max_unreadable: int) -> None:
    """Raises DatasetError if more files are damaged than may be left out."""
    if len(unreadable) > max_unreadable:
        raise datasets.DatasetError(
            f"{len(unreadable)} unreadable, {max_unreadable} tolerated: {named(unreadable)}. "
            "Restore or remove these files (image and mask), or raise max_unreadable to leave them "
            "out."
        )


def unknown_split(split: str, known: tuple[str, ...], where: str) -> datasets.DatasetError:
    """Returns the error for a split that is not there."""
    there = f"there are {', '.join(known)}" if known else "there are no splits"
    return datasets.DatasetError(
        f"No split '{split}' {where}; {there}.{datasets.suggest(split, known)} "
        "Choose with --train_split and --eval_split."
    )


def named(items: list[str], limit: int = 10) -> str:
    """Returns up to `limit` items as text, and how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return "; ".join(items[:limit]) + more


def read(folder: str, split: str, positions: tuple[int, ...]) -> tf.data.Dataset:
    """Reads the examples of a split that stand at `positions`, in the records' order.

    Returns:
        Dataset of {"image": uint8 [height, width, 3], "label": uint8 [height, width], "id": text}.

    Raises:
        ValueError: if there is no folder of records.
    """
    if not folder:
        raise ValueError(
            f"Split '{split}' has no records: it was not made by pipelines.datasets.load. "
            "Read its image_files and label_files instead."
        )
    builder = tfds.builder_from_directory(folder)
    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    examples = builder.as_dataset(split=split, read_config=config, shuffle_files=False)
    wanted = np.zeros(builder.info.splits[split].num_examples, bool)
    wanted[list(positions)] = True
    pairs = tf.data.Dataset.zip(examples, tf.data.Dataset.from_tensor_slices(wanted))
    return pairs.filter(lambda _, is_wanted: is_wanted).map(_squeeze_label)


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes uint8 [height, width] or [height, width, 3] as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _squeeze_label(example, _):
    return {**example, "label": tf.squeeze(example["label"], axis=-1)}


def _write_file(file: pathlib.Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


@contextlib.contextmanager
def _quiet():
    """Keeps TFDS' bars and notices away, and the caller's `random` state as it was.

    TFDS names its temporary folder with `random`: two runs of one seed would write into one folder.
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
