"""What can be wrong with the files of a data set: kinds of fault, and the files of each kind.

A kind is stated once. `datasets.load` refuses a data set with its faults in one message; the audit
(`pipelines.audit`) shows the same kinds as findings.
"""

import dataclasses
from collections.abc import Iterable, Iterator

from pipelines.datasets.spec import DatasetError


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        what: what is wrong with one file, without a full stop: "image without a mask".
        mend: whole sentences that say what to do.
    """

    what: str
    mend: str


class WrongKindError(Exception):
    """A file that is whole but not usable.

    Attributes:
        kind: the kind of fault.
    """

    def __init__(self, kind: Kind):
        super().__init__(kind.what)
        self.kind = kind


class Faults:
    """Faulty files by kind, both in the order in which they were met."""

    def __init__(self):
        self._names: dict[Kind, list[str]] = {}

    def __iter__(self) -> Iterator[tuple[Kind, tuple[str, ...]]]:
        """Yields each kind with its files."""
        return ((kind, tuple(names)) for kind, names in self._names.items())

    def add(self, kind: Kind, name: object) -> None:
        """Notes one file."""
        self._names.setdefault(kind, []).append(str(name))

    def update(self, others: Iterable[tuple[Kind, Iterable[str]]]) -> None:
        """Notes all files of other faults."""
        for kind, names in others:
            for name in names:
                self.add(kind, name)

    def check(self, where: str) -> None:
        """Raises one DatasetError that lists all faults, if there are any."""
        lines = [f"{len(names)} x {kind.what}: {named(names)}. {kind.mend}" for kind, names in self]
        if lines:
            raise DatasetError(f"{where}: " + "\n".join(lines))


def named(items: list[str] | tuple[str, ...], limit: int = 10) -> str:
    """Returns up to `limit` items as text, and how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return "; ".join(items[:limit]) + more
