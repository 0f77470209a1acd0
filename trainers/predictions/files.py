"""The files of a predicted image: class ids, overlay, confidence and probabilities."""

import dataclasses
import io
import math
import pathlib

import numpy as np
from PIL import Image, TiffImagePlugin

from mm_keras import inference, visualize
from pipelines.datasets.new_images import NewImage
from trainers.runs import palette_masks
from trainers.runs.files import replacing

FOLDERS = {
    "masks": ".png",
    "overlays": ".jpg",
    "confidence": ".png",
    "probabilities": ".npz",
}
"""{kind of file, and the name of its folder: ending}."""

_QUALITY = 90  # of overlays
_OVERLAY_PIXELS = 40_000_000
"""The most pixels of an overlay (ours): viewers fail on larger JPEG files, and Pillow needs four
bytes for each."""
_ROWS = 64  # of a block; a multiple of the period of visualize's hatch


@dataclasses.dataclass(frozen=True)
class Kinds:
    """The kinds of files that are written beside the masks.

    Attributes:
        overlays: images with their classes painted over them; the background stays clear. Images
            of more than 40 megapixels are reduced by a whole factor.
        confidence: the probability of the predicted class, gray PNG, 255 = certain.
        probabilities: the probability of each class, float16 [H, W, K] under "probabilities".
    """

    overlays: bool = True
    confidence: bool = False
    probabilities: bool = False

    def names(self) -> list[str]:
        """Return the folders that are written."""
        return ["masks", *(kind for kind, on in dataclasses.asdict(self).items() if on)]


def place(folder: pathlib.Path, kind: str, name: str, is_geo: bool = False) -> pathlib.Path:
    """Return the path of a file of an image; a mask of a GeoTIFF is a GeoTIFF."""
    ending = ".tif" if is_geo and kind in ("masks", "confidence") else FOLDERS[kind]
    return folder / kind / f"{name}{ending}"


def write(
    folder: pathlib.Path,
    name: str,
    image: NewImage,
    predictor: inference.LoadedPredictor,
    kinds: Kinds,
) -> dict:
    """Predict an image and write its files, each complete or not at all.

    Returns:
        "height", "width", "confidence" (the mean probability of the predicted classes), "pixels"
        (the number of pixels of each class) and "is_geo" (whether the mask is a GeoTIFF), ready
        for JSON.

    Raises:
        ImageError: if the model cannot take the image.
    """
    result, classes = predictor(image.pixels), predictor.classes
    pixels = np.asarray(memoryview(image.pixels))
    is_geo = bool(image.geo_tags)
    contents = {
        "masks": lambda: _mask(result.class_ids, classes, image.geo_tags),
        "overlays": lambda: _overlay(pixels, result.class_ids, classes),
        "confidence": lambda: _gray(result.probability, image.geo_tags),
        "probabilities": lambda: _arrays(predictor.probabilities(image.pixels)),
    }
    # The mask is last: where it exists, the other files exist as well.
    for kind in reversed(kinds.names()):
        path = place(folder, kind, name, is_geo)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(contents[kind]())
    counts = sum(
        np.bincount(result.class_ids[rows].ravel(), minlength=classes.num_classes)
        for rows in _blocks(len(pixels))
    )
    return {
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "confidence": round(float(result.probability.mean(dtype=np.float64)), 6),
        "pixels": counts.tolist(),
        "is_geo": is_geo,
    }


def _mask(class_ids, classes, geo_tags) -> bytes:
    picture = palette_masks.picture(class_ids, classes.mask_values, classes.colors)
    return _geo_tiff(picture, geo_tags) if geo_tags else _encoded(picture, "PNG")


def _overlay(pixels, class_ids, classes) -> bytes:
    """Return a JPEG; a large image is reduced by a whole factor."""
    step = math.ceil(math.sqrt(class_ids.size / _OVERLAY_PIXELS))

    def painted(rows):
        part = slice(rows.start * step, rows.stop * step)
        rgb = np.ascontiguousarray(visualize.as_rgb(pixels[part]))
        image = np.asarray(Image.fromarray(rgb).reduce(step))
        ids = class_ids[part][::step, ::step]
        return visualize.overlay(image, ids, classes.colors, clear=classes.background)

    size = tuple(-(-side // step) for side in class_ids.shape)
    return _encoded(_picture("RGB", size, painted), "JPEG", quality=_QUALITY)


def _gray(probability, geo_tags) -> bytes:
    picture = _picture(
        "L", probability.shape, lambda rows: np.round(255 * probability[rows]).astype(np.uint8)
    )
    return _geo_tiff(picture, geo_tags) if geo_tags else _encoded(picture, "PNG")


def _picture(mode, size, function) -> Image.Image:
    """Return a picture of a function of slices of rows; no array holds all its pixels."""
    picture = Image.new(mode, size[::-1])
    for rows in _blocks(size[0]):
        picture.paste(Image.fromarray(function(rows)), (0, rows.start))
    return picture


def _blocks(num_rows):
    """Yield slices of rows: arrays in between are much larger than the image."""
    return (slice(start, start + _ROWS) for start in range(0, num_rows, _ROWS))


def _arrays(probabilities) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, probabilities=probabilities.astype(np.float16))
    return buffer.getvalue()


def _geo_tiff(picture, geo_tags) -> bytes:
    """Return a TIFF with the place of the image on the earth."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, kind, values in geo_tags:
        directory.tagtype[tag] = kind
        directory[tag] = values
    return _encoded(picture, "TIFF", tiffinfo=directory, compression="tiff_deflate")


def _encoded(picture, form, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()
