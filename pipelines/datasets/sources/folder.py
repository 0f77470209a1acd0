"""Image folders: images/[SPLIT/], masks/[SPLIT/], classes.txt, and optional lists and colors.txt.

Lists are in SPLIT.txt or, as in VOC's development kit, in ImageSets/Segmentation/SPLIT.txt. A line
is a name, or the paths of an image and its mask.
"""

import dataclasses
import hashlib
import pathlib

from pipelines.datasets import faults, image_mask_pairs, masks, records
from pipelines.datasets.spec import VOID, DatasetError, DatasetSpec, Request, voc_colors

# The share of images for evaluation if the folder has no splits.
_EVAL_SHARE = 0.2
# Names of the folders: our names and the names in VOC's development kit.
_IMAGE_FOLDERS = ("images", "JPEGImages")
_MASK_FOLDERS = ("masks", "SegmentationClass")
_LIST_FOLDERS = ("", "ImageSets/Segmentation", "ImageSets")
_COLOR_TABLES = ("colors.txt", "colours.txt")  # either spelling
_NOT_LISTS = ("classes", "colors", "colours")
LAYOUT = (
    "Expected: images/ or images/SPLIT/ with the images, masks/ or masks/SPLIT/ with PNG masks of "
    "the same names, and classes.txt with one class name per line; or SPLIT.txt with lines "
    "'image mask'."
)


class Folder(records.RecordsBuilder, skip_registration=True):
    """A folder of images and masks."""


@dataclasses.dataclass(frozen=True)
class _Files:
    """Locations of a data set's files; folders may be None if lists name images and masks."""

    root: pathlib.Path
    images: pathlib.Path | None
    masks: pathlib.Path | None
    lists: dict[str, pathlib.Path]


@dataclasses.dataclass(frozen=True)
class _Choice:
    """Pairs of the two splits by name, and messages about the choice."""

    splits: dict[str, tuple[image_mask_pairs.Pair, ...]]
    train: str
    eval: str
    messages: tuple[str, ...] = ()


def plan(request: Request) -> records.Plan:
    """Find the images and masks of a user's folder; see `datasets.load`."""
    root, void_value = _find_folder(request), request.void_value
    class_names = _read_class_names(root / "classes.txt")
    _check_void_name(root / "classes.txt", class_names, void_value)
    table = _read_color_table(_color_table(root), class_names)
    spec = _spec(root, class_names, table)
    rule = masks.consecutive(class_names, void_value, table, takes_void_value=True)
    return plan_layout(Folder, spec, rule, root, request)


def _find_folder(request: Request) -> pathlib.Path:
    given = image_mask_pairs.data_folder(request.data_dir, "folder", LAYOUT)

    def holds_data(folder):
        return (folder / "classes.txt").exists() or _first_folder(folder, _IMAGE_FOLDERS)

    if holds_data(given):
        return given
    inner = [path for path in sorted(given.iterdir()) if path.is_dir() and holds_data(path)]
    if len(inner) == 1:
        return inner[0]
    found = f"several folders have images ({', '.join(p.name for p in inner)}): name one of them"
    raise DatasetError(
        f"{given}: {found if inner else 'there is no folder images/ here'}. {LAYOUT}"
    )


def _first_folder(root: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def read_lines(file: pathlib.Path) -> tuple[str, ...]:
    """Return the lines of a text file, without white space around them and at the end."""
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines)


def _read_class_names(file: pathlib.Path) -> tuple[str, ...]:
    if not file.exists():
        raise DatasetError(
            f"{file} is missing. Write one class name per line: line 1 names the pixels of value 0 "
            "in the masks, line 2 the pixels of value 1, and so on; 255 (void) gets no line."
        )
    class_names = read_lines(file)
    if not class_names or "" in class_names or len(set(class_names)) < len(class_names):
        raise DatasetError(
            f"{file} needs one name per line, none empty and none twice; got {class_names}."
        )
    return class_names


def _check_void_name(file: pathlib.Path, class_names: tuple[str, ...], void_value: int) -> None:
    """Refuse a class called void if void_value is set: all ids after it would change."""
    called_void = [name for name in class_names if name.lower() in masks.VOID_NAMES]
    if called_void and void_value != VOID:
        raise DatasetError(
            f"{file} names '{called_void[0]}', but void_value={void_value} already defines void: "
            "remove the line. The other lines name the remaining values, in order."
        )


def _spec(root: pathlib.Path, class_names: tuple[str, ...], table) -> DatasetSpec:
    """Return the facts; without a color table use VOC's colors, black only for background."""
    background = [k for k, name in enumerate(class_names) if name.lower() == "background"]
    first = 0 if background[:1] == [0] else 1
    colors = voc_colors(256)[first : first + len(class_names)]
    if table:
        by_label = {label: color for color, label in table}
        colors = tuple(by_label[label] for label in range(len(class_names)))
    return DatasetSpec(
        name="folder",
        class_names=class_names,
        colors=colors,
        background_label=background[0] if background else None,
        source=f"images and masks of {root}",
    )


