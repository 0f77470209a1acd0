"""The table of data sets: a name, and the function that finds its files.

A source is a module with a function `plan(request: spec.Request) -> records.Plan`. To add a data
set, write such a module and add one function and one entry here. The functions import their
modules late: a source loads TFDS, which takes seconds, and the names are needed earlier.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.datasets.spec import VOID, DatasetError, Reading, Request

if TYPE_CHECKING:
    from pipelines.datasets import records


def _camvid(request):
    from pipelines.datasets.sources import camvid

    return camvid.plan(request)


def _cityscapes(request):
    from pipelines.datasets.sources import cityscapes

    return cityscapes.plan(request)


def _folder(request):
    from pipelines.datasets.sources import folder

    return folder.plan(request)


def _texture_scenes(request):
    from pipelines.datasets.sources import texture_scenes

    return texture_scenes.plan(request)


def _voc_sbd(request):
    from pipelines.datasets.sources import voc_sbd

    return voc_sbd.plan(request)


SOURCES: dict[str, Callable[[Request], "records.Plan"]] = {
    "camvid": _camvid,
    "cityscapes": _cityscapes,
    "folder": _folder,
    "texture_scenes": _texture_scenes,
    "voc_sbd": _voc_sbd,
}
"""Name -> function that finds the data set's files."""

_OWN_FILES = "folder"


def find(name: str, request: Request) -> "records.Plan":
    """Find the files of the data set `name`, a key of SOURCES.

    Raises:
        DatasetError: if there are no such files, or if the data set takes no void_value.
    """
    if name != _OWN_FILES and (choices := _choices(request.reading)):
        raise DatasetError(
            f"{choices} is for data set 'folder'; {name} has a format of its own, with images of "
            "three bands. Remove it."
        )
    if request.void_value != VOID and name != _OWN_FILES:
        raise DatasetError(
            f"void_value={request.void_value} is for data set 'folder'; {name} has a void value of "
            "its own. Remove void_value."
        )
    return SOURCES[name](request)


def _choices(reading: Reading) -> str:
    """Return the choices that differ from the usual ones, such as "channels=2"."""
    usual = dataclasses.asdict(Reading())
    changed = {k: v for k, v in dataclasses.asdict(reading).items() if v != usual[k]}
    if changed.get("channels") == 3:
        changed.pop("channels")
    return ", ".join(f"{name}={value!r}" for name, value in changed.items())
