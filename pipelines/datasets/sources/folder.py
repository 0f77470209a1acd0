"""Image folders: images/[SPLIT/], masks/[SPLIT/], classes.txt, and optional lists and colors.txt.

Lists are in SPLIT.txt or, as in VOC's development kit, in ImageSets/Segmentation/SPLIT.txt. A line
is a name, or the paths of an image and its mask.
"""

import dataclasses
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator

from pipelines.datasets import division, faults, files, image_mask_pairs, masks, records, windows
from pipelines.datasets.sources import exports
from pipelines.datasets.spec import (
    VOID,
    DatasetError,
    DatasetSpec,
    Request,
    printable,
    voc_colors,
)

# Names of the folders: our names and the names in VOC's development kit.
_IMAGE_FOLDERS = ("images", "JPEGImages")
_MASK_FOLDERS = ("masks", "SegmentationClass")
_LIST_FOLDERS = ("", "ImageSets/Segmentation", "ImageSets")
_COLOR_TABLES = ("colors.txt", "colours.txt")  # either spelling
_NOT_LISTS = ("classes", "colors", "colours")
# Usual names of splits, to recognize the layout train/images/ and to name it.
_USUAL_SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
# The first line of labelme's lists of classes; its masks hold 255 for it.
_LABELME_VOID = "__ignore__"
NESTED = faults.Kind(
    "folder of images below the folder of a split, which is not searched",
    "Move its images and masks up into images/SPLIT/ and masks/SPLIT/, each with a name of its "
    "own; or write SPLIT.txt with lines 'image mask', with paths from the data set's folder.",
)
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
    messages: list[str]


@dataclasses.dataclass(frozen=True)
class _Choice:
    """Pairs of the splits by name, messages about the choice, and the splits that were divided."""

    splits: dict[str, tuple[image_mask_pairs.Pair, ...]]
    train: str
    eval: str
    messages: tuple[str, ...] = ()
    divided: tuple[str, str] | None = None


def plan(request: Request) -> records.Plan:
    """Find the images and labels of a user's folder, file or ZIP; see `datasets.load`."""
    if request.data_dir is None:
        raise image_mask_pairs.no_data_dir("folder", LAYOUT)
    tree = exports.open_tree(request.data_dir)
    export = None if _is_own_layout(tree) else exports.read(tree, request)
    if export is None:
        found = _plan_of_layout(request, tree.given)
    else:
        found = exports.plan(export, request, Folder)
    return windows.with_window(found, request.reading)


def _is_own_layout(tree: exports.Tree) -> bool:
    """Return whether the folder has classes.txt, and its images and masks have equal names.

    A list of image and mask paths counts as well. Other exports may also have a file classes.txt.
    Several inner folders with classes.txt are several data sets, of which the user must name one.
    """
    if tree.only is not None:
        return False
    if not (tree.root / "classes.txt").exists():
        inner = [folder for folder in files.folders(tree.root) if (folder / "classes.txt").exists()]
        return len(inner) > 1
    images, mask_folder = (_first_folder(tree.root, n) for n in (_IMAGE_FOLDERS, _MASK_FOLDERS))
    if images is None or mask_folder is None:
        if exports.recognized(tree) or _hint_at_splits(tree.root):
            return False
        exports.lookalikes.check(tree)  # a better reason than the missing folder
        return True
    stems = [
        {files.normal(path.stem) for path in folder.glob("**/*") if path.is_file()}
        for folder in (images, mask_folder)
    ]
    return bool(stems[0] & stems[1]) or not (stems[0] and stems[1])


def _plan_of_layout(request: Request, root: pathlib.Path) -> records.Plan:
    """Find the images and masks of a folder in our own layout, whose rules are strict."""
    root = _find_folder(dataclasses.replace(request, data_dir=root))
    _check_images(root, request.reading.images)
    void_value = request.void_value
    messages: list[str] = []
    class_names = _read_class_names(root / "classes.txt", messages)
    _check_void_name(root / "classes.txt", class_names, void_value)
    table = _read_color_table(_color_table(root), class_names)
    spec = _spec(root, class_names, table)
    rule = masks.consecutive(class_names, void_value, table, takes_void_value=True)
    return plan_layout(Folder, spec, rule, root, request, messages)


