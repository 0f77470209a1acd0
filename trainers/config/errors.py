"""Errors that a user can fix, and hints at the closest known name."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """An error that the user can fix; the commands print its message without a traceback."""


class ConfigError(UserError):
    """A key or a value of the settings that cannot be used."""


def unknown(kind: str, value: object, known: Iterable[object]) -> str:
    """Return the message for a value that is not among the known values, with the closest one.

    >>> unknown("stage", "evalute", ["segment", "evaluate"])
    "Unknown stage 'evalute'; known: segment, evaluate. Did you mean evaluate?"
    """
    known = [str(item) for item in known]
    close = difflib.get_close_matches(str(value), known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"Unknown {kind} {value!r}; known: {', '.join(known)}.{hint}"
