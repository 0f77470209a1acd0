"""Measurements on a CPU, each in the same run as its peer: match, mix, training step, hypercolumns.

Times are CPU times of all threads, medians over rounds. Comparisons with PyTorch and XLA use wall
time, because their waiting threads spin and use CPU time.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import pathlib
import tempfile
import time
import types
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from trainers.benchmarks import peers
from trainers.benchmarks.timing import Measurement, NotRun, interleaved, medians, sampled

NUM_CLASSES = 21


@dataclasses.dataclass(frozen=True)
class Scale:
    """The sizes of the tasks. The targets apply to the defaults.

    Attributes:
        backbone: name of the network.
        nodes: sizes of the graphs, ascending.
        calls: calls of `class_connected` in one timed task on the smallest graph.
        image: (height, width) of the image files of mix.
        steps: two numbers of steps of 16 images. The time of mix is the difference of both.
        patches: patches of a training step.
        patch_size: side of the patches in pixels.
        crop: side of the image of the hypercolumn in pixels.
        points: points of hypercolumn training.
        rounds: number of timed rounds.
    """

    backbone: str = "vgg16"
    nodes: tuple[int, int, int] = (400, 4096, 65536)
    calls: int = 50
    image: tuple[int, int] = (375, 500)
    steps: tuple[int, int] = (4, 20)
    patches: int = 16
    patch_size: int = 128
    crop: int = 512
    points: int = 256
    rounds: int = 5


def match(scale: Scale) -> dict[str, Measurement]:
    """Time class_connected on N labels, as a graph and with XLA, and the authors' loop, in ms."""
    tasks = {}
    for nodes in scale.nodes:
        tasks[f"match_{nodes}"] = _matching(nodes, scale.calls)
        tasks[f"match_{nodes}_xla"] = _matching(nodes, scale.calls, jit_compile=True)
    labels, rng = _labels(scale.nodes[0]).tolist(), np.random.default_rng(0)
    tasks["loop"] = lambda: peers.graph_triplets(labels, rng)
    times = medians(interleaved(tasks, scale.rounds), factor=1000)
    loop = times.pop("loop")
    calls = {name: _calls(int(name.split("_")[1]), scale.calls) for name in times}
    measurements = {name: Measurement(time / calls[name]) for name, time in times.items()}
    first = f"match_{scale.nodes[0]}"
    measurements[first] = Measurement(measurements[first].figure, loop)
    return measurements


def _matching(nodes: int, calls: int, jit_compile: bool = False) -> Callable:
    """Return a function that matches `_calls` times."""
    import keras
    import tensorflow as tf

    from mm_keras import matching

    labels, seed = tf.constant(_labels(nodes)), keras.random.SeedGenerator(0)
    function = tf.function(lambda: matching.class_connected(labels, seed), jit_compile=jit_compile)

    def task():
        for _ in range(_calls(nodes, calls)):
            function()

    return task


