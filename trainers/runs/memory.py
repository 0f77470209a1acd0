"""The peak of memory, of the GPUs or of the process."""

import contextlib
import pathlib
import resource

import tensorflow as tf


def reset_peak() -> None:
    """Start a new peak of resident memory; outside of Linux the old peak stays."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    for device in tf.config.list_logical_devices("GPU"):
        tf.config.experimental.reset_memory_stats(device.name)


def peak_bytes() -> int:
    """Return the peak memory since `reset_peak`: of the GPUs, or of the process without GPUs."""
    devices = tf.config.list_logical_devices("GPU")
    if devices:
        return sum(
            tf.config.experimental.get_memory_info(device.name)["peak"] for device in devices
        )
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
