"""Print and draw the results of finished runs, beside the results of the paper.

python -m trainers.report WORKDIRS... --output=DIR

WORKDIRS are folders of runs, or folders that contain runs, for example a study. The figures depend
on the runs: a comparison with the baseline needs both variants (trainers.mm --compare), and Fig. 5
needs several sizes of the graph.
"""

import pathlib

from absl import flags, logging

from trainers import command_line, config, startup

FLAGS = flags.FLAGS
flags.DEFINE_bool("presets", False, "Print the presets and their published results, and exit.")
flags.DEFINE_string("output", "report", "Folder for report.md, tables.csv and the figures.")
flags.DEFINE_bool("figures", True, "Draw figures as well as tables.")
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of the data set. Default: the folder that the runs recorded.",
    allow_override=True,  # a process may import trainers.mm, which defines this flag as well
)
flags.DEFINE_integer("num_images", 6, "Images in the galleries.", lower_bound=1)
flags.DEFINE_integer("num_patches", 1500, "Patches in the t-SNE maps.", lower_bound=10)


def main(argv):
    logging.set_verbosity(logging.WARNING)
    command_line.call(lambda: _run(argv[1:]))


def _run(folders):
    if FLAGS.presets:
        _list_presets()
    else:
        _report([pathlib.Path(path) for path in folders], pathlib.Path(FLAGS.output))


def _list_presets():
    startup.load_tensorflow()
    from trainers.reporting import report_text

    print(report_text.list_presets())


def _report(paths, output):
    if not paths:
        raise config.UserError("Expected folders of finished runs, see --help.")
    startup.load_tensorflow()
    from trainers.reporting import paper_tables, report_text
    from trainers.runs import finished

    runs = finished.find(paths)
    output.mkdir(parents=True, exist_ok=True)
    text = report_text.write_up(runs)
    (output / "report.md").write_text(text + "\n")
    (output / "tables.csv").write_text(paper_tables.paper_csv(runs))
    print(text)
    if FLAGS.figures:
        _draw(runs, output)
    print(f"report: {output / 'report.md'}")


def _draw(runs, output):
    try:
        from trainers.reporting import report_figures  # imports TensorFlow and matplotlib
    except ImportError as error:
        raise config.UserError(
            f'Figures need {error.name}: pip install -e ".[viz]", or --nofigures for tables only.'
        ) from error
    options = report_figures.Options(FLAGS.data_dir, FLAGS.num_images, FLAGS.num_patches)
    for path in report_figures.draw(runs, output, options, log=print):
        print(f"figure: {path}")


def start():
    """Run the command with the arguments of the process."""
    command_line.start(main)


if __name__ == "__main__":
    start()
