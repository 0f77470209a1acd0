"""Speed and memory against the targets, each beside its peer in the same run.

python -m trainers.benchmark [--only=match,mix] [--results=DIR]
KERAS_BACKEND=jax python -m trainers.benchmark --device=gpu

Exits with 1 where a line that this machine can run misses its target.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import time

import rich.console
import rich.table
from absl import app, flags

from trainers import config
from trainers.benchmarks.timing import Line, NotRun, Reading, is_met

FLAGS = flags.FLAGS
flags.DEFINE_enum("device", "cpu", ["cpu", "gpu"], "What is measured; the other is 'not run'.")
flags.DEFINE_list("only", [], "Groups to run: match, mix, step, hypercolumn, gpu, cost.")
flags.DEFINE_string("results", None, "Folder for benchmark.json, benchmark.md and cost.md.")

LINES = (
    Line("match", "match_400", "match, 400 nodes", "ms", "the graph in a Python loop", most=1.5),
    Line("match", "match_4096", "match, 4,096 nodes", "ms", most=5),
    Line("match", "match_65536", "match, 65,536 nodes", "ms", most=80),
    Line("match", "match_400_xla", "match, 400 nodes, XLA", "ms", most=6),
    Line("match", "match_4096_xla", "match, 4,096 nodes, XLA", "ms", most=20),
    Line("match", "match_65536_xla", "match, 65,536 nodes, XLA", "ms", most=320),
    Line(
        *("mix", "mix", "mix, two files to 10 patches of 128", "ms/image"),
        peer="decoding the two files",
        most=1.6,
        of_ratio=True,
    ),
    Line(
        *("mix", "mix_opencv", "mix, two files to 10 patches of 128", "ms/image"),
        peer="numpy and OpenCV",
        most=1 / 1.5,
        of_ratio=True,
    ),
    Line(
        *("step", "step", "M&M step, VGG-16, 16 patches of 128", "CPU s"),
        peer="the backbone's step alone",
        most=1.05,
        of_ratio=True,
    ),
    Line(
        *("step", "step_torch", "M&M step, VGG-16, 16 patches of 128", "images/s"),
        peer="PyTorch, the network alone",
        least=1.1,
        of_ratio=True,
    ),
    Line("step", "match_share", "match of 400 nodes, share of that step", "%", most=0.5),
    Line("step", "step_xla", "the same with XLA", "images/s", peer="without"),
    Line(
        *("hypercolumn", "dense", "dense inference, 512 x 512, stride 2", "CPU s"),
        peer="the backbone's forward pass",
        most=1.35,
        of_ratio=True,
    ),
    Line("hypercolumn", "dense_memory", "its memory above the model", "GiB", most=2),
    Line(
        *("hypercolumn", "points", "training on 256 points, 512 x 512", "CPU s"),
        peer="the backbone's step alone",
        most=1.15,
        of_ratio=True,
    ),
    Line("gpu", "vgg_bf16", "M&M, VGG-16, 160 patches, bfloat16", "patches/s"),
    Line("gpu", "vgg_f32", "M&M, VGG-16, 160 patches, float32", "patches/s"),
    Line("gpu", "vgg_rate_bf16", "the same, bfloat16", "TFLOP/s", "a matrix product"),
    Line("gpu", "vgg_rate_f32", "the same, float32", "TFLOP/s", "a matrix product"),
    Line("gpu", "alexnet", "M&M, AlexNet, 400 patches, bfloat16", "patches/s"),
    Line("gpu", "dense_512", "dense inference, 512 x 512, bfloat16", "images/s"),
    Line("gpu", "run", "8,000 M&M iterations, VGG-16, bfloat16", "min", most=10),
)

_WIDTH = 160  # of the table in characters, where there is no terminal

GROUPS = tuple(dict.fromkeys(line.group for line in LINES))


def main(argv):
    if argv[1:]:
        sys.exit(f"Unexpected arguments: {' '.join(argv[1:])}. All options begin with --.")
    for group in FLAGS.only:
        if group not in (*GROUPS, "cost"):
            sys.exit(f"error: {config.unknown('group', group, (*GROUPS, 'cost'))}")
    if FLAGS.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow is imported
    elif "cost" in FLAGS.only:
        sys.exit("error: --only=cost measures the CPU: leave --device=gpu out.")
    console = rich.console.Console(width=None if sys.stdout.isatty() else _WIDTH)
    results = pathlib.Path(FLAGS.results) if FLAGS.results else None
    missed = []
    if FLAGS.only != ["cost"]:
        missed = against_targets(FLAGS.only or GROUPS, FLAGS.device, console, results)
    if "cost" in FLAGS.only:
        costs(console, results)
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


def against_targets(groups, device: str, console, results: pathlib.Path | None) -> list[str]:
    """Measures, prints and writes the lines; the keys of those that miss their targets."""
    started = time.monotonic()
    readings = measured(groups, device, console)
    minutes = (time.monotonic() - started) / 60
    console.print(table(readings))
    console.print(f"{machine(device)}; {minutes:.1f} minutes", highlight=False)
    if results:
        write(results, readings, device)
    return [line.key for line in LINES if is_met(line, readings[line.key]) is False]


def costs(console, results: pathlib.Path | None):
    """Measures and prints the table of costs, and writes it to cost.md."""
    from trainers.benchmarks import costs as cost_table

    text = cost_table.table(lambda line: console.print(line, markup=False, highlight=False))
    if results:
        results.mkdir(parents=True, exist_ok=True)
        (results / "cost.md").write_text(f"{machine('cpu')}\n\n{text}\n")


def measured(groups, device: str, console) -> dict[str, Reading]:
    """A reading of every line; those that were not run say why."""
    readings = {}
    for group in GROUPS:
        console.print(f"{group} ...", highlight=False)
        lines = [line.key for line in LINES if line.group == group]
        try:
            if group not in groups:
                raise NotRun("left out by --only")
            readings |= _group(group, device)
        except NotRun as error:
            readings |= {key: Reading(reason=str(error)) for key in lines}
    return readings


def _group(name, device):
    if (name == "gpu") != (device == "gpu"):
        raise NotRun(f"--device={'gpu' if name == 'gpu' else 'cpu'} measures it")
    if name == "gpu":
        from trainers.benchmarks import gpu

        gpu.names()  # raises NotRun where there is none
        return gpu.measure(gpu.Scale())
    backend = _backend()
    if backend != "tensorflow":
        raise NotRun(f"it needs TensorFlow, and KERAS_BACKEND is {backend}")
    from trainers.benchmarks import cpu

    return getattr(cpu, name)(cpu.Scale())


def table(readings: dict[str, Reading]) -> rich.table.Table:
    """What a person reads in the terminal."""
    result = rich.table.Table("line", "figure", "peer", "ratio", "target", "")
    for row in rows(readings):
        result.add_row(*row)
    return result


def rows(readings: dict[str, Reading]) -> list[tuple[str, ...]]:
    """One row of texts for each line: title, figure, peer, ratio, target, verdict."""
    return [_row(line, readings[line.key]) for line in LINES]


def _row(line, reading):
    if reading.figure is None:
        return line.title, "not run", line.peer, "", _target(line), reading.reason
    peer = f"{line.peer}: {reading.peer:.3g}" if reading.peer is not None else ""
    ratio = f"{reading.ratio:.3g}" if reading.ratio is not None else ""
    verdict = {True: "met", False: "MISSED", None: ""}[is_met(line, reading)]
    return line.title, f"{reading.figure:.3g} {line.unit}", peer, ratio, _target(line), verdict


def _target(line):
    what = "ratio " if line.of_ratio else ""
    if line.most is not None:
        return f"{what}at most {line.most:.3g}"
    return f"{what}at least {line.least:.3g}" if line.least is not None else ""


def machine(device: str) -> str:
    """Processors and versions, for beside the figures."""
    packages = [f"{name} {importlib.metadata.version(name)}" for name in ("keras", _backend())]
    processors = [f"{_processor()}, {os.cpu_count()} cores"]
    if device == "gpu":
        with contextlib.suppress(NotRun):
            from trainers.benchmarks import gpu

            processors += gpu.names()
    return f"{', '.join(processors)}; {', '.join(packages)}"


def _backend():
    import keras

    return keras.backend.backend()


def _processor():
    path = pathlib.Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write(folder: pathlib.Path, readings: dict[str, Reading], device: str):
    """Writes benchmark.json and benchmark.md."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        dataclasses.asdict(line)
        | dataclasses.asdict(readings[line.key])
        | {"ratio": readings[line.key].ratio, "is_met": is_met(line, readings[line.key])}
        | {"peer": line.peer, "peer_figure": readings[line.key].peer}
        for line in LINES
    ]
    content = {"machine": machine(device), "lines": lines}
    (folder / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n")
    header = ("line", "figure", "peer", "ratio", "target", "")
    body = [header, ("---",) * len(header), *rows(readings)]
    text = "\n".join(f"| {' | '.join(row)} |" for row in body)
    (folder / "benchmark.md").write_text(f"{machine(device)}\n\n{text}\n")


if __name__ == "__main__":
    app.run(main)
