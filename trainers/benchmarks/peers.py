"""References of the benchmark: the authors' algorithms in Python and OpenCV, a network in PyTorch.

They follow the descriptions of the algorithms. Only the benchmark uses them.
"""

from collections.abc import Callable

import numpy as np

from trainers.benchmarks.timing import NotRun

_CANDIDATES_PER_PATCH = 5
_MEAN = (104.00699, 116.66877, 122.67892)  # BGR, released "random" networks


def graph_triplets(labels: list[int], rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Return the triplets of the graph of the released GraphToTripletLayer, in a Python loop.

    Args:
        labels: class id of each node.
        rng: random generator.

    Returns:
        (anchor, positive, negative) of each node; the negative is -1 if all nodes have one class.
    """
    nodes = range(len(labels))
    positive, negative, visited = [-1] * len(labels), [-1] * len(labels), []
    for node in rng.permutation(len(labels)).tolist():
        same = [k for k in visited if labels[k] == labels[node]]
        others = [k for k in visited if labels[k] != labels[node]]
        positive[node], negative[node] = _pick(same, rng), _pick(others, rng)
        visited.append(node)
    for node in nodes:
        if positive[node] < 0:
            same = [k for k in nodes if k != node and labels[k] == labels[node]]
            positive[node] = _pick(same or [node], rng)
        if negative[node] < 0:
            negative[node] = _pick([k for k in nodes if labels[k] != labels[node]], rng)
    return list(zip(nodes, positive, negative, strict=True))


def _pick(candidates, rng):
    return candidates[rng.integers(len(candidates))] if candidates else -1


def opencv_patches(
    image_file: str,
    label_file: str,
    rng: np.random.Generator,
    num_patches: int,
    sizes: tuple[int, int],
    crop: int,
    patch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut patches out of one image with the algorithm of the released sampling layers.

    Args:
        image_file: path of the image.
        label_file: path of the mask.
        rng: random generator.
        num_patches: number of patches.
        sizes: smallest and largest side of a patch in the image, in pixels.
        crop: side of the crop of the image, in pixels.
        patch_size: side to which patches are resized, in pixels.

    Returns:
        Patches, float32 [num_patches, patch_size, patch_size, 3], BGR minus the mean, and their
        class ids.

    Raises:
        NotRun: OpenCV is not installed.
    """
    cv2 = _opencv()
    image = cv2.imread(image_file).astype(np.float32) - np.float32(_MEAN)
    label = cv2.imread(label_file, cv2.IMREAD_GRAYSCALE)
    if rng.integers(2):
        image, label = image[:, ::-1], label[:, ::-1]
    image, label = _canvas(image, label, crop, rng)
    num_background = max(1, num_patches // 10)
    centers, sides = _candidates(label, num_patches, num_background, sizes, rng)
    split = _CANDIDATES_PER_PATCH * (num_patches - num_background)
    kept = _apart(label.shape, centers[:split], sides[:split])
    kept = (kept + [k for k in range(split) if k not in kept])[: num_patches - num_background]
    kept += range(split, split + num_background)
    squares = [_square(image, centers[k], sides[k]) for k in kept]
    patches = [cv2.resize(x, (patch_size, patch_size)) for x in squares]
    return np.stack(patches), label[tuple(centers[kept].T)]


def _opencv():
    try:
        import cv2
    except ImportError:
        raise NotRun("OpenCV is not installed: pip install 'opencv-python-headless<5'") from None
    cv2.setNumThreads(1)
    return cv2


def _canvas(image, label, crop, rng):
    """Return the image on a square canvas, padded or cropped at a random place."""
    canvas = np.zeros((crop, crop, 3), np.float32), np.full((crop, crop), 255, np.uint8)
    source, target = [], []
    for length in label.shape:
        start = rng.integers(abs(length - crop) + 1)
        inside, whole = slice(start, start + min(length, crop)), slice(0, min(length, crop))
        source.append(inside if length > crop else whole)
        target.append(whole if length > crop else inside)
    for there, here in zip(canvas, (image, label), strict=True):
        there[tuple(target)] = here[tuple(source)]
    return canvas


def _candidates(label, num_patches, num_background, sizes, rng):
    """Return centers and sides of the candidates, foreground first."""
    foreground, background = (label != 0) & (label != 255), label == 0
    pools = [np.argwhere(pool) for pool in (foreground, background)]
    pools = [pool if len(pool) else np.argwhere(label != 255) for pool in pools]
    counts = (num_patches - num_background, num_background)
    centers = [
        pool[rng.integers(len(pool), size=_CANDIDATES_PER_PATCH * count)]
        for pool, count in zip(pools, counts, strict=True)
    ]
    num = _CANDIDATES_PER_PATCH * num_patches
    return np.concatenate(centers), rng.integers(sizes[0], sizes[1] + 1, num) // 2 * 2


def _apart(shape, centers, sides):
    """Return the candidates that the released overlap rule keeps, using a map of covered pixels."""
    covered, kept = np.zeros(shape, bool), []
    for k, ((y, x), side) in enumerate(zip(centers, sides, strict=True)):
        half = side // 2
        box = covered[max(0, y - half) : y + half, max(0, x - half) : x + half]
        if box.sum() <= 0.6 * sides[0] ** 2:
            box[:] = True
            kept.append(k)
    return kept


def _square(image, center, side):
    """Return a square around a center, zero outside of the image."""
    square = np.zeros((side, side, 3), np.float32)
    start = center - side // 2
    low, high = np.maximum(start, 0), np.minimum(start + side, image.shape[:2])
    inside = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    square[inside] = image[low[0] : high[0], low[1] : high[1]]
    return square


def torch_step(blocks: tuple[tuple[int, ...], ...], num_patches: int, side: int) -> Callable:
    """Return a function that runs one training step of VGG-16 with batch norm in PyTorch.

    The step has a forward pass, a backward pass, and SGD with momentum and decay. The memory layout
    is channels_last, the faster one in PyTorch.

    Args:
        blocks: channels of the convolutions of each block.
        num_patches: patches of the batch.
        side: side of the patches in pixels.

    Raises:
        NotRun: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise NotRun("PyTorch is not installed: pip install torch==2.13.0") from None
    modules, channels = [], 3
    for block in blocks:
        for units in block:
            convolution = torch.nn.Conv2d(channels, units, 3, padding=1)
            modules += [convolution, torch.nn.BatchNorm2d(units), torch.nn.ReLU(inplace=True)]
            channels = units
        modules.append(torch.nn.MaxPool2d(2))
    network = torch.nn.Sequential(*modules).to(memory_format=torch.channels_last)
    pixels = torch.rand(num_patches, 3, side, side).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)

    def step():
        optimizer.zero_grad(set_to_none=True)
        network(pixels).mean().backward()
        optimizer.step()

    return step