def _calls(nodes, calls):
    """Return the number of calls: fewer on larger graphs."""
    return max(1, min(calls, 40000 // nodes))


def _labels(nodes):
    return np.random.default_rng(0).integers(0, NUM_CLASSES, nodes).astype("int32")


def mix(scale: Scale) -> dict[str, Measurement]:
    """Time two files to 10 patches, decoding alone, and the authors' algorithm, in ms per image."""
    with tempfile.TemporaryDirectory() as folder:
        files = image_files(pathlib.Path(folder), scale.image)
        timers = {
            "mix": charged(lambda steps: patches_of(files, steps), scale.steps),
            "decoding": charged(lambda steps: _decoded(files, steps), scale.steps),
            "opencv": _opencv_timer(files, scale.patch_size),
        }
        reason = ""
        try:
            timers["opencv"]()
        except NotRun as error:
            reason = str(error)
            del timers["opencv"]
        times = medians(sampled(timers, scale.rounds), factor=1000)
    by_opencv = Measurement(reason=reason)
    if "opencv" in times:
        by_opencv = Measurement(times["mix"], times["opencv"])
    return {"mix": Measurement(times["mix"], times["decoding"]), "mix_opencv": by_opencv}


def image_files(folder: pathlib.Path, size: tuple[int, int], num: int = 16):
    """Write JPEG images and PNG masks with file sizes as in VOC, 103 and 3 KB.

    Args:
        folder: an existing folder.
        size: (height, width) of the images.
        num: number of images.

    Returns:
        A record with the lists `image_files` and `label_files`.
    """
    rng = np.random.default_rng(0)
    split = types.SimpleNamespace(image_files=[], label_files=[], num_bands=3)
    for i in range(num):
        image, label = _picture(rng, *size)
        image_file, label_file = folder / f"{i}.jpg", folder / f"{i}.png"
        Image.fromarray(image).save(image_file, quality=95)
        Image.fromarray(label).save(label_file)
        split.image_files.append(str(image_file))
        split.label_files.append(str(label_file))
    return split


def _picture(rng, height, width):
    """Return an image of noise at several scales, and a mask of some objects on background."""
    image = np.zeros((height, width, 3))
    for cell, strength in ((96, 60), (24, 25), (6, 12), (1, 11)):
        coarse = rng.normal(size=(height // cell + 2, width // cell + 2, 3))
        fine = Image.fromarray(np.uint8(np.clip(128 + 40 * coarse, 0, 255)))
        fine = np.asarray(fine.resize((width, height), Image.Resampling.BICUBIC), float)
        image += strength * (fine - 128) / 40
    y, x = np.mgrid[:height, :width]
    label = np.zeros((height, width), np.uint8)
    for _ in range(3):
        center, radii = rng.random(2) * (height, width), (0.1 + 0.15 * rng.random(2)) * height
        distance = ((y - center[0]) / radii[0]) ** 2 + ((x - center[1]) / radii[1]) ** 2
        label[distance < 1.1] = 255
        label[distance < 1] = rng.integers(1, NUM_CLASSES)
    return np.uint8(np.clip(128 + image, 0, 255)), label


def patches_of(files, num_steps: int, **changes):
    """Return the batches of `num_steps` mix steps, with the paper's settings and `changes`."""
    from pipelines import batches

    sizes = {"patches_per_image": 10, "min_size": 64, "max_size": 256}
    sampling = batches.PatchSampling(background_label=0, **(sizes | changes))
    view = batches.View(crop=512, pad_color=(122, 116, 104))
    order = batches.Order(num_images=16, num_steps=num_steps, num_parallel=2)
    return batches.patches(files, sampling, view, order)


def _decoded(files, num_steps):
    import tensorflow as tf

    def decode(image_file, label_file):
        image = tf.io.decode_image(tf.io.read_file(image_file), channels=3, expand_animations=False)
        label = tf.io.decode_png(tf.io.read_file(label_file), channels=1)
        # Returning whole images would add 0.2 ms per image, which is not decoding.
        return image[0, 0, 0], label[0, 0, 0]

    pairs = tf.data.Dataset.from_tensor_slices((files.image_files, files.label_files)).repeat()
    return pairs.take(16 * num_steps).map(decode, num_parallel_calls=2).batch(16).prefetch(2)


def charged(dataset: Callable, steps: tuple[int, int]) -> Callable[[], float]:
    """Return a timer of CPU seconds per image.

    It subtracts a short run from a long run. The time to build the pipeline cancels out.

    Args:
        dataset: function(number of steps) -> data set of so many steps of 16 images.
        steps: numbers of steps of the short and of the long run.
    """
    few, many = (dataset(count) for count in steps)

    def seconds():
        return (_consume(many) - _consume(few)) / (16 * (steps[1] - steps[0]))

    return seconds


def _consume(dataset) -> float:
    start = time.process_time()
    for _ in dataset:
        pass
    return time.process_time() - start


def _opencv_timer(files, patch_size):
    rng = np.random.default_rng(0)

    def seconds():
        start = time.process_time()
        for pair in zip(files.image_files, files.label_files, strict=True):
            peers.opencv_patches(*pair, rng, 10, (64, 256), 512, patch_size)
        return (time.process_time() - start) / len(files.image_files)

    return seconds


def step(scale: Scale) -> dict[str, Measurement]:
    """Time the training step of M&M, its backbone alone, the step with XLA, and PyTorch."""
    model, batch = tuning(scale.backbone, scale.patches, scale.patch_size)
    mm = compiled(lambda: model.train_step(batch))
    alone = {"mm": mm, "bare": compiled(_bare_step(model, batch["patches"]))}
    seconds = medians(interleaved(alone | {"match": _matching(400, calls=1)}, scale.rounds))
    rivals = {"mm": mm, "xla": compiled(lambda: model.train_step(batch), jit_compile=True)}
    reason = ""
    try:
        rivals["torch"] = peers.torch_step(_blocks(model.backbone), scale.patches, scale.patch_size)
    except NotRun as error:
        reason = str(error)
    times = medians(interleaved(rivals, scale.rounds, clock=time.perf_counter))
    rates = {name: scale.patches / clock_time for name, clock_time in times.items()}
    by_torch = Measurement(reason=reason)
    if "torch" in rates:
        by_torch = Measurement(rates["mm"], rates["torch"])
    return {
        "match_share": Measurement(100 * seconds["match"] / seconds["mm"]),
        "step": Measurement(seconds["mm"], seconds["bare"]),
        "step_torch": by_torch,
        "step_xla": Measurement(rates["xla"], rates["mm"]),
    }


def tuning(backbone: str, num_patches: int, patch_size: int, width: float = 1.0):
    """Return a compiled MixAndMatch with a built optimizer, and a batch of noise.

    Args:
        backbone: name of the network.
        num_patches: patches of the batch.
        patch_size: side of the patches in pixels.
        width: factor of the number of channels.
    """
    import keras

    import mm_keras

    keras.utils.set_random_seed(0)
    model = mm_keras.MixAndMatch(mm_keras.backbones.build(backbone, width=width))
    model.compile(optimizer=mm_keras.optimizers.CoupledSGD(1e-3), jit_compile=_jit())
    model.optimizer.build(model.trainable_variables)
    return model, noise_batch(num_patches, patch_size)


def _jit():
    """Return `jit_compile` for Keras: true on JAX. On TensorFlow this module compiles the steps."""
    import keras

    return keras.backend.backend() == "jax"


def noise_batch(num_patches: int, patch_size: int) -> dict[str, np.ndarray]:
    """Return random patches and labels in the form of `pipelines.batches.patches`."""
    shape = (num_patches, patch_size, patch_size, 3)
    patches = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
    return {"patches": patches, "labels": _labels(num_patches)}


def _bare_step(model, patches):
    """Return a training step of the backbone alone; the loss is the mean of its embedding map."""
    import tensorflow as tf

    backbone, optimizer = model.backbone, model.optimizer

    def step():
        with tf.GradientTape() as tape:
            outputs = backbone(patches, training=True)
            loss = tf.reduce_mean(outputs[backbone.spec.embedding.name])
        variables = backbone.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)

    return step


def _blocks(backbone):
    """Return the channels of the backbone's convolutions, block by block."""
    strides = sorted({tap.stride for tap in backbone.spec.taps})
    convolutions = [tap for tap in backbone.spec.taps if tap.name != "input"]
    return tuple(
        tuple(tap.channels for tap in convolutions if tap.stride == stride) for stride in strides
    )


def compiled(body: Callable, jit_compile: bool = False) -> Callable:
    """Return `body` as a TensorFlow function."""
    import tensorflow as tf

    return tf.function(body, jit_compile=jit_compile, autograph=False)


def hypercolumn(scale: Scale) -> dict[str, Measurement]:
    """Time dense inference and training on points, and measure the memory of dense inference.

    The peer of both is the backbone alone with fc6, fc7 and the added blocks.
    """
    model, batch = fine_tuning(scale.backbone, 1, scale.crop, scale.points)
    images = batch["image"]
    tasks = {
        "dense": compiled(lambda: model(images, training=False)),
        "forward": compiled(lambda: model.feature_maps(images, training=False)),
        "points": compiled(lambda: model.train_step(batch)),
        "bare": compiled(_bare_context_step(model, images)),
    }
    times = medians(interleaved(tasks, scale.rounds))
    peak_bytes = alone(dense_cost, scale.backbone, scale.crop).peak_bytes
    return {
        "dense": Measurement(times["dense"], times["forward"]),
        "dense_memory": Measurement(peak_bytes / 2**30),
        "points": Measurement(times["points"], times["bare"]),
    }


def fine_tuning(backbone: str, num_images: int, crop: int, points: int, width: float = 1.0):
    """Return a compiled hypercolumn segmenter with a built optimizer, and a batch of noise.

    Args:
        backbone: name of the network.
        num_images: images of the batch.
        crop: side of the images in pixels.
        points: points per image and step.
        width: factor of the number of channels.
    """
    import keras

    import mm_keras

    keras.utils.set_random_seed(0)
    body = mm_keras.backbones.build(backbone, width=width)
    model = mm_keras.HypercolumnSegmenter(body, NUM_CLASSES, num_points=points)
    model.compile(optimizer=mm_keras.optimizers.CoupledSGD(1e-3), jit_compile=_jit())
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, crop, crop, 3)).astype("uint8")
    labels = rng.integers(0, NUM_CLASSES, (num_images, crop, crop)).astype("uint8")
    return model, {"image": images, "label": labels}


def _bare_context_step(model, images):
    """Return a training step of the backbone with fc6, fc7 and the added blocks."""
    import tensorflow as tf

    import mm_keras

    variables = [*model.backbone.trainable_variables, *model.context.trainable_variables]
    optimizer = mm_keras.optimizers.CoupledSGD(1e-3)
    optimizer.build(variables)

    def step():
        with tf.GradientTape() as tape:
            maps = model.feature_maps(images, training=True)
            loss = tf.reduce_mean(maps["pool_add2"])
        optimizer.apply(tape.gradient(loss, variables), variables)

    return step


class Cost(NamedTuple):
    """The cost of one call.

    Attributes:
        seconds: CPU seconds.
        peak_bytes: peak memory of the process above its memory with the loaded model.
    """

    seconds: float
    peak_bytes: int


def alone(function: Callable, *arguments):
    """Call a function of a module in a new process, whose memory holds nothing else.

    Args:
        function: a function at the top level of a module.
        *arguments: its arguments; they can be pickled.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(function, *arguments).result()


def dense_cost(backbone: str, crop: int, width: float = 1.0) -> Cost:
    """Return the cost of dense inference on one image."""
    model, batch = fine_tuning(backbone, 1, crop, 1, width)
    return _cost(lambda: model(batch["image"], training=False))


def tuning_cost(backbone: str, num_patches: int, patch_size: int, width: float) -> Cost:
    """Return the cost of an M&M step."""
    model, batch = tuning(backbone, num_patches, patch_size, width)
    return _cost(lambda: model.train_step(batch))


def fine_tuning_cost(backbone: str, num_images: int, crop: int, width: float) -> Cost:
    """Return the cost of a fine-tuning step on 256 points per image."""
    model, batch = fine_tuning(backbone, num_images, crop, 256, width)
    return _cost(lambda: model.train_step(batch))


def _cost(body):
    from trainers.runs import memory

    function = compiled(body)
    memory.reset_peak()
    before = memory.peak_bytes()
    samples = interleaved({"call": function}, rounds=3)
    return Cost(medians(samples)["call"], memory.peak_bytes() - before)
