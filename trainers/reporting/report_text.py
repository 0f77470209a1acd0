"""The text of a report, and the list of presets."""

import textwrap

from trainers.config import presets
from trainers.reporting import paper_tables
from trainers.runs import finished


def write_up(runs: list[finished.Run]) -> str:
    """Return the text of a report in Markdown.

    The text starts with the paper's tables if a run reproduces one of their cells. A table of all
    runs follows. The last part names the settings in which runs differ from the closest cells.
    """
    parts = []
    if any(paper_tables.is_in_the_paper(run) for run in runs):
        parts.append(paper_tables.paper_tables(runs))
    parts.append(f"All runs; mIoU and accuracies in percent\n\n{paper_tables.plain_table(runs)}")
    misses = filter(None, map(paper_tables.near_miss, runs))
    parts.extend(f"- {line}" for line in misses)
    return "\n\n".join(parts)


def list_presets() -> str:
    """Return all presets, with the claims of those that reproduce a cell of the paper."""
    texts = {name: _described(preset) for name, preset in presets.PRESETS.items()}
    texts["(no preset)"] = _claimed(presets.ENSEMBLE_CLAIM)
    return "\n".join(f"{name}\n{textwrap.indent(text, '    ')}" for name, text in texts.items())


def _described(preset):
    return _claimed(preset.claim) if preset.claim else preset.summary


def _claimed(claim):
    numbers = ", ".join(f"{variant} {value:.1f}" for variant, value in claim.expected.items())
    lines = [f"source: {claim.source}", f"expected: {numbers or 'a curve without stated values'}"]
    if claim.hours is not None:
        lines.append(f"cost in the paper: {claim.hours} h of M&M on {claim.hardware}")
    return "\n".join([*lines, claim.command])
