"""The documents: their code runs, their links lead somewhere, generated pages are up to date."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from trainers.config import reference

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "BUILD_NOTES.md"])
EXTENDING = ("backbone", "dataset", "loss-or-matching-rule", "pretext-task", "weight-file")


def code_blocks(page):
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```[ \t]*$", text, re.MULTILINE | re.DOTALL)


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