def _check_images(root, images):
    if images is not None:
        raise DatasetError(
            f"images={printable(str(images))} names the pictures of an export without any, and "
            f"{root} has images and masks of its own. Leave images out."
        )


def _find_folder(request: Request) -> pathlib.Path:
    given = image_mask_pairs.data_folder(request.data_dir, "folder", LAYOUT)

    def holds_data(folder):
        return (folder / "classes.txt").exists() or _first_folder(folder, _IMAGE_FOLDERS)

    if holds_data(given):
        return given
    inner = [path for path in files.folders(given) if holds_data(path)]
    if len(inner) == 1:
        return inner[0]
    names = ", ".join(path.name for path in inner)
    if hint := _hint_at_splits(given):
        found = hint
    elif inner:
        found = f"several folders have images ({names}): name one of them."
    else:
        found = "there is no folder images/ here."
    raise DatasetError(f"{given}: {found} {LAYOUT}")


def _hint_at_splits(root: pathlib.Path) -> str:
    """Return a sentence if the folder holds train/images/ instead of images/train/, or ""."""
    outer = [path.name for path in files.folders(root) if _first_folder(path, _IMAGE_FOLDERS)]
    splits = [name for name in outer if name.lower() in _USUAL_SPLITS]
    if not splits:
        return ""
    return (
        f"the folders {', '.join(splits)} look like splits, but splits must be the inner folders: "
        f"move {splits[0]}/images to images/{splits[0]}, {splits[0]}/masks to masks/{splits[0]}, "
        "and so on."
    )


