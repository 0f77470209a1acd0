"""One stage of a run: the settings before it, the process prepared for it, the results after it."""

import shutil
import time

import keras
import tensorflow as tf

from trainers import config
from trainers.runs import files, memory, records
from trainers.runs.runtime import Runtime
from trainers.runs.stage import Stage


def run_stage(stage: Stage, experiment: config.Experiment, runtime: Runtime) -> None:
    """Run a stage between its config.json and its results.json.

    The results hold `seconds` and `peak_bytes` beside the figures of the stage.
    """
    folder = runtime.folder(stage.name)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_leftovers(folder)
    files.write_json(folder / "config.json", records.own(experiment, stage, runtime))
    set_up(experiment)
    memory.reset_peak()
    started = time.monotonic()
    try:
        results = stage.run(experiment, runtime)
    except config.UserError:
        if is_new and [path.name for path in folder.iterdir()] == ["config.json"]:
            shutil.rmtree(folder)  # nothing was made: the record would refuse the next command
        raise
    results.setdefault("seconds", round(time.monotonic() - started, 2))
    results["peak_bytes"] = memory.peak_bytes()
    if weights := files.checksums(folder):
        results["checksums"] = weights
    files.write_json(folder / "results.json", results)


def set_up(experiment: config.Experiment):
    """Seed all generators and set the precision policy, before a stage builds its model.

    Deterministic ops are enabled unless XLA is requested: Keras disables XLA when they are on.
    """
    keras.utils.clear_session(free_memory=True)
    keras.utils.set_random_seed(experiment.seed)
    if not config.uses_xla(experiment):
        tf.config.experimental.enable_op_determinism()
    keras.mixed_precision.set_global_policy(experiment.precision)
