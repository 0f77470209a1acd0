"""Image folders: images/[SPLIT/], masks/[SPLIT/], classes.txt; SPLIT.txt and colours.txt if wanted.

CamVid, in this layout, is a config of it.
"""

import dataclasses
import hashlib
import os
import pathlib

from pipelines import datasets
from pipelines.builders import paired, records

DatasetError = datasets.DatasetError

# The share of images for evaluation where the folder has no split of its own.
_EVAL_SHARE = 0.2
_LAYOUT = (
    "Expected: images/ or images/SPLIT/ with the images, masks/ or masks/SPLIT/ with PNG masks of "
    "the same names, and classes.txt with one class name a line."
)
# Brostow et al., "Semantic object classes in video", 2009; classes and colours as in SegNet.
_CAMVID_COLOURS = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "signsymbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
_CAMVID = datasets.DatasetSpec(
    name="camvid",
    class_names=tuple(_CAMVID_COLOURS),
    colours=tuple(_CAMVID_COLOURS.values()),
    background_label=None,
    source=(
        "CamVid (Brostow, Fauqueur, Cipolla, 2009) as prepared for SegNet (Kendall), 11 classes, "
        "CC BY-NC 4.0: personal and research use."
    ),
)


class Folder(paired.PairedBuilder, skip_registration=True):
    """A folder of images and masks."""


class Camvid(paired.PairedBuilder, skip_registration=True):
    """CamVid, laid out as a folder of images and masks."""


@dataclasses.dataclass(frozen=True)
class _Choice:
    """Pairs of the two splits by name, and how they were chosen."""

    splits: dict[str, tuple[paired.Pair, ...]]
    train: str
    eval: str
    messages: tuple[str, ...] = ()


def plan_folder(
    data_dir: str | os.PathLike | None, train_split: str | None, eval_split: str | None
) -> records.Plan:
    """Finds a user's own images and masks; see `datasets.load`."""
    root = _find_folder(paired.data_folder(data_dir, "folder", _LAYOUT))
    return _plan(Folder, _read_spec(root), root, train_split, eval_split)


def plan_camvid(
    data_dir: str | os.PathLike | None, train_split: str | None, eval_split: str | None
) -> records.Plan:
    """Finds CamVid in `data_dir` or its folder "camvid"; see `datasets.load`."""
    given = paired.data_folder(data_dir, "camvid", _LAYOUT)
    root = given / "camvid" if (given / "camvid" / "images").is_dir() else given
    if not (root / "images").is_dir():
        raise DatasetError(f"No CamVid in {given}: neither images/ nor camvid/images/. {_LAYOUT}")
    classes = root / "classes.txt"
    if classes.exists() and _read_names(classes) != _CAMVID.class_names:
        raise DatasetError(
            f"{classes} does not name CamVid's 11 classes ({', '.join(_CAMVID.class_names)}), in "
            "this order. Correct it, or use --dataset=folder for classes of your own."
        )
    return _plan(Camvid, _CAMVID, root, train_split, eval_split)


def _find_folder(given: pathlib.Path) -> pathlib.Path:
    if (given / "images").is_dir():
        return given
    inner = [path for path in sorted(given.iterdir()) if (path / "images").is_dir()]
    if len(inner) == 1:
        return inner[0]
    found = f"several folders have images/ ({', '.join(p.name for p in inner)}): name one of them"
    raise DatasetError(
        f"{given}: {found if inner else 'there is no folder images/ here'}. {_LAYOUT}"
    )


def _read_names(file: pathlib.Path) -> tuple[str, ...]:
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines)


def _read_spec(root: pathlib.Path) -> datasets.DatasetSpec:
    file = root / "classes.txt"
    if not file.exists():
        raise DatasetError(
            f"{file} is missing. Write one class name a line: the first line names the pixels of "
            "value 0 in the masks, the second those of value 1, and so on; 255 (void) gets none."
        )
    class_names = _read_names(file)
    if not class_names or "" in class_names or len(set(class_names)) < len(class_names):
        raise DatasetError(
            f"{file} needs one name a line, none empty and none twice; got {class_names}."
        )
    if len(class_names) > paired.VOID:
        raise DatasetError(
            f"{file} names {len(class_names)} classes; 8-bit masks hold at most 255."
        )
    background = [k for k, name in enumerate(class_names) if name.lower() == "background"]
    return datasets.DatasetSpec(
        name="folder",
        class_names=class_names,
        colours=_read_colours(root / "colours.txt", len(class_names), background[:1] == [0]),
        background_label=background[0] if background else None,
        source=f"images and masks of {root}",
    )


