"""The replicas of a run: one device, all devices of this machine, or several workers."""

import contextlib
import os
from collections.abc import Callable, Sequence

import keras
import rich.console
import tensorflow as tf

from pipelines.batches import order
from trainers import config
from trainers.devices import cluster as clusters

# Replica r adds r times this odd number to its seeds, so that all replicas have different seeds.
_SEED_STRIDE = 0x9E3779B1


class StrategyError(config.UserError):
    """The devices cannot train together."""


class Replicas:
    """The copies of the model that train together, each on its share of the images of a step.

    Args:
        strategy: TensorFlow's strategy; None for a single device.
        cluster: the workers of several machines; None for this machine.
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
        """Whether this process writes the files of the run."""
        return self.cluster is None or self.cluster.index == 0

    @property
    def shares(self) -> list[order.Share]:
        """The shares of the replicas of this process."""
        num_own = self.count // (len(self.cluster.workers) if self.cluster else 1)
        first = self.cluster.index * num_own if self.cluster else 0
        return [order.Share(k, self.count) for k in range(first, first + num_own)]

    def scope(self):
        """Return the context in which models and optimizers are built."""
        return self.strategy.scope() if self.count > 1 else contextlib.nullcontext()

    def distributed(self, elements: Sequence):
        """Return the argument of `run`, made of one element for each of `shares`."""
        if self.count == 1:
            return elements[0]
        first = self.shares[0].index
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: elements[context.replica_id_in_sync_group - first]
        )

    def run(self, function: Callable, element):
        """Call `function` on each replica with its part of the result of `distributed`."""
        return self.strategy.run(function, args=(element,))

    def separate_seeds(
        self, variables: Sequence[keras.Variable], shared: Sequence[keras.Variable] = ()
    ):
        """Give each replica different random numbers, except for the generators in `shared`.

        The replicas start with equal states of their random generators. Call this after the first
        replica's state was copied to all replicas. This is so at the start, and after a checkpoint
        was restored: a checkpoint holds only the state of the first replica.

        Args:
            variables: variables of the model, with the states of its random generators.
            shared: states that stay equal on all replicas.
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
        """Return when every worker has called this method."""
        self.every_worker(0)

    def every_worker(self, number: int) -> list[int]:
        """Return the numbers that all workers called this method with, in the order of the workers.

        Raises:
            StrategyError: a worker was lost.
        """
        if self.cluster is None:
            return [number]
        slots = tf.one_hot(
            self.cluster.index, len(self.cluster.workers), int(number), 0, dtype=tf.int64
        )
        elements = [slots, *(tf.zeros_like(slots) for _ in self.shares[1:])]
        with self.lost_workers_reported():
            total = self.strategy.reduce("SUM", self.distributed(elements), axis=None)
        return total.numpy().tolist()

    @contextlib.contextmanager
    def lost_workers_reported(self):
        """Replace TensorFlow's errors of a lost worker by an error that names the fix.

        Raises:
            StrategyError: a worker was lost.
        """
        try:
            yield
        except _LOST as error:
            if self.cluster is None:
                raise
            raise StrategyError(
                "Another worker of TF_CONFIG was lost or has stopped. Start the same command again "
                "on every worker. It continues at the last checkpoint."
            ) from error


_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


def create(experiment: config.Experiment, console: rich.console.Console) -> Replicas:
    """Return the replicas that `experiment.strategy` selects.

    For several workers, call this before any other use of TensorFlow.

    Args:
        experiment: the settings.
        console: prints the devices.

    Raises:
        ClusterError: TF_CONFIG cannot be used, or a worker does not answer.
        ConfigError: a step cannot be divided among the replicas, or a GPU does not support the
            precision.
    """
    text = os.environ.get("TF_CONFIG")
    _check_precision(experiment.precision, console)
    if experiment.strategy == "multi_worker":
        replicas = _of_workers(clusters.read(text), experiment.timeout)
    else:
        if text:
            console.print(
                f"TF_CONFIG is set, but strategy={experiment.strategy} ignores it and trains on "
                "this machine alone. strategy=multi_worker uses it.",
                highlight=False,
            )
        replicas = _of_this_machine() if experiment.strategy == "mirrored" else Replicas()
    if experiment.strategy != "none":
        console.print(_described(replicas), highlight=False)
    check(experiment, replicas.count)
    return replicas


def _check_precision(precision, console):
    gpus = tf.config.list_physical_devices("GPU")
    if precision != "float32" and not gpus:
        console.print(f"precision {precision} is slower than float32 on a CPU", highlight=False)
    for gpu in gpus if precision == "mixed_bfloat16" else ():
        details = tf.config.experimental.get_device_details(gpu)
        if details.get("compute_capability", (8, 0)) < (8, 0):
            raise config.ConfigError(
                f"precision=mixed_bfloat16 needs a GPU of compute capability 8.0 (Ampere) or "
                f"later. {details.get('device_name', gpu.name)} has "
                f"{'.'.join(map(str, details['compute_capability']))}. Set precision=mixed_float16."
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


def _described(replicas) -> str:
    if replicas.count == 1:
        return "strategy: there is a single device, as with strategy=none"
    device = replicas.strategy.extended.worker_devices[0]
    kind = tf.DeviceSpec.from_string(device).device_type
    cluster = replicas.cluster
    where = f", {len(cluster.workers)} workers; this is worker {cluster.index}" if cluster else ""
    return f"strategy: {replicas.count} replicas ({kind}{where}) share the images of each step"


def check(experiment: config.Experiment, num_replicas: int):
    """Raise an error if a step cannot be divided among the replicas, or its patches into chunks.

    Args:
        experiment: the settings.
        num_replicas: number of replicas.

    Raises:
        ConfigError: names the setting, and both numbers.
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
