"""The folders that `--overwrite` removes: the parts to be made again, and their dependents."""

import json
import pathlib
import shutil
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from trainers.runs.runtime import Runtime, WorkdirError
from trainers.runs.stage import Stage

VARIANTS = ("", "naive")


class Part(NamedTuple):
    """A stage of one variant of a run."""

    variant: str
    stage: str

    @property
    def title(self) -> str:
        """The name for messages, for example "naive segment"."""
        return f"{self.variant} {self.stage}".strip()


def affected(asked: Iterable[str], compare: bool, table: Sequence[Stage]) -> list[Part]:
    """Return the parts of a run that a command makes again, and all parts that depend on them.

    Args:
        asked: names of the stages of the command.
        compare: whether the command runs the variant without M&M as well.
        table: all stages.
    """
    asked, chosen = set(asked), set()
    for variant in VARIANTS:
        for stage in table:
            part = Part(variant, stage.name)
            is_made = stage.name in asked and (not variant or (compare and stage.is_compared))
            if is_made or not chosen.isdisjoint(_needed(part, table)):
                chosen.add(part)
    return [Part(v, s.name) for v in VARIANTS for s in table if Part(v, s.name) in chosen]


def _needed(part, table) -> set[Part]:
    """Return the parts whose files this one reads."""
    stage = next(stage for stage in table if stage.name == part.stage)
    if part.variant and not stage.is_compared:
        return set()
    found = {Part(part.variant, name) for name in stage.reads}
    if part.variant and stage.trains:  # fine-tuning without M&M starts from the init
        return {*found, Part("", table[0].name)}
    return {*found, Part(part.variant, stage.needs)} if stage.needs else found


def check(runtime: Runtime, parts: Iterable[Part]) -> None:
    """Raise an error if a folder to be removed was not made by this program.

    Raises:
        WorkdirError: a folder with the name of a stage, without its record, or a link.
    """
    for part in parts:
        folder = runtime.of(part.variant).folder(part.stage)
        if folder.is_symlink():
            raise WorkdirError(f"{folder} is a link, and --overwrite removes no links.")
        if folder.exists() and not is_own(folder):
            raise WorkdirError(
                f"{folder} was not made by this program: it holds no readable config.json of a "
                "stage. Choose another --workdir, or move the folder away."
            )


def is_own(folder: pathlib.Path) -> bool:
    """Return whether a stage of this program made a folder: it is empty, or holds a record."""
    if not folder.is_dir():
        return False
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return not any(folder.iterdir())
    return isinstance(content, dict) and "data.dataset" in content


def remove(runtime: Runtime, parts: Iterable[Part], asked: Iterable[str]) -> None:
    """Remove the folders of parts, and print their names."""
    removed = []
    for part in parts:
        folder = runtime.of(part.variant).folder(part.stage)
        if folder.exists():
            shutil.rmtree(folder)
            removed.append(part)
    if not removed:
        return
    for name in ("results.json", "index.html", "results.csv"):  # made from all stages
        (runtime.workdir / name).unlink(missing_ok=True)
    asked = set(asked)
    left = [part.title for part in removed if part.stage not in asked]
    note = f" (not made again by this command: {', '.join(left)})" if left else ""
    names = ", ".join(part.title for part in removed)
    runtime.log(f"--overwrite removed {names} in {runtime.workdir}{note}")
