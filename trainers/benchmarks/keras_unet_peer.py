"""Train a plain U-Net, as tutorials of Keras build it, for some CPU seconds; in its own process.

python -m trainers.benchmarks.keras_unet_peer TASK.json RESULT.json

Images keep their full resolution. The recipe is Adam with rate 1e-3 and half a cosine, crops that
are turned by quarters and mirrored, from random weights.
"""

import json
import math
import pathlib
import sys
import time

import keras
import numpy as np
import PIL.Image
from keras import layers, ops

from mm_keras import metrics

CROP, BATCH, RATE, VOID = 256, 2, 1e-3, 255
CHANNELS = (16, 32, 64, 128)
WARM_UP_STEPS, TIMED_STEPS = 3, 12


def network(num_classes: int) -> keras.Model:
    """Return a U-Net of four levels for images of any size that 8 divides.

    Args:
        num_classes: channels of the result, which are logits.
    """

    def block(x, channels):
        for _ in range(2):
            x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        return x

    image = layers.Input((None, None, 3))
    x, skips = layers.Rescaling(1 / 255)(image), []
    for channels in CHANNELS[:-1]:
        skips.append(block(x, channels))
        x = layers.MaxPooling2D()(skips[-1])
    x = block(x, CHANNELS[-1])
    for channels, skip in zip(CHANNELS[-2::-1], skips[::-1], strict=True):
        x = layers.Conv2DTranspose(channels, 2, 2)(x)
        x = block(layers.Concatenate()([x, skip]), channels)
    return keras.Model(image, layers.Conv2D(num_classes, 1)(x))


def loss(labels, logits):
    """Return the mean cross-entropy over the pixels that are not void."""
    is_valid = ops.not_equal(labels, VOID)
    classes = ops.where(is_valid, labels, 0)
    values = keras.losses.sparse_categorical_crossentropy(classes, logits, from_logits=True)
    weights = ops.cast(is_valid, values.dtype)
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), 1)


def main(task_file: str, result_file: str) -> None:
    """Train and score the network.

    Args:
        task_file: JSON with train and eval (lists of [image file, label file]), num_classes,
            cpu_seconds and seed.
        result_file: JSON to write, with steps, cpu_seconds and the confusion matrix.
    """
    task = json.loads(pathlib.Path(task_file).read_text(encoding="utf-8"))
    keras.utils.set_random_seed(task["seed"])
    rng = np.random.default_rng(task["seed"])
    images = [_read(*pair) for pair in task["train"]]
    started = time.process_time()
    model = network(task["num_classes"])
    model.compile(keras.optimizers.Adam(RATE), loss)
    num_steps = _train(model, images, task["cpu_seconds"], rng, started)
    seconds = time.process_time() - started
    matrix = _confusion(model, task)
    result = {"steps": num_steps, "cpu_seconds": seconds, "confusion": matrix.tolist()}
    pathlib.Path(result_file).write_text(json.dumps(result), encoding="utf-8")


def _read(image_file, label_file):
    image = np.asarray(PIL.Image.open(image_file).convert("RGB"))
    return image, np.asarray(PIL.Image.open(label_file))


def _train(model, images, cpu_seconds, rng, started) -> int:
    """Train until the budget is used. The first steps are timed to plan the schedule."""
    num_steps, step = None, 0
    while num_steps is None or step < num_steps:
        done = 0.0 if num_steps is None else step / num_steps
        model.optimizer.learning_rate = RATE * 0.5 * (1 + math.cos(math.pi * done))
        crops = [_crop(*images[k], rng) for k in rng.integers(len(images), size=BATCH)]
        model.train_on_batch(*(np.stack(part) for part in zip(*crops, strict=True)))
        step += 1
        if step == WARM_UP_STEPS:
            timed = time.process_time()
        if step == WARM_UP_STEPS + TIMED_STEPS:
            cost = (time.process_time() - timed) / TIMED_STEPS
            left = cpu_seconds - (time.process_time() - started)
            num_steps = step + max(1, int(left / cost))
    return step


def _crop(image, label, rng):
    """Return a random crop, turned by quarters and mirrored; small images are padded with void."""
    missing = [(0, max(0, CROP - side)) for side in label.shape]
    image = np.pad(image, [*missing, (0, 0)])
    label = np.pad(label, missing, constant_values=VOID)
    y, x = (rng.integers(side - CROP + 1) for side in label.shape)
    turns, is_mirrored = rng.integers(4), rng.integers(2)

    def turned(pixels):
        pixels = np.rot90(pixels[y : y + CROP, x : x + CROP], turns)
        return pixels[:, ::-1] if is_mirrored else pixels

    return turned(image), turned(label)


def _confusion(model, task) -> np.ndarray:
    """Return the confusion matrix of the eval images at their own size."""
    matrix = metrics.ConfusionMatrix(task["num_classes"])
    for image_file, label_file in task["eval"]:
        image, truth = _read(image_file, label_file)
        height, width = truth.shape
        padding = [(0, -height % 8), (0, -width % 8), (0, 0)]
        logits = model(np.pad(image, padding, mode="edge")[None], training=False)
        predicted = np.argmax(ops.convert_to_numpy(logits)[0, :height, :width], axis=-1)
        matrix.update_state(truth, predicted)
    return matrix.result()


if __name__ == "__main__":
    main(*sys.argv[1:])