def _first_folder(root: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _read_class_names(file: pathlib.Path, messages: list[str]) -> tuple[str, ...]:
    if not file.exists() and not file.is_symlink():
        raise DatasetError(
            f"{file} is missing. Write one class name per line: line 1 names the pixels of value 0 "
            "in the masks, line 2 the pixels of value 1, and so on; 255 (void) gets no line."
        )
    class_names = files.read_lines(file, messages)
    if _LABELME_VOID in class_names[1:]:
        raise DatasetError(
            f"{file} names '{_LABELME_VOID}' in another line than the first. In labelme's lists it "
            f"is the first line and means void ({VOID}): move it there, or remove it."
        )
    if class_names[:1] == (_LABELME_VOID,):
        class_names = class_names[1:]
        messages.append(
            f"'{_LABELME_VOID}' in {file} means void ({VOID}), as in labelme: class 0 is the next "
            "line."
        )
    if not class_names or "" in class_names or len(set(class_names)) < len(class_names):
        raise DatasetError(
            f"{file} needs one name per line, none empty and none twice; got {class_names}."
        )
    odd = [name for name in class_names if printable(name) != name]
    if odd:
        raise DatasetError(f"{file} has a name with control characters: '{odd[0]}'. Correct it.")
    if len(class_names) == 1:
        raise DatasetError(
            f"{file} holds one class, '{class_names[0]}': training needs two. Write 'background' "
            f"as line 1 and '{class_names[0]}' as line 2. Masks of 0 and 1, or of 0 and {VOID}, "
            "are then read as they are."
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
    # labelme writes _background_, and other programs write __background__.
    names = [name.strip("_").lower() for name in class_names]
    background = [k for k, name in enumerate(names) if name == "background"]
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
    tables = [root / name for name in _COLOR_TABLES]
    present = [file for file in tables if file.exists() or file.is_symlink()]
    if len(present) > 1:
        raise DatasetError(f"{root} holds {' and '.join(_COLOR_TABLES)}: remove one of them.")
    return (present or [root / _COLOR_TABLES[0]])[0]


def _read_color_table(file: pathlib.Path, class_names: tuple[str, ...]) -> tuple:
    """Read lines "name red green blue", one per class, and optional "void red green blue".

    Returns:
        ((red, green, blue), class id or 255) of each line; empty if the file does not exist.
    """
    if not file.exists() and not file.is_symlink():
        return ()
    rows = [line.rsplit(maxsplit=3) for line in files.read_lines(file)]
    valid = [row for row in rows if len(row) == 4 and all(_is_byte(word) for word in row[1:])]
    labels = {files.normal(name.lower()): k for k, name in enumerate(class_names)}
    labels = dict.fromkeys((*masks.VOID_NAMES, _LABELME_VOID), VOID) | labels
    entries = [
        (tuple(map(int, color)), labels[files.normal(name.lower())])
        for name, *color in valid
        if files.normal(name.lower()) in labels
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
    messages: Iterable[str] = (),
) -> records.Plan:
    """Find the splits of a data set in this layout and pair their images and masks."""
    wanted = request.splits("train", "val")
    found = faults.Faults()
    layout = _find_files(root, wanted)
    choice = _choose(layout, wanted, found)
    _report_nested(layout, choice, found)
    messages = (*messages, *choice.messages, *dict.fromkeys(layout.messages))
    result = image_mask_pairs.plan(
        spec, builder, rule, choice.splits, choice.train, choice.eval, found, messages
    )
    return dataclasses.replace(result, divided=choice.divided)


def _report_nested(layout: _Files, choice: _Choice, found: faults.Faults) -> None:
    """Report images in deeper folders: a fault if the split has no other, else a message."""
    for split in choice.splits:
        folder = layout.images / split if layout.images else None
        if folder is None or split in layout.lists or not folder.is_dir():
            continue
        nested = [path for path in files.folders(folder) if any(_images_below(path))]
        if nested and not choice.splits[split]:
            for path in nested:
                found.add(NESTED, path)
        elif nested:
            layout.messages.append(
                f"{sum(len([*_images_below(path)]) for path in nested)} images in folders below "
                f"{folder} are not used: {faults.named([path.name for path in nested])}."
            )


def _images_below(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield the image files in a folder and below it, without system files and folders."""
    for path in folder.glob("**/*"):
        is_image = path.suffix.lower() in image_mask_pairs.IMAGE_ENDINGS
        if is_image and not any(map(files.is_system, path.relative_to(folder).parts)):
            yield path


def _find_files(root: pathlib.Path, wanted: tuple[str, ...]) -> _Files:
    """Find folders and lists; other text files are not lists.

    A text file of the root is a list if its split is requested, or if its first line names an
    image. Folders, broken links and unreadable files are no lists, unless they are requested.
    """
    images = _first_folder(root, _IMAGE_FOLDERS)
    paths = images.glob("**/*") if images else ()
    stems = {files.normal(path.stem) for path in paths if path.is_file()}
    lists = {}
    for folder in _LIST_FOLDERS:
        for file in sorted((root / folder).glob("*.txt")):
            if files.is_system(file.name) or (folder == "" and file.stem in _NOT_LISTS):
                continue
            is_list = file.stem in wanted or (folder and file.is_file())
            if is_list or _starts_with_image(files.first_line(file), stems):
                lists.setdefault(file.stem, file)
    return _Files(root, images, _first_folder(root, _MASK_FOLDERS), lists, [])


def _starts_with_image(line: str, stems: set[str]) -> bool:
    name = image_mask_pairs.listed_name(line, stems)
    return files.normal(pathlib.PurePath(name).name) in stems


def _choose(layout: _Files, wanted: tuple[str, str], found: faults.Faults) -> _Choice:
    """Take the wanted splits, or divide the images if the folder has one split or none."""
    known = _split_names(layout, wanted)
    labelled = tuple(split for split in known if not _is_unlabelled_test(layout, split))
    if labelled:
        labelled = _with_files_beside(layout, labelled)
        known = tuple(sorted({*known, *labelled}))
    if labelled != known and labelled in ((), ("train",)) and wanted[0] == "train":
        return _choose_beside_test(layout, labelled, wanted, found)
    missing = [split for split in wanted if split not in known]
    if not missing:
        pairs = {split: _pairs(layout, split, found) for split in dict.fromkeys(wanted)}
        return _Choice(pairs, *wanted)
    if len(known) > 1 or not set(missing) <= {"train", "val"}:
        raise records.unknown_split(missing[0], known, f"in {layout.root}")
    return _divide(wanted, known, _pairs(layout, known[0] if known else None, found))


def _choose_beside_test(
    layout: _Files, labelled: tuple[str, ...], wanted: tuple[str, str], found: faults.Faults
) -> _Choice:
    """Divide the images that have masks; images of the test split can be predicted.

    The training images are the same with and without a request for the test split.
    """
    pairs = _pairs(layout, labelled[0] if labelled else None, found)
    choice = _divide(("train", "val"), labelled, pairs)
    if wanted[1] == "val":
        return choice
    if wanted[1] != image_mask_pairs.UNLABELLED_SPLIT:
        known = (image_mask_pairs.UNLABELLED_SPLIT, "train", "val")
        raise records.unknown_split(wanted[1], known, f"in {layout.root}")
    splits = {**choice.splits, wanted[1]: _pairs(layout, wanted[1], found)}
    return _Choice(splits, *wanted, choice.messages, choice.divided)


def _is_unlabelled_test(layout: _Files, split: str) -> bool:
    """Return whether a split is a folder of images without masks; only test may be one."""
    is_test = (
        split == image_mask_pairs.UNLABELLED_SPLIT and split not in layout.lists and layout.images
    )
    return bool(is_test) and _folders(layout, split)[1] is None


def _split_names(layout: _Files, wanted: tuple[str, str]) -> tuple[str, ...]:
    """Return the names of lists and of folders in images/ that hold images or are requested."""
    names = set(layout.lists)
    for folder in files.folders(layout.images) if layout.images else ():
        if folder.name in wanted or any(_images_below(folder)):
            names.add(folder.name)
    return tuple(sorted(names))


def _with_files_beside(layout: _Files, known: tuple[str, ...]) -> tuple[str, ...]:
    """Take image files beside the split folders as split train, or report that they are not used.

    Lists select among these files, so nothing is done if there are lists.
    """
    if layout.lists or layout.images is None:
        return known
    beside = [path for path in files.entries(layout.images) if not path.is_dir()]
    beside = [path.name for path in beside if path.suffix.lower() in image_mask_pairs.IMAGE_ENDINGS]
    if not beside:
        return known
    described = f"{len(beside)} images lie beside the split folders in {layout.images}"
    if "train" in known:
        layout.messages.append(f"{described} and are not used: {faults.named(beside)}.")
        return known
    layout.messages.append(f"{described}: they are split 'train'.")
    return tuple(sorted((*known, "train")))


def _pairs(
    layout: _Files, split: str | None, found: faults.Faults
) -> tuple[image_mask_pairs.Pair, ...]:
    """Return the pairs of a split; None means a folder without splits."""
    list_file = layout.lists.get(split)
    if list_file and (lines := _read_pair_lines(layout, list_file)):
        return _pairs_of_lines(layout.root, lines, found)
    images, masks_folder = _folders(layout, split)
    image_files = image_mask_pairs.files_by_stem(images, image_mask_pairs.IMAGE_ENDINGS, found)
    mask_files = (
        image_mask_pairs.files_by_stem(masks_folder, masks.ENDINGS, found) if masks_folder else {}
    )
    if list_file:
        names = image_mask_pairs.read_list(list_file, image_files, layout.messages)
        return image_mask_pairs.pair_listed(names, image_files, mask_files, found, split)
    return image_mask_pairs.pair_all(image_files, mask_files, found, split)


def _folders(layout: _Files, split: str | None) -> tuple[pathlib.Path, pathlib.Path | None]:
    """Return the folders of a split's images and masks; the latter is None for a test split."""
    images, masks_folder = layout.images, layout.masks
    if images is None:
        missing = f"{layout.root / _IMAGE_FOLDERS[0]} is missing"
        hint = _hint_at_splits(layout.root)
        raise DatasetError(f"{missing}{': ' + hint if hint else '.'} {LAYOUT}")
    if split is not None and (images / split).is_dir():
        images = images / split
        masks_folder = masks_folder and masks_folder / split
    if masks_folder is None or not masks_folder.is_dir():
        if split == image_mask_pairs.UNLABELLED_SPLIT:
            return images, None
        raise DatasetError(f"{masks_folder or layout.root / _MASK_FOLDERS[0]} is missing. {LAYOUT}")
    return images, masks_folder


def _read_pair_lines(layout: _Files, file: pathlib.Path) -> list[tuple[str, str]]:
    """Return the lines "image mask" of a list, each once; empty if its lines are names.

    The lists of VOC's other tasks also have two words per line. Only two files make a pair.
    """
    lines = [line for line in files.read_lines(file, layout.messages) if line]
    pairs = {line: _split_pair(layout, line) for line in lines}
    others = [line for line in lines if pairs[line] is None]
    if others and len(others) < len(lines):
        raise DatasetError(
            f"{file} has {len(lines) - len(others)} lines 'image mask' and others: "
            f"{faults.named(others)}. Write all lines in the same form: two paths, or one name."
        )
    return [] if others else list(dict.fromkeys(pairs.values()))


def _split_pair(layout: _Files, line: str) -> tuple[str, str] | None:
    """Return the two paths of a line, or None. Paths may hold blanks, so existing files decide."""
    if layout.images and (layout.images / line).is_file():
        return None  # the whole line names an image
    gaps = [(line[: gap.start()], line[gap.end() :]) for gap in re.finditer(r"\s+", line)]
    fits = [pair for pair in gaps if _is_pair(*pair)]
    existing = [pair for pair in fits if all(_path(layout.root, name).is_file() for name in pair)]
    return next(iter(existing or fits), None)


def _is_pair(image: str, mask: str) -> bool:
    return (
        pathlib.PurePath(image).suffix.lower() in image_mask_pairs.IMAGE_ENDINGS
        and pathlib.PurePath(mask).suffix.lower() in masks.ENDINGS
    )


def _path(root: pathlib.Path, name: str) -> pathlib.Path:
    """Return the path of a file of a list, in the Unicode form that exists."""
    path = root / name.lstrip("/")
    if path.is_file():
        return path
    forms = (root / unicodedata.normalize(form, name.lstrip("/")) for form in ("NFC", "NFD"))
    return next((other for other in forms if other.is_file()), path)


def _pairs_of_lines(
    root: pathlib.Path, lines: list[tuple[str, str]], found: faults.Faults
) -> tuple[image_mask_pairs.Pair, ...]:
    """Return the pairs; paths are relative to the root, with or without a leading slash."""
    pairs = {}
    for name, line in zip(_ids([image for image, _ in lines]), lines, strict=True):
        image, mask = (_path(root, path) for path in line)
        outside = [f for f in (image, mask) if root not in _without_dots(f).parents]
        missing = [f for f in (image, mask) if f not in outside and not f.is_file()]
        for file in outside:
            found.add(image_mask_pairs.OUTSIDE, file)
        for file in missing:
            found.add(image_mask_pairs.LISTED_PAIR, file)
        if name in pairs:
            found.add(image_mask_pairs.TWICE, image)
        elif not missing and not outside:
            pairs[name] = image_mask_pairs.Pair(name, image, mask)
    return tuple(pairs.values())


def _without_dots(path: pathlib.Path) -> pathlib.Path:
    """Return the path without "..", as text: links inside the folder may lead elsewhere."""
    return pathlib.Path(os.path.normpath(path))


def _ids(images: list[str]) -> list[str]:
    """Return the images' names without ending, or their paths if two names are equal."""
    paths = [pathlib.PurePosixPath(image.lstrip("/")) for image in images]
    names = [path.stem for path in paths]
    if len(set(names)) == len(names):
        return names
    return ["_".join(path.with_suffix("").parts) for path in paths]


def _divide(wanted, known, pairs) -> _Choice:
    """Use a fifth of the images for evaluation, chosen by a hash of their names."""
    if len(pairs) == 1:
        message = (
            f"Warning: there is one image only ({pairs[0].image}), for training and for "
            "evaluation. Add images, because measurements on training images are worthless."
        )
        return _Choice({wanted[0]: pairs}, wanted[0], wanted[0], (message,))
    train, evaluation = division.divided(pairs, [pair.id for pair in pairs])
    given = f"only one split, '{known[0]}'" if known else "no splits"
    message = (
        f"The folder has {given}: its {len(pairs)} images were divided by a hash of their names "
        f"into {len(train)} for training and {len(evaluation)} for evaluation."
    )
    return _Choice({wanted[0]: train, wanted[1]: evaluation}, *wanted, (message,), wanted)
