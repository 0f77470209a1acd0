"""The documents: their code runs, their links lead somewhere, generated pages are up to date."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from trainers.config import keys, reference

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "BUILD_NOTES.md"])
EXTENDING = ("backbone", "dataset", "loss-or-matching-rule", "pretext-task", "weight-file")


def code_blocks(page):
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```[ \t]*$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXTENDING)
def test_the_examples_of_extending_run(name, tmp_path):
    blocks = code_blocks(ROOT / "docs" / "extending" / f"{name}.md")
    assert blocks, f"{name} holds no python block"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TFDS_DATA_DIR": str(tmp_path / "records")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_there_is_a_page_for_each_extension():
    pages = {path.stem for path in (ROOT / "docs" / "extending").glob("*.md")}
    assert pages == set(EXTENDING)


def test_the_page_of_the_settings_is_up_to_date():
    page = ROOT / "docs" / "reference" / "configuration.md"
    assert page.read_text(encoding="utf-8") == reference.page(), (
        "Run: python -m trainers.config.reference > docs/reference/configuration.md"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    missing = [
        link
        for link in links
        if not re.match(r"[a-z]+:", link)
        and not (page.parent / (link.partition("#")[0] or page.name)).exists()
    ]
    assert not missing, missing


def unresolved(text):
    """Return the dotted names of our packages in a text that lead to no file or name."""
    names = set(re.findall(r"`((?:mm_keras|pipelines|trainers)(?:\.\w+)+)", text))
    return sorted(name for name in names if not resolves(name))


def resolves(name):
    """Return whether a dotted name is a module, or a name that its module mentions."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:length])
        files = [place.with_suffix(".py"), place / "__init__.py"]
        file = next((file for file in files if file.is_file()), None)
        if file:
            rest = parts[length:]
            return not rest or re.search(rf"\b{rest[0]}\b", file.read_text()) is not None
    return False


def test_names_of_modules_are_resolved():
    assert resolves("mm_keras.losses.triplet") and resolves("mm_keras.losses.embed")
    assert resolves("pipelines.patch_sampling.PatchSampling")
    assert unresolved("see `pipelines.build.patches` and `mm_keras.losses.nothing`") == [
        "mm_keras.losses.nothing",
        "pipelines.build.patches",
    ]


SOURCES = sorted(
    p for name in ("mm_keras", "pipelines", "trainers") for p in ROOT.glob(f"{name}/**/*.py")
)


@pytest.mark.parametrize(
    "file", [*PAGES, *SOURCES], ids=lambda file: file.relative_to(ROOT).as_posix()
)
def test_names_in_documents_and_docstrings_exist(file):
    assert unresolved(file.read_text(encoding="utf-8")) == []


def test_files_that_documents_name_exist():
    invented = ("letters.py", "X.py")  # of the examples in docs/extending
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in PAGES
        for name in re.findall(
            r"`((?:mm_keras|pipelines|trainers|tests|docs)/[\w/.-]+\.(?:py|md))`", page.read_text()
        )
        if not (ROOT / name).exists() and not name.endswith(invented)
    ]
    assert not missing, "\n".join(missing)


def test_every_setting_has_a_description_and_a_source():
    for setting in keys.settings().values():
        assert setting.description and setting.source.endswith("."), setting.key
        assert len(setting.description) <= 120 and setting.description.endswith("."), setting.key