def _color_table(root: pathlib.Path) -> pathlib.Path:
    """Return the file of the color table, or its usual name if it does not exist."""
    present = [root / name for name in _COLOR_TABLES if (root / name).exists()]
    if len(present) > 1:
        raise DatasetError(f"{root} holds {' and '.join(_COLOR_TABLES)}: remove one of them.")
    return (present or [root / _COLOR_TABLES[0]])[0]


def _read_color_table(file: pathlib.Path, class_names: tuple[str, ...]) -> tuple:
    """Read lines "name red green blue", one per class, and optional "void red green blue".

    Returns:
        ((red, green, blue), class id or 255) of each line; empty if the file does not exist.
    """
    if not file.exists():
        return ()
    rows = [line.rsplit(maxsplit=3) for line in read_lines(file)]
    valid = [row for row in rows if len(row) == 4 and all(_is_byte(word) for word in row[1:])]
    labels = {name.lower(): k for k, name in enumerate(class_names)}
    labels = dict.fromkeys(masks.VOID_NAMES, VOID) | labels
    entries = [
        (tuple(map(int, color)), labels[name.lower()])
        for name, *color in valid
        if name.lower() in labels
    ]
    classes = [label for _, label in entries if label != VOID]
    if len(entries) != len(rows) or sorted(classes) != [*range(len(class_names))]:
        raise DatasetError(
            f"{file} needs {len(class_names)} lines 'name red green blue', one for each name in "
            "classes.txt, 0 to 255, and optionally 'void red green blue'; got "
            f"{len(set(classes))} such lines of {len(rows)}. Correct or remove it."
        )
    colors = [color for color, _ in entries]
    twice = sorted({color for color in colors if colors.count(color) > 1})
    if twice:
        raise DatasetError(f"{file} gives the color {twice[0]} twice: each class needs its own.")
    return tuple(entries)


def _is_byte(word: str) -> bool:
    return word.isdecimal() and int(word) <= 255


def plan_layout(
    builder: type[records.RecordsBuilder],
    spec: DatasetSpec,
    rule: masks.MaskRule,
    root: pathlib.Path,
    request: Request,
) -> records.Plan:
    """Find the splits of a data set in this layout and pair their images and masks."""
    wanted = request.splits("train", "val")
    found = faults.Faults()
    choice = _choose(_find_files(root, wanted), wanted, found)
    return image_mask_pairs.plan(
        spec, builder, rule, choice.splits, choice.train, choice.eval, found, choice.messages
    )


def _find_files(root: pathlib.Path, wanted: tuple[str, ...]) -> _Files:
    """Find folders and lists; other text files are not lists.

    A text file of the root is a list if its split is requested, or if its first word is an image.
    """
    images = _first_folder(root, _IMAGE_FOLDERS)
    stems = {path.stem for path in images.glob("**/*") if path.is_file()} if images else set()
    lists = {}
    for folder in _LIST_FOLDERS:
        for file in sorted((root / folder).glob("*.txt")):
            if folder == "" and (file.stem in _NOT_LISTS or file.name.startswith(".")):
                continue
            listed = image_mask_pairs.read_list(file)
            starts_with_image = bool(listed) and pathlib.PurePath(listed[0]).name in stems
            if folder or file.stem in wanted or starts_with_image:
                lists.setdefault(file.stem, file)
    return _Files(root, images, _first_folder(root, _MASK_FOLDERS), lists)


def _choose(files: _Files, wanted: tuple[str, str], found: faults.Faults) -> _Choice:
    """Take the wanted splits, or divide the images if the folder has one split or none."""
    known = _split_names(files)
    labelled = tuple(split for split in known if not _is_unlabelled_test(files, split))
    if labelled != known and labelled in ((), ("train",)) and wanted[0] == "train":
        return _choose_beside_test(files, labelled, wanted, found)
    missing = [split for split in wanted if split not in known]
    if not missing:
        pairs = {split: _pairs(files, split, found) for split in dict.fromkeys(wanted)}
        return _Choice(pairs, *wanted)
    if len(known) > 1 or not set(missing) <= {"train", "val"}:
        raise records.unknown_split(missing[0], known, f"in {files.root}")
    return _divide(wanted, known, _pairs(files, known[0] if known else None, found))


def _choose_beside_test(
    files: _Files, labelled: tuple[str, ...], wanted: tuple[str, str], found: faults.Faults
) -> _Choice:
    """Divide the images that have masks; images of the test split can be predicted.

    The training images are the same with and without a request for the test split.
    """
    pairs = _pairs(files, labelled[0] if labelled else None, found)
    choice = _divide(("train", "val"), labelled, pairs)
    if wanted[1] == "val":
        return choice
    if wanted[1] != image_mask_pairs.UNLABELLED_SPLIT:
        known = (image_mask_pairs.UNLABELLED_SPLIT, "train", "val")
        raise records.unknown_split(wanted[1], known, f"in {files.root}")
    splits = {"train": choice.splits["train"], wanted[1]: _pairs(files, wanted[1], found)}
    return _Choice(splits, *wanted, choice.messages)


