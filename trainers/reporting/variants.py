"""The variants of a run, as a page shows them."""

import dataclasses
import pathlib


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


def of(workdir: pathlib.Path, results: dict) -> list[Variant]:
    """Return the variants of a run that were evaluated, the main one first.

    Args:
        workdir: folder of the run.
        results: content of its results.json.
    """
    settings = (results.get("run") or {}).get("settings", {})
    main = "ensemble" if settings.get("ensemble") else "M&M"
    found = [
        Variant(main, workdir, results),
        Variant("naive", workdir / "naive", results.get("naive", {})),
    ]
    return [variant for variant in found if variant.results.get("confusion_matrix")]
