"""The measurement of all groups of the benchmark, with a reason for each group that cannot run."""

from collections.abc import Callable, Iterable

import keras

from trainers.benchmarks import cpu, gpu, patch_losses
from trainers.benchmarks.targets import GROUPS, LINES
from trainers.benchmarks.timing import NOT_REQUESTED, Measurement, NotRun


def measure(
    groups: Iterable[str], device: str, log: Callable[[str], None] = print
) -> dict[str, Measurement]:
    """Measure some groups of lines.

    Args:
        groups: names out of `GROUPS`.
        device: "cpu" or "gpu".
        log: function that is called with each line of progress.

    Returns:
        {key of the line: measurement} for every line. The measurement of a line that did not run
        holds the reason.
    """
    groups, measurements = list(groups), {}
    for group in GROUPS:
        try:
            if group not in groups:
                raise NotRun(NOT_REQUESTED)
            log(f"{group} ...")
            measurements |= _measure_group(group, device)
        except NotRun as error:
            keys = [line.key for line in LINES if line.group == group]
            measurements |= {key: Measurement(reason=str(error)) for key in keys}
    return measurements


def _measure_group(name, device):
    needed = "gpu" if name == "gpu" else "cpu"
    if device != needed:
        raise NotRun(f"needs device {needed}")
    if name == "gpu":
        gpu.names()  # raises NotRun where there is no GPU
        return gpu.measure(gpu.Scale())
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise NotRun(f"needs TensorFlow, and KERAS_BACKEND is {backend}")
    functions = {
        "match": cpu.match,
        "mix": cpu.mix,
        "step": cpu.step,
        "hypercolumn": cpu.hypercolumn,
        "losses": patch_losses.measure,
    }
    return functions[name](cpu.Scale())
