"""Faults of the files of a data set: kinds of fault, and the files of each kind.

Each kind is defined once. `datasets.load` raises one error that lists all faults of a data set. The
audit (`pipelines.datasets.audit`) shows the same kinds as findings.
"""

import dataclasses
from collections.abc import Iterable, Iterator

from pipelines.datasets.spec import DatasetError, printable


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        problem: the fault of one file, without a full stop: "image without a mask".
        fix: whole sentences, the steps that correct the file.
    """

    problem: str
    fix: str


class WrongKindError(Exception):
    """A file that can be decoded but not used.

    Attributes:
        kind: the kind of fault.
        detail: the received value, such as "6 bands of uint8"; may be empty.
    """

    def __init__(self, kind: Kind, detail: object = ""):
        self.kind, self.detail = kind, str(detail)
        super().__init__(self.described(kind.problem))

    def described(self, name: object) -> str:
        """Return a name, or a problem, with the detail in parentheses."""
        return f"{name} ({self.detail})" if self.detail else str(name)


class Faults:
    """Faulty files by kind, in the order in which they were found.

    Example:
        >>> faults = Faults()
        >>> faults.add(Kind("image without a mask", "Add it."), "a.jpg")
        >>> faults.check("Data 'x'")
        Traceback (most recent call last):
        pipelines.datasets.spec.DatasetError: Data 'x': 1 x image without a mask: a.jpg. Add it.
    """

    def __init__(self):
        self._names: dict[Kind, list[str]] = {}

    def __iter__(self) -> Iterator[tuple[Kind, tuple[str, ...]]]:
        """Yield each kind with its files."""
        return ((kind, tuple(names)) for kind, names in self._names.items())

    def add(self, kind: Kind, name: object) -> None:
        """Add one file; control characters in its name are escaped."""
        self._names.setdefault(kind, []).append(printable(str(name)))

    def update(self, others: Iterable[tuple[Kind, Iterable[str]]]) -> None:
        """Add all files of other faults."""
        for kind, names in others:
            for name in names:
                self.add(kind, name)

    def check(self, where: str) -> None:
        """Raise one DatasetError that lists all faults, if there are any."""
        lines = [
            f"{len(names)} x {kind.problem}: {named(names)}. {kind.fix}" for kind, names in self
        ]
        if lines:
            raise DatasetError(f"{where}: " + "\n".join(lines))


def named(items: list[str] | tuple[str, ...], limit: int = 10) -> str:
    """Return up to `limit` items as text without control characters, and the number of the others.

    Example:
        >>> named(["a", "b", "c"], limit=2)
        'a; b and 1 more'
    """
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return printable("; ".join(items[:limit])) + more
