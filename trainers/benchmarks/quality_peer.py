"""Train one network of segmentation_models_pytorch for some CPU seconds; run in its own process.

python quality_peer.py TASK.json RESULT.json

It needs torch, segmentation_models_pytorch, numpy and Pillow, and nothing of this project, so it
runs in an environment of its own. The recipe is AdamW with rate 1e-3 and half a cosine, batches of
8 crops of 192 pixels, mirrored with probability 1/2, from random weights.
"""

import json
import math
import pathlib
import sys
import time

import numpy as np
import PIL.Image
import torch

CROP, BATCH, RATE, DECAY, VOID = 192, 8, 1e-3, 1e-2, 255
MEAN, DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
WARM_UP_STEPS, TIMED_STEPS = 2, 5


def _library():
    """Import segmentation_models_pytorch.

    It imports torchvision, whose wheel for GPUs has no operators beside a CPU build of torch. The
    networks use none of them, so an empty declaration is enough.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        declared = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _library.declared = declared  # it must outlive this function
    import segmentation_models_pytorch

    return segmentation_models_pytorch


def main(task_file: str, result_file: str) -> None:
    """Train and score one peer.

    Args:
        task_file: JSON with train and eval (lists of [image file, label file]), shorter_side,
            num_classes, architecture, encoder, augmentation, cpu_seconds and seed.
        result_file: JSON to write, with steps, cpu_seconds and the confusion matrix.
    """
    task = json.loads(pathlib.Path(task_file).read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    torch.manual_seed(task["seed"])
    rng = np.random.default_rng(task["seed"])
    build = getattr(_library(), task["architecture"])
    model = build(task["encoder"], encoder_weights=None, classes=task["num_classes"])
    images = [_read(*pair, task["shorter_side"]) for pair in task["train"]]
    started = time.process_time()
    num_steps = _train(model, images, task, rng)
    seconds = time.process_time() - started
    matrix = _confusion(model, task)
    result = {"steps": num_steps, "cpu_seconds": seconds, "confusion": matrix.tolist()}
    pathlib.Path(result_file).write_text(json.dumps(result), encoding="utf-8")


def _read(image_file, label_file, shorter_side):
    image, label = PIL.Image.open(image_file).convert("RGB"), PIL.Image.open(label_file)
    scale = shorter_side / min(image.size) if shorter_side else 1.0
    if scale < 1:
        size = tuple(round(side * scale) for side in image.size)
        image = image.resize(size, PIL.Image.Resampling.BILINEAR)
        label = label.resize(size, PIL.Image.Resampling.NEAREST)
    return np.asarray(image), np.asarray(label)


def _train(model, images, task, rng) -> int:
    """Train until the budget is used. The first steps are timed to plan the schedule."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    model.train()
    started = time.process_time()
    num_steps, step = None, 0
    while num_steps is None or step < num_steps:
        done = 0.0 if num_steps is None else step / num_steps
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * done))
        pixels, labels = _batch(images, task["augmentation"], rng)
        loss = torch.nn.functional.cross_entropy(model(pixels), labels, ignore_index=VOID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step == WARM_UP_STEPS:
            timed = time.process_time()
        if step == WARM_UP_STEPS + TIMED_STEPS:
            cost = (time.process_time() - timed) / TIMED_STEPS
            left = task["cpu_seconds"] - (time.process_time() - started)
            num_steps = step + max(1, int(left / cost))
    return step


def _batch(images, is_augmented, rng):
    crops = [_crop(*images[k], is_augmented, rng) for k in rng.integers(len(images), size=BATCH)]
    pixels, labels = (np.stack(part) for part in zip(*crops, strict=True))
    return _normalized(pixels), torch.from_numpy(labels.astype(np.int64))


def _crop(image, label, is_augmented, rng):
    """Return one crop: scaled and recolored if augmented, padded with the mean and void."""
    if is_augmented:
        image, label = _augmented(image, label, rng)
    missing = [max(0, CROP - side) for side in label.shape]
    mean = np.uint8(255 * MEAN)
    canvas = np.empty([*(np.add(label.shape, missing)), 3], np.uint8)
    canvas[:] = mean
    canvas[: label.shape[0], : label.shape[1]] = image
    label = np.pad(label, [(0, m) for m in missing], constant_values=VOID)
    y, x = (rng.integers(side - CROP + 1) for side in label.shape)
    image, label = canvas[y : y + CROP, x : x + CROP], label[y : y + CROP, x : x + CROP]
    return (image[:, ::-1], label[:, ::-1]) if rng.random() < 0.5 else (image, label)


def _augmented(image, label, rng):
    """Scale by 0.7..1.4, and change brightness, contrast and saturation by up to a fifth."""
    scale = math.exp(rng.uniform(math.log(1 / 1.41), math.log(1.41)))
    size = tuple(max(1, round(side * scale)) for side in label.shape[::-1])
    resampling = PIL.Image.Resampling
    pixels = np.asarray(PIL.Image.fromarray(image).resize(size, resampling.BILINEAR), np.float32)
    label = np.asarray(PIL.Image.fromarray(label).resize(size, resampling.NEAREST))
    if rng.random() < 0.5:
        gray = pixels.mean(axis=2, keepdims=True)
        pixels = gray + (pixels - gray) * rng.uniform(0.8, 1.2)
        mean = pixels.mean()
        pixels = mean + (pixels - mean) * rng.uniform(0.8, 1.2)
        pixels = pixels * rng.uniform(0.8, 1.2)
    return np.clip(pixels, 0, 255).astype(np.uint8), label


def _normalized(pixels):
    pixels = (pixels.astype(np.float32) / 255 - MEAN) / DEVIATION
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def _confusion(model, task) -> np.ndarray:
    """Return the confusion matrix of the eval images at their own size."""
    model.train(False)
    number = task["num_classes"]
    matrix = np.zeros((number, number), np.int64)
    for image_file, label_file in task["eval"]:
        image, _ = _read(image_file, label_file, task["shorter_side"])
        truth = np.asarray(PIL.Image.open(label_file))
        height, width = image.shape[:2]
        padding = [(0, -height % 32), (0, -width % 32), (0, 0)]
        with torch.no_grad():
            logits = model(_normalized(np.pad(image, padding, mode="edge")[None]))
            logits = logits[:, :, :height, :width]
            logits = torch.nn.functional.interpolate(logits, truth.shape, mode="bilinear")
        predicted = logits[0].argmax(0).numpy()
        counted = truth < number
        cells = truth[counted].astype(np.int64) * number + predicted[counted]
        matrix += np.bincount(cells, minlength=number**2).reshape(matrix.shape)
    return matrix


if __name__ == "__main__":
    main(*sys.argv[1:])
