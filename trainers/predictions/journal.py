"""The record of a folder of predictions: the model, and the images that are finished.

DIR/predictions.jsonl has one line for the model and one for each image. A command that continues
skips images that did not change. DIR/areas.csv is made from it.
"""

import contextlib
import csv
import hashlib
import io
import json
import pathlib
from collections.abc import Iterable, Iterator

from mm_keras.inference import ClassTable
from pipelines.datasets.new_images import Source
from pipelines.datasets.spec import printable
from trainers import config
from trainers.predictions import files
from trainers.runs import lock
from trainers.runs.files import remove_leftovers, replacing

JOURNAL = "predictions.jsonl"
AREAS = "areas.csv"


class Journal:
    """The finished images of an output folder.

    The folder may hold other files. They are never changed: the command writes only into the
    folders of `files.FOLDERS`, and only if it made them.

    `opened` returns it.

    Args:
        folder: the output folder.
        model: `checksum` of the model.
        overwrite: forget the finished images, and predict them again.

    Raises:
        config.UserError: the folder holds predictions of another model.
    """

    def __init__(self, folder: pathlib.Path, model: str, overwrite: bool = False):
        self.folder, self._file = folder, folder / JOURNAL
        lines = _lines(self._file)
        owner = lines[0].get("model") if lines else model
        if owner != model and not overwrite:
            raise config.UserError(
                f"{folder} holds predictions of another model. Choose another --output, or predict "
                "all images again with --overwrite."
            )
        self._entries = {} if overwrite else {line["name"]: line for line in lines[1:]}
        with replacing(self._file) as temporary:
            lines = [{"model": model}, *self._entries.values()]
            temporary.write_text("".join(map(_line, lines)), encoding="utf-8")

    def is_done(self, source: Source, kinds: files.Kinds) -> bool:
        """Return whether the files of an image exist, and the image did not change."""
        entry = self._entries.get(source.name)
        if entry is None or entry["state"] != _state(source.file):
            return False
        names = kinds.names()
        return all(
            files.place(self.folder, k, source.name, entry["is_geo"]).exists() for k in names
        )

    def add(self, source: Source, result: dict) -> None:
        """Record an image whose files are complete.

        Args:
            source: the image.
            result: the result of `files.write`.
        """
        entry = {"name": source.name, "state": _state(source.file), **result}
        self._entries[source.name] = entry
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(_line(entry))

    def write_areas(self, classes: ClassTable, sources: Iterable[Source]) -> pathlib.Path:
        """Write the areas of the classes in pixels, one row for each finished image of `sources`.

        Returns:
            The path of the file.
        """
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["image", "height", "width", "confidence", *classes.class_names])
        for source in sources:
            entry = self._entries.get(source.name)
            if entry is not None:
                facts = (entry[key] for key in ("height", "width", "confidence"))
                writer.writerow([printable(source.name), *facts, *entry["pixels"]])
        path = self.folder / AREAS
        with replacing(path) as temporary:
            temporary.write_text(buffer.getvalue(), encoding="utf-8")
        return path


@contextlib.contextmanager
def opened(folder: pathlib.Path, model: str, overwrite: bool = False) -> Iterator[Journal]:
    """Return the journal of an output folder, which no other process uses meanwhile.

    Args:
        folder: the output folder; it is created if it does not exist.
        model: `checksum` of the model.
        overwrite: forget the finished images, and predict them again.

    Raises:
        config.UserError: the folder holds predictions of another model, or a file or folder that
            this program did not make has a name that it needs, or another process predicts into
            the folder.
    """
    if folder.exists() and not folder.is_dir():
        raise config.UserError(f"{folder} is a file. Choose another --output.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise config.UserError(
            f"{folder} cannot be created: {error.strerror}. Choose another --output."
        ) from error
    _check_ours(folder)
    with lock.holding(folder, "--output"):
        for place in _folders(folder):
            remove_leftovers(place)
        yield Journal(folder, model, overwrite)


def checksum(model: pathlib.Path) -> str:
    """Return a checksum of all files of a SavedModel."""
    total = hashlib.sha256()
    for file in sorted(path for path in model.rglob("*") if path.is_file()):
        total.update(file.relative_to(model).as_posix().encode())
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def _check_ours(folder):
    if (folder / JOURNAL).exists():
        return
    for name in (*files.FOLDERS, AREAS):
        path = folder / name
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise config.UserError(
                f"{path} was not made by this program, and is not replaced. Choose another "
                "--output, or move it away."
            )


def _folders(folder):
    """Return the existing folders of results, and all folders below them."""
    places = [folder / kind for kind in files.FOLDERS if (folder / kind).is_dir()]
    return [*places, *(path for place in places for path in place.rglob("*") if path.is_dir())]


def _lines(file) -> list[dict]:
    """Return the lines of a journal; a killed process may leave a part of the last one."""
    if not file.exists():
        return []
    found = []
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        keys = {"name", "state", "is_geo", "pixels"}
        if isinstance(line, dict) and ("model" in line if not found else keys <= line.keys()):
            found.append(line)
    if not found:
        raise config.UserError(f"{file} is damaged. Choose another --output, or remove the file.")
    return found


def _line(content) -> str:
    return json.dumps(content) + "\n"


def _state(file) -> list[int]:
    stats = file.stat()
    return [stats.st_size, stats.st_mtime_ns]
