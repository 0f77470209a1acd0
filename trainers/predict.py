"""Predict new images with a finished run or an exported model.

python -m trainers.predict MODEL INPUT... --output=DIR

MODEL is a working folder whose stage export is done, its folder export, or a SavedModel. INPUT are
image files, folders and patterns ("photos/**/*.jpg"). DIR gets masks with the data set's own mask
values, overlays, and areas.csv. The same command again continues where it was stopped.
"""

from absl import flags, logging

from trainers import command_line, config, startup
from trainers.config import terminal

FLAGS = flags.FLAGS
# A process may import other commands, which define flags of the same names.
flags.DEFINE_string("output", None, "Folder of the results.", allow_override=True)
flags.DEFINE_bool("overlays", True, "Write images with their classes painted over them.")
flags.DEFINE_bool("confidence", False, "Write the probability of the predicted class, gray PNG.")
flags.DEFINE_bool("probabilities", False, "Write the probability of each class, float16 .npz.")
flags.DEFINE_bool(
    "overwrite", False, "Predict images again that are finished.", allow_override=True
)


def main(argv):
    logging.set_verbosity(logging.WARNING)
    command_line.call(lambda: _run(argv[1:], terminal.console()))


def _run(arguments, console):
    if len(arguments) < 2 or not FLAGS.output:
        raise config.UserError(
            "Expected MODEL INPUT... --output=DIR, for example: python -m trainers.predict "
            "runs/mine photos --output=predictions."
        )
    startup.load_tensorflow()
    from trainers.predictions import files, folder

    model, *inputs = arguments
    kinds = files.Kinds(FLAGS.overlays, FLAGS.confidence, FLAGS.probabilities)
    summary = folder.predict(model, inputs, FLAGS.output, kinds, FLAGS.overwrite, console)
    _report(summary, console)
    if summary.skipped and not summary.num_predicted + summary.num_done:
        raise config.UserError("no image could be predicted")


def _report(summary, console):
    for file, problem in summary.skipped:
        console.print(terminal.printable(f"skipped: {file}: {problem}"))
    if summary.num_turned:
        console.print(f"{summary.num_turned} images were turned upright by their EXIF data")
    done = f", {summary.num_done} were finished before" if summary.num_done else ""
    console.print(f"predicted {summary.num_predicted} images{done}")
    console.print(terminal.printable(f"results: {summary.areas.parent}, areas: {summary.areas}"))


def start():
    """Run the command with the arguments of the process."""
    command_line.start(main)


if __name__ == "__main__":
    start()
