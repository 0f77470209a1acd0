"""Text for a terminal: names from files are shown as they are, and never interpreted."""

import re

import rich.console

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def console(**options) -> rich.console.Console:
    """Return a console that prints text literally: "[red]" in a class name is no color."""
    return rich.console.Console(soft_wrap=True, markup=False, highlight=False, **options)


def printable(text: str) -> str:
    r"""Return text with escapes for control characters, which would change the terminal.

    Bytes of file names that are not UTF-8 become escapes as well. Line breaks stay.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    text = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return text.encode("utf-8", "backslashreplace").decode()
