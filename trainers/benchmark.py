"""Measure speed and memory against targets, each beside a reference in the same run.

python -m trainers.benchmark [--only=match,mix] [--results=DIR]
KERAS_BACKEND=jax python -m trainers.benchmark --device=gpu
python -m trainers.benchmark --only=quality --dataset=camvid --data_dir=DIR --peers=PYTHON

The exit status is 1 if a line that this machine can run misses its target.
"""

import os
import pathlib
import sys
import time

import rich.console
from absl import flags, logging

from trainers import command_line, config, startup
from trainers import flags as run_flags
from trainers.benchmarks.targets import GROUPS

FLAGS = flags.FLAGS
COST, QUALITY = "cost", "quality"
flags.DEFINE_enum("device", "cpu", ["cpu", "gpu"], "Device whose lines are measured.")
flags.DEFINE_list("only", [], f"Groups to measure: {', '.join((*GROUPS, COST, QUALITY))}.")
flags.DEFINE_string("results", None, "Folder for benchmark.json, benchmark.md and cost.md.")
flags.DEFINE_float("cpu_seconds", 330.0, "Group quality: CPU seconds of training.", lower_bound=1)
flags.DEFINE_integer(
    "num_seeds", 3, "Group quality: number of seeds, from --seed on.", lower_bound=1
)
flags.DEFINE_string(
    "peers", None, "Group quality: interpreter with torch and segmentation_models_pytorch."
)
flags.DEFINE_list(
    "methods", [], "Group quality: names of the methods, or parts of them; none: all."
)
flags.adopt_module_key_flags(run_flags)  # group quality: data set, preset and --set of our method

_WIDTH = 160  # width of the table in characters, without a terminal


def main(argv):
    if argv[1:]:
        sys.exit(f"Unexpected arguments: {' '.join(argv[1:])}. All options begin with --.")
    logging.set_verbosity(logging.ERROR)  # TensorFlow warns of the traces of each line
    command_line.call(_run)


def _run():
    _check_groups()
    if FLAGS.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow is imported
        startup.load_tensorflow()
    console = rich.console.Console(width=None if sys.stdout.isatty() else _WIDTH)
    results = pathlib.Path(FLAGS.results) if FLAGS.results else None
    missed = []
    if FLAGS.only == [QUALITY]:
        _compare_quality(console, results)
        return
    if FLAGS.only != [COST]:
        missed = _measure_groups(console, results)
    if COST in FLAGS.only:
        _measure_costs(console, results)
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


def _check_groups():
    known = (*GROUPS, COST, QUALITY)
    for group in FLAGS.only:
        if group not in known:
            raise config.UserError(config.unknown("group", group, known))
    if COST in FLAGS.only and FLAGS.device == "gpu":
        raise config.UserError("--only=cost measures the CPU. Leave --device=gpu out.")
    if QUALITY in FLAGS.only and FLAGS.only != [QUALITY]:
        raise config.UserError(f"--only={QUALITY} runs alone: it takes about an hour.")


def _measure_groups(console, results) -> list[str]:
    """Measure, print and write the lines. Return the keys of those that miss their targets."""
    from trainers.benchmarks import groups, output

    started = time.monotonic()
    measurements = groups.measure(
        FLAGS.only or GROUPS, FLAGS.device, lambda line: console.print(line, highlight=False)
    )
    minutes = (time.monotonic() - started) / 60
    console.print(output.table(measurements))
    console.print(f"{output.machine(FLAGS.device)}; {minutes:.1f} minutes", highlight=False)
    if results:
        output.write(results, measurements, FLAGS.device)
    return output.missed(measurements)


def _measure_costs(console, results):
    from trainers.benchmarks import costs, output

    text = costs.table(lambda line: console.print(line, markup=False, highlight=False))
    if results:
        output.write_costs(results, text)


def _compare_quality(console, results):
    from trainers.benchmarks import output, quality

    settings = run_flags.read()
    experiment = settings.experiment
    seeds = tuple(range(experiment.seed, experiment.seed + FLAGS.num_seeds))
    comparison = quality.Comparison(experiment.data, FLAGS.cpu_seconds, seeds, FLAGS.peers)
    methods = quality.chosen(comparison.methods(settings), FLAGS.methods)
    scores = quality.compare(comparison, methods, lambda line: console.print(line, highlight=False))
    console.print(quality.table(scores))
    if results:
        output.write_quality(results, comparison, scores)


def start():
    """Run the command with the arguments of the process."""
    command_line.start(main, ("only", "results", "device"))


if __name__ == "__main__":
    start()
