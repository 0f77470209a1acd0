"""What the benchmark measures on a GPU, on TensorFlow or JAX (KERAS_BACKEND): M&M steps, dense
inference, and the matrix products that they are held against. Times are by the clock.
"""

import dataclasses
import math
import time
from collections.abc import Callable

import keras
import numpy as np

from trainers.benchmarks import cpu
from trainers.benchmarks.timing import NotRun, Reading, medians, sampled


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large everything is; the defaults are the paper's.

    vgg, alexnet: (backbone, patches of a step).
    patch_size: side of the patches in pixels.
    crop: side of the image of dense inference.
    matrix: side of the matrices whose product is the peak.
    steps: numbers of steps whose difference is timed.
    iterations: of the run whose time is told.
    rounds: how often each is timed.
    """

    vgg: tuple[str, int] = ("vgg16", 160)
    alexnet: tuple[str, int] = ("alexnet", 400)
    patch_size: int = 128
    crop: int = 512
    matrix: int = 8192
    steps: tuple[int, int] = (5, 25)
    iterations: int = 8000
    rounds: int = 5


PRECISIONS = {"bf16": "mixed_bfloat16", "f32": "float32"}


def names() -> list[str]:
    """What the GPUs call themselves.

    Raises:
        NotRun: the backend sees none.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        details = map(tf.config.experimental.get_device_details, gpus)
        found = [detail.get("device_name", "an unnamed GPU") for detail in details]
    elif backend == "jax":
        import jax

        found = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    else:
        raise NotRun(f"KERAS_BACKEND={backend}: only tensorflow and jax are measured")
    if not found:
        raise NotRun(f"no GPU is visible to {backend}")
    return found


def measure(scale: Scale) -> dict[str, Reading]:
    """All lines of the group, whatever device there is."""
    readings = {}
    for name, precision in PRECISIONS.items():
        keras.mixed_precision.set_global_policy(precision)
        try:
            peak = matrix_rate(scale, "bfloat16" if name == "bf16" else "float32")
            flops, seconds = step_cost(*scale.vgg, scale)
            readings[f"vgg_{name}"] = Reading(scale.vgg[1] / seconds)
            readings[f"vgg_rate_{name}"] = Reading(flops / seconds / 1e12, peak / 1e12)
            if name == "bf16":
                readings["run"] = Reading(scale.iterations * seconds / 60)
                _, alexnet = step_cost(*scale.alexnet, scale)
                readings["alexnet"] = Reading(scale.alexnet[1] / alexnet)
                readings["dense_512"] = Reading(1 / dense_seconds(scale))
        finally:
            keras.mixed_precision.set_global_policy("float32")
    return readings


def matrix_rate(scale: Scale, dtype: str) -> float:
    """Floating-point operations per second of a product of square matrices."""
    rng = np.random.default_rng(0)
    # Of this deviation, products keep theirs: numbers that overflow would be cheaper to multiply.
    size, deviation = (scale.matrix, scale.matrix), scale.matrix**-0.5
    a, b = (keras.ops.convert_to_tensor(rng.normal(0, deviation, size), dtype) for _ in range(2))
    product = _compiled(keras.ops.matmul)

    def run(num):
        x = a
        for _ in range(num):
            x = product(x, b)
        np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x[0, 0], "float32")))

    return 2 * scale.matrix**3 / _seconds_per_step(run, scale)


def step_cost(backbone: str, num_patches: int, scale: Scale) -> tuple[float, float]:
    """Floating-point operations and seconds of one M&M step."""
    model, batch = cpu.tuning(backbone, num_patches, scale.patch_size)
    flops = 3 * 2 * num_patches * multiply_adds(model.backbone, scale.patch_size)
    return flops, _seconds_per_step(_trainer(model, batch), scale)


def multiply_adds(backbone: keras.Model, side: int) -> int:
    """Multiply-adds of the convolutions in a forward pass of one square image."""
    strides = {tap.name: tap.stride for tap in backbone.spec.taps}
    return sum(
        math.prod(layer.kernel.shape) * math.ceil(side / strides[layer.name]) ** 2
        for layer in backbone.layers
        if layer.name in strides and hasattr(layer, "kernel")
    )


def dense_seconds(scale: Scale) -> float:
    """Seconds of dense inference on one image."""
    model, batch = cpu.fine_tuning(scale.vgg[0], 1, scale.crop, points=1)
    predict = _inference(model)

    def run(num):
        for _ in range(num):
            logits = predict(batch["image"])
        keras.ops.convert_to_numpy(logits)

    return _seconds_per_step(run, scale)


def _seconds_per_step(run: Callable[[int], None], scale: Scale) -> float:
    """Of `run(number of steps)`, which returns when they are done; what a call costs by itself
    drops out.
    """

    def seconds():
        times = []
        for num in scale.steps:
            start = time.perf_counter()
            run(num)
            times.append(time.perf_counter() - start)
        return (times[1] - times[0]) / (scale.steps[1] - scale.steps[0])

    run(2)
    return medians(sampled({"run": seconds}, scale.rounds))["run"]


def _trainer(model, batch) -> Callable[[int], None]:
    """A function that trains for a number of steps on the same batch."""
    if keras.backend.backend() == "jax":
        return lambda num: model.fit(_Repeated(batch, num), verbose=0)
    import tensorflow as tf

    batch = {key: tf.constant(value) for key, value in batch.items()}
    step = tf.function(lambda: model.train_step(batch), jit_compile=True)

    def run(num):
        for _ in range(num):
            metrics = step()
        metrics["loss"].numpy()

    return run


class _Repeated(keras.utils.PyDataset):
    """One batch, some number of times."""

    def __init__(self, batch, num):
        super().__init__()
        self.batch, self.num = (batch["patches"], batch["labels"]), num

    def __len__(self):
        return self.num

    def __getitem__(self, index):
        return self.batch


def _inference(model) -> Callable:
    if keras.backend.backend() == "jax":
        return model.predict_on_batch
    import tensorflow as tf

    return tf.function(lambda images: model(images, training=False))


def _compiled(function: Callable) -> Callable:
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=True)
