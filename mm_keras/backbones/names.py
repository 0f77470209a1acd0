"""Hints for misspelled names of networks."""

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint with the most similar known names, to append to a message; may be empty."""
    lower = {item.rpartition("/")[2].lower(): item for item in known}
    close = difflib.get_close_matches(name.rpartition("/")[2].lower(), lower, n=2)
    return f" Did you mean {' or '.join(repr(lower[item]) for item in close)}?" if close else ""
