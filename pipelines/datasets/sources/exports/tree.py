"""The files of an export: a listing with limits, and parsers of untrusted text files.

All files are listed once. Whatever path an annotation names, pictures are only looked up in this
listing, so no annotation can reach files outside of the export.
"""

import csv
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import TypeVar
from xml.etree import ElementTree

import yaml

from pipelines.datasets import files
from pipelines.datasets.spec import DatasetError

Result = TypeVar("Result")

MAX_FILES = 2_000_000
"""The largest number of files of an export."""
MAX_JSON_BYTES = 512 * 2**20
"""The largest JSON or XML file. COCO's instances_train2017.json has 448 MiB."""
_MAX_TEXT_BYTES = 64 * 2**20
_MAX_YAML_BYTES = 2**20


class Tree:
    """The files below a folder.

    Args:
        root: path of the folder.
        only: path of the one annotation file to read, or None for all.

    Attributes:
        given: the folder itself.
        root: the folder; a single folder inside a folder is entered.
        only: see Args.
        files: all files, sorted by path, without system files.

    Raises:
        DatasetError: if there are too many files.
    """

    def __init__(self, root: pathlib.Path, only: pathlib.Path | None = None):
        self.given = root
        self.root = root if only else _descended(root)
        self.only = only
        self.files = _listed(self.root)
        self._documents: dict[pathlib.Path, object] = {}
        self._remembered: dict[str, object] = {}

    @functools.cached_property
    def folders(self) -> dict[str, list[pathlib.Path]]:
        """The files of each folder that has files, by the folder's relative path."""
        found: dict[str, list[pathlib.Path]] = {}
        for file in self.files:
            found.setdefault(self.relative(file.parent), []).append(file)
        return found

    def remembered(self, name: str, function: Callable[[], Result]) -> Result:
        """Return the result of a function of this tree, which is called once for each name."""
        if name not in self._remembered:
            self._remembered[name] = function()
        return self._remembered[name]

    def relative(self, path: pathlib.Path) -> str:
        """Return a path relative to the root, with slashes."""
        return path.relative_to(self.root).as_posix()

    def ending(self, *endings: str) -> list[pathlib.Path]:
        """Return the annotation files with these endings, lower case; only `only` if it is set."""
        if self.only:
            return [self.only] if self.only.suffix.lower() in endings else []
        return [file for file in self.files if file.suffix.lower() in endings]

    def named(self, *names: str) -> list[pathlib.Path]:
        """Return the files of these names in any folder; names are compared in lower case."""
        return [file for file in self.files if file.name.lower() in names]

    def below(self, folder: str) -> list[pathlib.Path]:
        """Return the files in folders whose relative path begins with `folder`."""
        return [file for file in self.files if self.relative(file).startswith(folder + "/")]

    def json(self, file: pathlib.Path) -> object:
        """Parse a JSON file; each file once.

        Raises:
            DatasetError: if it cannot be parsed.
        """
        if file not in self._documents:
            self._documents[file] = read_json(file)
        return self._documents[file]

    def try_json(self, file: pathlib.Path) -> object:
        """Parse a JSON file that may belong to something else; None if it cannot be parsed."""
        try:
            return self.json(file)
        except DatasetError:
            return None


def _descended(root: pathlib.Path) -> pathlib.Path:
    for _ in range(8):
        inner = files.entries(root)
        if len(inner) != 1 or not inner[0].is_dir() or inner[0].is_symlink():
            return root
        root = inner[0]
    return root


def _listed(root: pathlib.Path) -> list[pathlib.Path]:
    found = []
    for file in _walk(root):
        found.append(file)
        if len(found) > MAX_FILES:
            raise DatasetError(
                f"{root} has more than {MAX_FILES:,} files. Name the folder of the data set itself."
            )
    return sorted(found)


def _walk(root: pathlib.Path) -> Iterator[pathlib.Path]:
    seen = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:  # a link to a folder above
            inner.clear()
            continue
        seen.add(place)
        inner[:] = [name for name in inner if not files.is_system(name)]
        yield from (pathlib.Path(folder, name) for name in names if not files.is_system(name))


def read_json(file: pathlib.Path) -> object:
    """Parse a JSON file of at most MAX_JSON_BYTES.

    Raises:
        DatasetError: if it is too large, damaged, or nested too deeply.
    """
    content = read_bytes(file, MAX_JSON_BYTES)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{file} is no valid JSON ({files.reason(error)}). Export it again."
        ) from error


def read_yaml(file: pathlib.Path) -> object:
    """Parse a small YAML file without aliases.

    Raises:
        DatasetError: if it is too large or damaged.
    """
    content = read_bytes(file, _MAX_YAML_BYTES)
    try:
        return yaml.load(content.decode("utf-8-sig"), Loader=_NoAliases)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"{file} is no valid YAML ({files.reason(error)}). Correct it, or export it again."
        ) from error


class _NoAliases(yaml.SafeLoader):
    """A safe loader that refuses aliases, with which a small file can fill the memory."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def read_xml(file: pathlib.Path) -> ElementTree.Element:
    """Parse an XML file without a DOCTYPE.

    Raises:
        DatasetError: if it is too large or damaged, or has a DOCTYPE.
    """
    content = read_bytes(file, MAX_JSON_BYTES)
    parser = ElementTree.XMLParser(target=_NoDoctype())
    try:
        parser.feed(content)
        return parser.close()
    except (ElementTree.ParseError, ValueError) as error:
        raise DatasetError(
            f"{file} is no valid XML ({files.reason(error)}). Export it again."
        ) from error


class _NoDoctype(ElementTree.TreeBuilder):
    """A builder that refuses documents with a DOCTYPE, which could declare entities."""

    def doctype(self, name, pubid, system):
        """Refuse the document type."""
        raise ValueError("it has a DOCTYPE, which is not read")


def read_table(file: pathlib.Path, delimiter: str = ",") -> list[list[str]]:
    """Return the rows of a small CSV file, without blanks around the cells."""
    lines = files.read_lines(file)
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise DatasetError(f"{file} is no valid table ({files.reason(error)}).") from error
    return [[cell.strip() for cell in row] for row in rows if row]


def read_bytes(file: pathlib.Path, limit: int = _MAX_TEXT_BYTES) -> bytes:
    """Return the content of a regular file.

    Raises:
        DatasetError: if it cannot be read, or has more than `limit` bytes.
    """
    try:
        files.check_regular(file)
        size = file.stat().st_size
        if size <= limit:
            return file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {files.reason(error)}. Restore it.") from error
    raise DatasetError(
        f"{file} has {size:,} bytes, the limit is {limit:,}. Export it in parts, for example one "
        "subset or task at a time."
    )
