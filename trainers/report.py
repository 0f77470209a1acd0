"""Tables and figures of finished runs, the paper's beside ours.

python -m trainers.report WORKDIRS... --output=DIR

WORKDIRS are folders of runs, or of many of them, such as a study's. What can be drawn depends on
what is there: M&M beside the baseline needs both (--compare), Fig. 5 several sizes of the graph.
"""

import pathlib
import sys
import textwrap

from absl import app, flags, logging

from trainers import config
from trainers.config import presets
from trainers.reporting import paper_tables
from trainers.runs import finished

FLAGS = flags.FLAGS
flags.DEFINE_bool("presets", False, "List the presets and what they are to reproduce, and stop.")
flags.DEFINE_string("output", "report", "Folder for report.md, tables.csv and the figures.")
flags.DEFINE_bool("figures", True, "Draw figures, not only tables.")
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of the data set; default: as the runs recorded it.",
    allow_override=True,  # trainers.mm has it too, where one process imports both
)
flags.DEFINE_integer("num_images", 6, "Images in the galleries.", lower_bound=1)
flags.DEFINE_integer("num_patches", 1500, "Patches in the t-SNE maps.", lower_bound=10)


def main(argv):
    logging.set_verbosity(logging.WARNING)
    try:
        if FLAGS.presets:
            print(list_presets())
        else:
            _report([pathlib.Path(path) for path in argv[1:]], pathlib.Path(FLAGS.output))
    except config.UserError as error:
        sys.exit(f"error: {error}")


def _report(paths, output):
    if not paths:
        raise config.UserError("Expected folders of finished runs, see --help.")
    runs = finished.find(paths)
    output.mkdir(parents=True, exist_ok=True)
    text = write_up(runs)
    (output / "report.md").write_text(text + "\n")
    (output / "tables.csv").write_text(paper_tables.paper_csv(runs))
    print(text)
    if FLAGS.figures:
        from trainers.reporting import report_figures as drawing  # TensorFlow and matplotlib

        options = drawing.Options(FLAGS.data_dir, FLAGS.num_images, FLAGS.num_patches)
        for path in drawing.draw(runs, output, options, say=print):
            print(f"figure: {path}")
    print(f"report: {output / 'report.md'}")


def write_up(runs: list[finished.Run]) -> str:
    """The report's text in Markdown: the paper's tables where a run is a cell of theirs, then all
    runs.
    """
    parts = []
    if any(paper_tables.is_in_the_paper(run) for run in runs):
        parts.append(paper_tables.paper_tables(runs))
    parts.append(f"All runs; mIoU and accuracies in percent\n\n{paper_tables.plain_table(runs)}")
    misses = filter(None, map(paper_tables.near_miss, runs))
    parts.extend(f"- {line}" for line in misses)
    return "\n\n".join(parts)


def list_presets() -> str:
    """All presets, with the claims of those that are cells of the paper."""
    texts = {name: _described(preset) for name, preset in presets.PRESETS.items()}
    texts["(no preset)"] = _claimed(presets.ENSEMBLE_CLAIM)
    return "\n".join(f"{name}\n{textwrap.indent(text, '    ')}" for name, text in texts.items())


def _described(preset):
    return _claimed(preset.claim) if preset.claim else preset.summary


def _claimed(claim):
    numbers = ", ".join(f"{arm} {value:.1f}" for arm, value in claim.expected.items())
    lines = [f"source: {claim.source}", f"expected: {numbers or 'a curve, its values not stated'}"]
    if claim.hours is not None:
        lines.append(f"cost in the paper: {claim.hours} h of M&M on {claim.hardware}")
    return "\n".join([*lines, claim.command])


if __name__ == "__main__":
    app.run(main)
