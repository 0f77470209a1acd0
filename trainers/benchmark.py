"""Measure speed and memory against targets, each beside a reference in the same run.

python -m trainers.benchmark [--only=match,mix] [--results=DIR]
KERAS_BACKEND=jax python -m trainers.benchmark --device=gpu

The exit status is 1 if a line that this machine can run misses its target.
"""

import os
import pathlib
import sys
import time

import rich.console
from absl import app, flags

from trainers import config
from trainers.benchmarks.targets import GROUPS

FLAGS = flags.FLAGS
COST = "cost"
flags.DEFINE_enum("device", "cpu", ["cpu", "gpu"], "Device whose lines are measured.")
flags.DEFINE_list("only", [], f"Groups to measure: {', '.join((*GROUPS, COST))}.")
flags.DEFINE_string("results", None, "Folder for benchmark.json, benchmark.md and cost.md.")

_WIDTH = 160  # width of the table in characters, without a terminal


def main(argv):
    if argv[1:]:
        sys.exit(f"Unexpected arguments: {' '.join(argv[1:])}. All options begin with --.")
    for group in FLAGS.only:
        if group not in (*GROUPS, COST):
            sys.exit(f"error: {config.unknown('group', group, (*GROUPS, COST))}")
    if FLAGS.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before Keras is imported
    elif COST in FLAGS.only:
        sys.exit("error: --only=cost measures the CPU. Leave --device=gpu out.")
    console = rich.console.Console(width=None if sys.stdout.isatty() else _WIDTH)
    results = pathlib.Path(FLAGS.results) if FLAGS.results else None
    missed = []
    if FLAGS.only != [COST]:
        missed = _measure_groups(console, results)
    if COST in FLAGS.only:
        _measure_costs(console, results)
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


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


if __name__ == "__main__":
    app.run(main)
