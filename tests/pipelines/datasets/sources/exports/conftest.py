"""Functions that read exports and copy samples of them."""

import json
import pathlib
import shutil

import pytest

from pipelines.datasets.sources import exports
from pipelines.datasets.spec import Reading, Request


@pytest.fixture(scope="session")
def samples(real_data):
    """Folder of sample exports with the masks they must give."""
    folder = real_data / "exports"
    if not folder.is_dir():
        pytest.skip("MM_TEST_DATA has no folder exports")
    return folder


@pytest.fixture
def sample(samples, tmp_path):
    """Function (name) -> a copy of a sample's export that may be damaged."""

    def copy(name):
        return pathlib.Path(shutil.copytree(samples / name / "export", tmp_path / name))

    return copy


@pytest.fixture
def read():
    """Function (path, void_value=, and fields of Reading) -> export."""

    def function(path, void_value=255, **reading):
        tree = exports.open_tree(path)
        request = Request(path, void_value=void_value, reading=Reading(**reading))
        return exports.read(tree, request)

    return function


@pytest.fixture
def write_json():
    """Function (file, document): write JSON."""

    def function(file, document):
        pathlib.Path(file).write_text(json.dumps(document))

    return function
