"""The variants of a run, as a page shows them."""

import dataclasses
import pathlib
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Variant:
    """One variant of a run whose stage evaluate is done.

    Attributes:
        title: heading of its columns.
        folder: folder of its stages.
        results: its part of results.json.
    """

    title: str
    folder: pathlib.Path
    results: dict

    @property
    def intervals(self) -> dict:
        """The intervals of its scores; empty for runs of older versions."""
        return self.results.get("intervals", {})


def main_title(settings: Mapping[str, object]) -> str:
    """Return the heading of the main variant.

    Args:
        settings: {key: value} of the run. Older runs recorded none; they were tuned.

    >>> main_title({"mm.steps": 0}), main_title({"mm.steps": 150})
    ('fine-tuned', 'M&M')
    """
    if settings.get("ensemble"):
        return "ensemble"
    return "M&M" if settings.get("mm.steps", 1) else "fine-tuned"


def of(workdir: pathlib.Path, results: dict) -> list[Variant]:
    """Return the variants of a run that were evaluated, the main one first.

    Args:
        workdir: folder of the run.
        results: content of its results.json.
    """
    settings = (results.get("run") or {}).get("settings", {})
    found = [
        Variant(main_title(settings), workdir, results),
        Variant("naive", workdir / "naive", results.get("naive", {})),
    ]
    return [variant for variant in found if variant.results.get("confusion_matrix")]
