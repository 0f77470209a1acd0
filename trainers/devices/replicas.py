"""The devices of a run: one, all of this machine, or those of several workers (tf.distribute)."""

import contextlib
import os
from collections.abc import Callable, Sequence

import keras
import rich.console
import tensorflow as tf

from pipelines.batches import order
from trainers import config
from trainers.devices import cluster as clusters

# Added to the seeds of replica r: r times an odd number, so that no two replicas share one.
_SEED_STRIDE = 0x9E3779B1


class StrategyError(config.UserError):
    """The devices cannot work together."""


class Replicas:
    """The copies of the model that train together, each on its share of every step's images.

    Args:
        strategy: by default that of a single device.
        cluster: the workers, for those of several machines.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy | None = None,
        cluster: clusters.Cluster | None = None,
    ):
        self.strategy = strategy or tf.distribute.get_strategy()
        self.cluster = cluster
        self.count = self.strategy.num_replicas_in_sync

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the run leaves."""
        return self.cluster is None or self.cluster.index == 0

    @property
    def shares(self) -> list[order.Share]:
        """Those of this process's own replicas."""
        num_own = self.count // (len(self.cluster.workers) if self.cluster else 1)
        first = self.cluster.index * num_own if self.cluster else 0
        return [order.Share(k, self.count) for k in range(first, first + num_own)]

    def scope(self):
        """Models, optimizers and their variables are built under it."""
        return self.strategy.scope() if self.count > 1 else contextlib.nullcontext()

    def distributed(self, elements: Sequence):
        """Joins one element for each of `shares` to what `run` takes."""
        if self.count == 1:
            return elements[0]
        first = self.shares[0].index
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: elements[context.replica_id_in_sync_group - first]
        )

    def run(self, function: Callable, element):
        """Calls `function` on each replica with its own part of what `distributed` returned."""
        return self.strategy.run(function, args=(element,))

    def part_ways(self, variables: Sequence[keras.Variable], shared: Sequence[keras.Variable] = ()):
        """Gives each replica random numbers of its own, but for the generators in `shared`.

        Replicas start with equal states of their random generators and advance them on their own.
        Call it once all have the first replica's state: at the start, or when a checkpoint, which
        holds that state alone, was restored.
        """
        shared = {variable.path for variable in shared}
        for variable in variables if self.count > 1 else ():
            if variable.name == "seed_generator_state" and variable.path not in shared:
                copies = self.strategy.experimental_local_results(variable.value)
                seed, counter = (int(number) for number in copies[0].numpy())
                for share, copy in zip(self.shares, copies, strict=True):
                    own = (seed + share.index * _SEED_STRIDE) % 2**32
                    copy.assign(tf.constant([own, counter], copy.dtype))

    def barrier(self):
        """Returns once every worker got here."""
        self.every_worker(0)

    def every_worker(self, number: int) -> list[int]:
        """What each worker called this with, in their order.

        Raises:
            StrategyError: a worker was lost.
        """
        if self.cluster is None:
            return [number]
        slots = tf.one_hot(
            self.cluster.index, len(self.cluster.workers), int(number), 0, dtype=tf.int64
        )
        elements = [slots, *(tf.zeros_like(slots) for _ in self.shares[1:])]
        with self.told_when_lost():
            total = self.strategy.reduce("SUM", self.distributed(elements), axis=None)
        return total.numpy().tolist()

    @contextlib.contextmanager
    def told_when_lost(self):
        """Turns TensorFlow's errors of a lost worker into one that says what to do.

        Raises:
            StrategyError: instead of them.
        """
        try:
            yield
        except _LOST as error:
            if self.cluster is None:
                raise
            raise StrategyError(
                "Another worker of TF_CONFIG was lost or has stopped. Start the same command again "
                "on every worker; it continues at the last checkpoint."
            ) from error


_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


def create(experiment: config.Experiment, console: rich.console.Console) -> Replicas:
    """The devices that `experiment.strategy` asks for. For several workers, call it before
    TensorFlow does anything else.

    Raises:
        ClusterError: TF_CONFIG cannot be used, or a worker does not answer.
        ConfigError: a step cannot be divided among so many replicas, or a GPU is too old for the
            precision.
    """
    text = os.environ.get("TF_CONFIG")
    _check_precision(experiment.precision, console)
    if experiment.strategy == "multi_worker":
        replicas = _of_workers(clusters.read(text), experiment.timeout)
    else:
        if text:
            console.print(
                f"TF_CONFIG is set, but not used: --strategy={experiment.strategy} trains on this "
                "machine alone; --strategy=multi_worker reads it.",
                highlight=False,
            )
        replicas = _of_this_machine() if experiment.strategy == "mirrored" else Replicas()
    if experiment.strategy != "none":
        console.print(_told(replicas), highlight=False)
    check(experiment, replicas.count)
    return replicas


def _check_precision(precision, console):
    gpus = tf.config.list_physical_devices("GPU")
    if precision != "float32" and not gpus:
        console.print(f"precision {precision}: on a CPU it is slower than float32", highlight=False)
    for gpu in gpus if precision == "mixed_bfloat16" else ():
        details = tf.config.experimental.get_device_details(gpu)
        if details.get("compute_capability", (8, 0)) < (8, 0):
            raise config.ConfigError(
                f"--precision=mixed_bfloat16 needs GPUs of compute capability 8.0 (Ampere) on; "
                f"{details.get('device_name', gpu.name)} has "
                f"{'.'.join(map(str, details['compute_capability']))}. Use mixed_float16."
            )


def _of_this_machine() -> Replicas:
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return Replicas()
    return Replicas(tf.distribute.MirroredStrategy([device.name for device in devices]))


def _of_workers(cluster: clusters.Cluster, timeout: float) -> Replicas:
    if len(cluster.workers) == 1:
        return _of_this_machine()
    clusters.await_peers(cluster, timeout)
    return Replicas(tf.distribute.MultiWorkerMirroredStrategy(), cluster)


def _told(replicas) -> str:
    if replicas.count == 1:
        return "strategy: there is a single device, so this is the same as --strategy=none"
    device = replicas.strategy.extended.worker_devices[0]
    kind = tf.DeviceSpec.from_string(device).device_type
    cluster = replicas.cluster
    where = f", {len(cluster.workers)} workers; this is worker {cluster.index}" if cluster else ""
    return f"strategy: {replicas.count} replicas ({kind}{where}) share the images of each step"


def check(experiment: config.Experiment, num_replicas: int):
    """Refuses steps that cannot be divided among the replicas, and their patches into chunks.

    Raises:
        ConfigError: names both numbers.
    """
    task = config.proxy_task(experiment)
    for stage in filter(None, (task, "mm", "segment")):
        num_images = getattr(experiment, stage).num_images
        if num_images % num_replicas:
            raise config.ConfigError(
                f"{stage}.num_images, the images of a step, must be a multiple of the number of "
                f"replicas. Received {num_images} for {num_replicas} replicas."
            )
    settings = experiment.mm
    num_patches = settings.num_images // num_replicas * settings.patches_per_image
    if settings.chunk is not None and num_patches % settings.chunk:
        raise config.ConfigError(
            f"mm.chunk must divide the patches of a step on each replica. Received mm.chunk="
            f"{settings.chunk} for {num_patches} patches (mm.num_images={settings.num_images} x "
            f"mm.patches_per_image={settings.patches_per_image}"
            f"{f' on {num_replicas} replicas' if num_replicas > 1 else ''})."
        )
