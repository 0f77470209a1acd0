"""Prints the README's two set-up commands, one per line, so that .ci/run cannot drift from it."""

import pathlib
import re
import sys

HEADINGS = ("## Install and run", "## Install and test")


def find_commands(text: str) -> list[str]:
    """The one-line bash block directly under each of `HEADINGS`.

    Raises:
        ValueError: a heading is missing or stands twice, or its section does not begin with a bash
            block, or the block is not exactly one line, or the section holds more bash blocks.
    """
    return [_command(text, heading) for heading in HEADINGS]


def _command(text, heading):
    sections = re.findall(rf"^{heading}[ \t]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if len(sections) != 1:
        raise ValueError(f"README.md: expected the heading {heading!r} once, found {len(sections)}")
    blocks = re.findall(r"^```bash\n(.*?)^```[ \t]*$", sections[0], re.MULTILINE | re.DOTALL)
    lines = blocks[0].splitlines() if blocks else []
    if len(blocks) != 1 or not sections[0].lstrip().startswith("```bash\n"):
        raise ValueError(
            f"README.md: expected one ```bash block directly under {heading!r}, "
            f"found {len(blocks)} in its section"
        )
    if len(lines) != 1 or not lines[0].strip():
        raise ValueError(
            f"README.md: expected a single line in the block under {heading!r}, found {len(lines)}"
        )
    return lines[0]


if __name__ == "__main__":
    try:
        found = find_commands(pathlib.Path("README.md").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    sys.stdout.write("\n".join(found) + "\n")
