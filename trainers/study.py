"""Compare arms over several seeds on one data set, with equal budgets and paired differences.

python -m trainers.study --preset=tuned --dataset=camvid --data_dir=DIR --workdir=STUDY

The flags of trainers.mm (--preset, --init, --set ...) describe the settings that all arms share.
Each run is a `python -m trainers.mm` in STUDY/ARM/seedN. Runs of one seed start from the same
weights and see the same crops in the same order, so their differences are paired. Run the same
command again to continue a study.
"""

import pathlib
import sys

from absl import flags, logging

from trainers import command_line, startup
from trainers import flags as run_flags
from trainers.config import resolved, terminal
from trainers.studies import plan

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(run_flags)  # --help shows them as well
flags.DEFINE_list(
    "arms",
    ["naive", "naive_longer", "random_triplets", "class_connected"],
    "Arms to run; ARM:N runs it with the first N seeds only. Any other name is M&M with the "
    "changes that --arm_set gives it. Differences are taken to the first arm.",
)
flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the weights, the order of the data, graphs.")
flags.DEFINE_multi_string("arm_set", [], "ARM:KEY=VALUE, a change of the settings in one arm.")
flags.DEFINE_string("workdir", None, "Folder of the study.", allow_override=True)


def main(argv):
    if argv[1:]:
        sys.exit(f"Unexpected arguments: {' '.join(argv[1:])}. All options begin with --.")
    logging.set_verbosity(logging.WARNING)
    command_line.call(_run)


def _run():
    settings, seeds = read_flags()
    startup.load_tensorflow()
    from trainers.studies import execution, preparation, summary

    console = terminal.console()
    study, dataset = preparation.prepare(
        settings,
        preparation.Plan(FLAGS.arms, seeds, FLAGS.arm_set),
        pathlib.Path(FLAGS.workdir),
        console,
    )
    execution.run(study)
    print(summary.write(study, dataset))


def read_flags() -> tuple[resolved.Resolved, list[int]]:
    """Return the settings that all arms share, and the seeds.

    Raises:
        config.UserError: a flag that a study does not have, or a wrong value.
    """
    if run_flags.FLAGS["seed"].present:
        raise plan.StudyError("A study sets --seed itself; see --seeds.")
    if run_flags.FLAGS.ensemble:
        raise plan.StudyError("A study trains its runs: --ensemble has no meaning here.")
    if not FLAGS.workdir:
        raise plan.StudyError("A study needs a --workdir.")
    if not all(seed.isdecimal() for seed in FLAGS.seeds):
        raise plan.StudyError(f"--seeds takes whole numbers from 0 on. Received {FLAGS.seeds}.")
    return run_flags.read(), [int(seed) for seed in FLAGS.seeds]


def start():
    """Run the command with the arguments of the process."""
    command_line.start(main, ("workdir", "seeds", "arms", "arm_set"))


if __name__ == "__main__":
    start()
