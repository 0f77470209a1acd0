"""Run a whole study on one accelerator: images and weights stay there, on JAX.

python -m trainers.device_study --pack --dataset=camvid --data_dir=DIR --packed=camvid.npz
KERAS_BACKEND=jax python -m trainers.device_study --packed=camvid.npz --preset=tuned \\
  --arms=naive_longer,class_connected --seeds=0,1,2,3,4 --workdir=STUDY

A run takes seconds instead of minutes, since each stage is one compiled loop. Network, losses,
optimizers and settings are those of `trainers.mm`. Crops follow the same rules with other random
numbers, and scores count pixels of the shrunk images. The second command needs no TensorFlow. Run
it again to continue a study. Several processes may share a folder, each with its own arms.
"""

import pathlib
import sys

from absl import flags, logging

from trainers import command_line, startup, study
from trainers import flags as run_flags
from trainers.config import terminal
from trainers.studies import plan

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(study)  # --help shows them as well
flags.adopt_module_key_flags(run_flags)
flags.DEFINE_bool("pack", False, "Write the data set into the file --packed, and stop.")
flags.DEFINE_string("packed", None, "File of the packed data set.")


def main(argv):
    if argv[1:]:
        sys.exit(f"Unexpected arguments: {' '.join(argv[1:])}. All options begin with --.")
    logging.set_verbosity(logging.WARNING)
    command_line.call(_pack if FLAGS.pack else _run)


def _run():
    file = _file()
    settings, seeds = study.read_flags()
    from trainers.device_studies import execution

    asked = execution.Asked(FLAGS.arms, seeds, FLAGS.arm_set)
    print(execution.run(settings.experiment, file, asked, pathlib.Path(FLAGS.workdir)))


def _pack():
    file, data = _file(), run_flags.read().experiment.data
    startup.load_tensorflow()
    from trainers.device_studies import packing, scenes
    from trainers.runs.dataset import load_dataset

    packed = packing.pack(load_dataset(data), data.shorter_side)
    scenes.write(file, packed)
    numbers = (len(packed.train.labels), len(packed.held_out.labels))
    terminal.console().print(f"{file}: {numbers[0]} training images, {numbers[1]} held-out images")


def _file():
    if not FLAGS.packed:
        raise plan.StudyError("A device study needs --packed, the file of the data set.")
    return pathlib.Path(FLAGS.packed)


def start():
    """Run the command with the arguments of the process."""
    command_line.start(main, ("workdir", "seeds", "arms", "arm_set", "packed", "pack"))


if __name__ == "__main__":
    start()