def _read_colours(file: pathlib.Path, num_classes: int, background_first: bool) -> tuple:
    """Reads lines "name red green blue"; by default VOC's colours, black only for background."""
    if not file.exists():
        return datasets.voc_colours(num_classes + 1)[0 if background_first else 1 :][:num_classes]
    rows = [line.split()[-3:] for line in _read_names(file)]
    valid = [row for row in rows if len(row) == 3 and all(_is_byte(word) for word in row)]
    if len(valid) != len(rows) or len(rows) != num_classes:
        raise DatasetError(
            f"{file} needs {num_classes} lines 'name red green blue', one a class, 0 to 255; "
            f"got {len(valid)} such lines of {len(rows)}. Correct or remove it."
        )
    return tuple(tuple(int(word) for word in row) for row in valid)


def _is_byte(word: str) -> bool:
    return word.isdecimal() and int(word) <= 255


def _plan(builder, spec, root, train_split, eval_split) -> records.Plan:
    choice = _choose(spec.name, root, train_split, eval_split)
    return records.Plan(
        spec=spec,
        builder=builder,
        splits=choice.splits,
        train_split=choice.train,
        eval_split=choice.eval,
        fingerprint=paired.fingerprint(choice.splits),
        messages=choice.messages,
    )


def _choose(name: str, root: pathlib.Path, train_split, eval_split) -> _Choice:
    """Takes the wanted splits, or divides the images where the folder has one split or none."""
    if not (root / "masks").is_dir():
        raise DatasetError(f"{root / 'masks'} is missing. {_LAYOUT}")
    wanted = (train_split or "train", eval_split or "val")
    known = _split_names(root, wanted)
    missing = [split for split in wanted if split not in known]
    if not missing:
        pairs = {split: _pairs(name, root, split) for split in dict.fromkeys(wanted)}
        return _Choice(pairs, *wanted)
    if len(known) > 1 or not set(missing) <= {"train", "val"}:
        raise records.unknown_split(missing[0], known, f"in {root}")
    return _divide(wanted, known, _pairs(name, root, known[0] if known else None))


def _split_names(root: pathlib.Path, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of folders in images/ and of lists; other text files are not lists.

    A text file is a list if it is asked for, or if its first name is that of an image.
    """
    names = {path.name for path in (root / "images").iterdir() if path.is_dir()}
    stems = {path.stem for path in (root / "images").glob("**/*") if path.is_file()}
    for file in root.glob("*.txt"):
        if file.stem not in ("classes", "colours"):
            listed = paired.read_list(file)
            if file.stem in wanted or (listed and listed[0] in stems):
                names.add(file.stem)
    return tuple(sorted(name for name in names if not name.startswith(".")))


def _pairs(name: str, root: pathlib.Path, split: str | None) -> tuple[paired.Pair, ...]:
    """Returns the pairs of a split, or with None those of a folder without splits."""
    faults = paired.Faults()
    found = []
    for kind, endings in (("images", paired.IMAGE_ENDINGS), ("masks", paired.MASK_ENDINGS)):
        folder = root / kind
        if split is not None and (root / "images" / split).is_dir():
            folder = folder / split
        if not folder.is_dir():
            raise DatasetError(f"{folder} is missing. {_LAYOUT}")
        found.append(paired.files_by_stem(folder, endings, faults))
    list_file = root / f"{split}.txt"
    if split is not None and list_file.exists():
        pairs = paired.pair_listed(paired.read_list(list_file), *found, faults)
    else:
        pairs = paired.pair_all(*found, faults)
    faults.check(f"Data set '{name}', {f'split {split!r}' if split else 'images'} of {root}")
    if not pairs:
        where = list_file if list_file.exists() else root / "images" / (split or "")
        raise DatasetError(f"No images: {where} names or holds none. {_LAYOUT}")
    return pairs


def _divide(wanted, known, pairs) -> _Choice:
    """Gives a fifth of the images, chosen by a hash of their names, to evaluation.

    The hash is SHA-256, so that the same names are divided alike everywhere and at any time.
    """
    if len(pairs) < 2:
        raise DatasetError(
            f"There is one image only ({pairs[0].image}): one to train on and one to measure on "
            "are needed."
        )
    num_eval = max(1, round(_EVAL_SHARE * len(pairs)))
    by_hash = sorted(pairs, key=lambda pair: hashlib.sha256(pair.id.encode()).digest())
    chosen = {pair.id for pair in by_hash[:num_eval]}
    train = tuple(pair for pair in pairs if pair.id not in chosen)
    evaluation = tuple(pair for pair in pairs if pair.id in chosen)
    given = f"only one split, '{known[0]}'" if known else "no splits"
    message = (
        f"The folder has {given}: its {len(pairs)} images were divided by a hash of their names "
        f"into {len(train)} for training and {len(evaluation)} for evaluation."
    )
    return _Choice({wanted[0]: train, wanted[1]: evaluation}, *wanted, (message,))
