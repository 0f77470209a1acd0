"""The table of data sets: a name, and the function that finds its files.

A source is a module with a function `plan(data_dir, train_split, eval_split, void_value)` that
returns a `records.Plan`. The functions below import their modules late: a source loads TFDS, which
takes seconds, and the names are needed before.
"""

from collections.abc import Callable

from pipelines.datasets.spec import VOID, DatasetError


def _folder(*request):
    from pipelines.datasets.sources import folder

    return folder.plan(*request)


def _camvid(*request):
    from pipelines.datasets.sources import camvid

    return camvid.plan(*_without_void_value("camvid", *request))


def _cityscapes(*request):
    from pipelines.datasets.sources import cityscapes

    return cityscapes.plan(*_without_void_value("cityscapes", *request))


def _texture_scenes(*request):
    from pipelines.datasets.sources import texture_scenes

    return texture_scenes.plan(*_without_void_value("texture_scenes", *request))


def _voc_sbd(*request):
    from pipelines.datasets.sources import voc_sbd

    return voc_sbd.plan(*_without_void_value("voc_sbd", *request))


SOURCES: dict[str, Callable] = {
    "camvid": _camvid,
    "cityscapes": _cityscapes,
    "folder": _folder,
    "texture_scenes": _texture_scenes,
    "voc_sbd": _voc_sbd,
}
"""Name -> function(data_dir, train_split, eval_split, void_value) -> records.Plan."""


def _without_void_value(name, data_dir, train_split, eval_split, void_value):
    if void_value != VOID:
        raise DatasetError(
            f"void_value={void_value} is for data set 'folder'; {name} has a void value of its own."
        )
    return data_dir, train_split, eval_split
