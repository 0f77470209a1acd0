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

from trainers import command_line, startup
from trainers import flags as run_flags
from trainers.config import terminal
from trainers.studies import plan

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(run_flags)  # --help shows them as well
flags.DEFINE_bool("pack", False, "Write the data set into the file --packed, and stop.")
flags.DEFINE_string("packed", None, "File of the packed data set.")
flags.DEFINE_list(
    "arms", ["naive", "naive_longer", "random_triplets", "class_connected"], "See trainers.study."
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
    if not FLAGS.packed:
        raise plan.StudyError("A device study needs --packed, the file of the data set.")
    settings, packed = run_flags.read(), pathlib.Path(FLAGS.packed)
    if FLAGS.pack:
        _pack(settings, packed)
        return
    if not FLAGS.workdir:
        raise plan.StudyError("A device study needs a --workdir.")
    if not all(seed.isdecimal() for seed in FLAGS.seeds):
        raise plan.StudyError(f"--seeds takes whole numbers from 0 on. Received {FLAGS.seeds}.")
    from trainers.device_studies import study

    asked = study.Asked(FLAGS.arms, [int(seed) for seed in FLAGS.seeds], FLAGS.arm_set)
    print(study.run(settings.experiment, packed, asked, pathlib.Path(FLAGS.workdir)))


def _pack(settings, path):
    startup.load_tensorflow()
    from trainers.device_studies import packing, scenes
    from trainers.runs.dataset import load_dataset

    data = settings.experiment.data
    dataset = load_dataset(data)
    packed = packing.pack(dataset, data.shorter_side)
    scenes.write(path, packed)
    sizes = (len(packed.train.labels), len(packed.held_out.labels))
    terminal.console().print(f"{path}: {sizes[0]} training images, {sizes[1]} held-out images")


def start():
    """Run the command with the arguments of the process."""
    command_line.start(main, ("workdir", "seeds", "arms", "arm_set", "packed", "pack"))


if __name__ == "__main__":
    start()
