"""Run the stages of an experiment from the command line.

python -m trainers.mm --backbone=vgg16 --init=random --preset=quick --dataset=camvid --data_dir=DIR
"""

import pathlib
import sys

from absl import flags, logging

from trainers import command_line, config, stages, startup
from trainers import flags as run_flags
from trainers.config import presets, terminal
from trainers.runs import loggers

_EVERYDAY = (
    "dataset",
    "data_dir",
    "workdir",
    "stage",
    "compare",
    "overwrite",
    "preset",
    "backbone",
    "init",
    "set",
    "config",
    "print_config",
)
FLAGS = flags.FLAGS
flags.adopt_module_key_flags(run_flags)  # --help shows them as well
flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run; an existing one remembers its settings. Default: a name in runs/.",
)
flags.DEFINE_list(
    "stage",
    ["all"],
    f"all, or some of {', '.join(stage.name for stage in stages.STAGES)}; or {stages.DATA_CHECK}.",
)
flags.DEFINE_bool("compare", False, "Also fine-tune and evaluate without M&M ('naive').")
flags.DEFINE_bool(
    "overwrite", False, "Run stages again: first remove them and the stages that read their files."
)
flags.DEFINE_float(
    "minutes",
    None,
    "Train for so many minutes: steps are timed and planned. Evaluation and export come on top.",
    lower_bound=0,
)
flags.DEFINE_list("loggers", [], "Services that follow the run: wandb, mlflow.")
flags.DEFINE_bool("print_config", False, "Print the settings with their origins, and exit.")


def main(argv):
    if argv[1:]:
        sys.exit(f"Unexpected arguments: {' '.join(argv[1:])}. All options begin with --.")
    logging.set_verbosity(logging.WARNING)
    command_line.call(lambda: _run(terminal.console()))


def _run(console):
    settings = run_flags.read(FLAGS.workdir)
    if FLAGS.compare and settings.experiment.ensemble:
        raise config.ConfigError("--compare has no meaning for an ensemble. Leave it out.")
    if FLAGS.compare and settings.experiment.mm.steps == 0:
        raise config.ConfigError(
            f"--compare runs with and without M&M, and preset {settings.preset} has none "
            "(mm.steps=0). Add --preset=tuned, or --set mm.steps=200."
        )
    if stages.DATA_CHECK in FLAGS.stage and FLAGS.stage != [stages.DATA_CHECK]:
        raise config.ConfigError(f"--stage={stages.DATA_CHECK} runs alone, before other stages.")
    if FLAGS.stage != [stages.DATA_CHECK]:
        stages.select(FLAGS.stage, settings.experiment)  # a wrong name is reported at once
    loggers.check(FLAGS.loggers)
    startup.load_tensorflow()
    from trainers import experiment as runs
    from trainers.runs.provenance import Origin
    from trainers.training import networks

    messages = terminal.console(stderr=True) if FLAGS.print_config else console
    settings = networks.with_possible_width(settings, messages)
    if FLAGS.print_config:
        print(runs.with_pixels(settings).as_yaml(), end="")
        return
    workdir = pathlib.Path(FLAGS.workdir) if FLAGS.workdir else runs.default_workdir(settings)
    if FLAGS.stage == [stages.DATA_CHECK]:
        from trainers.runs.dataset import check_folder
        from trainers.stages import doctor

        check_folder(settings.experiment.data)
        doctor.run(settings.experiment, workdir, console)
        return
    console.print(_headline(settings), highlight=False)
    if FLAGS.minutes is not None:
        settings = _within_minutes(settings, workdir, console)
    runs.run_experiment(
        settings.experiment,
        stages=FLAGS.stage,
        workdir=workdir,
        compare=FLAGS.compare,
        overwrite=FLAGS.overwrite,
        console=console,
        origin=Origin(
            settings.preset,
            ["python", "-m", "trainers.mm", *sys.argv[1:]],
            settings.origins,
        ),
        loggers=FLAGS.loggers,
    )


def _within_minutes(settings, workdir, console):
    from trainers import experiment as runs
    from trainers.training import budget

    before = None if FLAGS.overwrite else budget.planned_before(settings, workdir)
    return before or runs.within_minutes(settings, FLAGS.minutes, FLAGS.stage, console)


def _headline(settings):
    if settings.experiment.ensemble:
        return f"ensemble of {', '.join(settings.experiment.ensemble)}"
    return f"preset {settings.preset}: {presets.PRESETS[settings.preset].summary}"


def start():
    """Run the command with the arguments of the process."""
    command_line.start(main, _EVERYDAY)


if __name__ == "__main__":
    start()