def _is_unlabelled_test(files: _Files, split: str) -> bool:
    """Return whether a split is a folder of images without masks; only test may be one."""
    is_test = (
        split == image_mask_pairs.UNLABELLED_SPLIT and split not in files.lists and files.images
    )
    return bool(is_test) and _folders(files, split)[1] is None


def _split_names(files: _Files) -> tuple[str, ...]:
    """Return the names of lists and of folders in images/."""
    names = set(files.lists)
    if files.images:
        names |= {path.name for path in files.images.iterdir() if path.is_dir()}
    return tuple(sorted(name for name in names if not name.startswith(".")))


def _pairs(
    files: _Files, split: str | None, found: faults.Faults
) -> tuple[image_mask_pairs.Pair, ...]:
    """Return the pairs of a split; None means a folder without splits."""
    list_file = files.lists.get(split)
    if list_file and (lines := _read_pair_lines(list_file)):
        return _pairs_of_lines(files.root, lines, found)
    images, masks_folder = _folders(files, split)
    image_files = image_mask_pairs.files_by_stem(images, image_mask_pairs.IMAGE_ENDINGS, found)
    mask_files = (
        image_mask_pairs.files_by_stem(masks_folder, masks.ENDINGS, found) if masks_folder else {}
    )
    if list_file:
        return image_mask_pairs.pair_listed(
            image_mask_pairs.read_list(list_file), image_files, mask_files, found, split
        )
    return image_mask_pairs.pair_all(image_files, mask_files, found, split)


def _folders(files: _Files, split: str | None) -> tuple[pathlib.Path, pathlib.Path | None]:
    """Return the folders of a split's images and masks; the latter is None for a test split."""
    images, masks_folder = files.images, files.masks
    if images is None:
        raise DatasetError(f"{files.root / _IMAGE_FOLDERS[0]} is missing. {LAYOUT}")
    if split is not None and (images / split).is_dir():
        images = images / split
        masks_folder = masks_folder and masks_folder / split
    if masks_folder is None or not masks_folder.is_dir():
        if split == image_mask_pairs.UNLABELLED_SPLIT:
            return images, None
        raise DatasetError(f"{masks_folder or files.root / _MASK_FOLDERS[0]} is missing. {LAYOUT}")
    return images, masks_folder


def _read_pair_lines(file: pathlib.Path) -> list[tuple[str, str]]:
    """Return the lines "image mask" of a list, each once; empty if its lines are names.

    The lists of VOC's other tasks also have two words per line. Only two files make a pair.
    """
    lines = [line.split() for line in read_lines(file) if line]
    pairs = [tuple(words) for words in lines if _is_pair(words)]
    if pairs and len(pairs) < len(lines):
        others = [" ".join(words) for words in lines if not _is_pair(words)]
        raise DatasetError(
            f"{file} has {len(pairs)} lines 'image mask' and others: {faults.named(others)}. "
            "Write all lines in the same form: two paths without blanks, or one name."
        )
    return list(dict.fromkeys(pairs))


def _is_pair(words: list[str]) -> bool:
    endings = [pathlib.PurePath(word).suffix.lower() for word in words]
    return (
        len(words) == 2
        and endings[0] in image_mask_pairs.IMAGE_ENDINGS
        and endings[1] in masks.ENDINGS
    )


def _pairs_of_lines(
    root: pathlib.Path, lines: list[tuple[str, str]], found: faults.Faults
) -> tuple[image_mask_pairs.Pair, ...]:
    """Return the pairs; paths are relative to the root, with or without a leading slash."""
    pairs = {}
    for name, line in zip(_ids([image for image, _ in lines]), lines, strict=True):
        image, mask = (root / path.lstrip("/") for path in line)
        missing = [file for file in (image, mask) if not file.is_file()]
        for file in missing:
            found.add(image_mask_pairs.LISTED_PAIR, file)
        if name in pairs:
            found.add(image_mask_pairs.TWICE, image)
        elif not missing:
            pairs[name] = image_mask_pairs.Pair(name, image, mask)
    return tuple(pairs.values())


def _ids(images: list[str]) -> list[str]:
    """Return the images' names without ending, or their paths if two names are equal."""
    paths = [pathlib.PurePosixPath(image.lstrip("/")) for image in images]
    names = [path.stem for path in paths]
    if len(set(names)) == len(names):
        return names
    return ["_".join(path.with_suffix("").parts) for path in paths]


def _divide(wanted, known, pairs) -> _Choice:
    """Use a fifth of the images for evaluation, chosen by a hash of their names.

    The hash is SHA-256, so the same names are always divided in the same way.
    """
    if len(pairs) == 1:
        raise DatasetError(
            f"There is one image only ({pairs[0].image}): add at least one, because training and "
            "evaluation need one image each."
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
