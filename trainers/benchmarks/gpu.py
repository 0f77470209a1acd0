"""Measurements on a GPU with TensorFlow or JAX: M&M steps, dense inference, matrix products.

KERAS_BACKEND selects the backend. The matrix products are the peer of the M&M steps. Times are wall
times.
"""

import dataclasses
import math
import time
from collections.abc import Callable

import keras
import numpy as np

from trainers.benchmarks import cpu
from trainers.benchmarks.timing import Measurement, NotRun, medians, sampled


@dataclasses.dataclass(frozen=True)
class Scale:
    """The sizes of the tasks. The defaults are the paper's sizes.

    Attributes:
        vgg: (backbone, patches of a step).
        alexnet: (backbone, patches of a step).
        patch_size: side of the patches in pixels.
        crop: side of the image of dense inference in pixels.
        matrix: side of the square matrices whose product gives the peak rate.
        steps: two numbers of steps; the difference of both is timed.
        iterations: steps of the run whose duration is reported.
        rounds: number of timed rounds.
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
"""{end of the keys of the lines: precision policy}."""


def names() -> list[str]:
    """Return the names of the GPUs.

    Raises:
        NotRun: the backend sees no GPU.
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
        raise NotRun(f"needs tensorflow or jax, and KERAS_BACKEND is {backend}")
    if not found:
        raise NotRun(f"no GPU is visible to {backend}")
    return found


def measure(scale: Scale) -> dict[str, Measurement]:
    """Measure all lines of the group, on any device.

    Returns:
        {key of the line: measurement}.
    """
    measurements = {}
    for name, precision in PRECISIONS.items():
        keras.mixed_precision.set_global_policy(precision)
        try:
            peak = matrix_rate(scale, "bfloat16" if name == "bf16" else "float32")
            flops, seconds = step_cost(*scale.vgg, scale)
            measurements[f"vgg_{name}"] = Measurement(scale.vgg[1] / seconds)
            measurements[f"vgg_rate_{name}"] = Measurement(flops / seconds / 1e12, peak / 1e12)
            if name == "bf16":
                measurements["run"] = Measurement(scale.iterations * seconds / 60)
                _, alexnet = step_cost(*scale.alexnet, scale)
                measurements["alexnet"] = Measurement(scale.alexnet[1] / alexnet)
                measurements["dense_512"] = Measurement(1 / dense_seconds(scale))
        finally:
            keras.mixed_precision.set_global_policy("float32")
    return measurements


def matrix_rate(scale: Scale, dtype: str) -> float:
    """Return the floating-point operations per second of a product of square matrices."""
    rng = np.random.default_rng(0)
    # With this deviation, products have the same deviation. Infinite numbers would be multiplied
    # faster.
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
    """Return the floating-point operations and the seconds of one M&M step."""
    model, batch = cpu.tuning(backbone, num_patches, scale.patch_size)
    flops = 3 * 2 * num_patches * multiply_adds(model.backbone, scale.patch_size)
    return flops, _seconds_per_step(_trainer(model, batch), scale)


def multiply_adds(backbone: keras.Model, side: int) -> int:
    """Return the multiply-adds of the convolutions in a forward pass of one square image."""
    strides = {tap.name: tap.stride for tap in backbone.spec.taps}
    return sum(
        math.prod(layer.kernel.shape) * math.ceil(side / strides[layer.name]) ** 2
        for layer in backbone.layers
        if layer.name in strides and hasattr(layer, "kernel")
    )


def dense_seconds(scale: Scale) -> float:
    """Return the seconds of dense inference on one image."""
    model, batch = cpu.fine_tuning(scale.vgg[0], 1, scale.crop, points=1)
    predict = _inference(model)

    def run(num):
        for _ in range(num):
            logits = predict(batch["image"])
        keras.ops.convert_to_numpy(logits)

    return _seconds_per_step(run, scale)


def _seconds_per_step(run: Callable[[int], None], scale: Scale) -> float:
    """Return the seconds per step of `run(number of steps)`; the cost of the call cancels out."""

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
    """Return a function that trains for a number of steps on the same batch."""
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
    """One batch, repeated `num` times."""

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
