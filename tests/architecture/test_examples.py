"""The examples in docstrings run, and give the values that they show."""

import doctest
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def modules_with_examples():
    """Return the dotted names of all modules with an example that is run."""
    found = []
    for package in ("mm_keras", "pipelines", "trainers"):
        for file in sorted((ROOT / package).rglob("*.py")):
            lines = file.read_text(encoding="utf-8").splitlines()
            if any(">>> " in line and "+SKIP" not in line for line in lines):
                parts = file.relative_to(ROOT).with_suffix("").parts
                found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def test_there_are_examples_in_all_packages():
    names = modules_with_examples()
    assert len(names) > 30
    assert {name.split(".")[0] for name in names} == {"mm_keras", "pipelines", "trainers"}


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
