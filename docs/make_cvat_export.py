"""Write an export as CVAT makes it, and new images, from generated images (texture_scenes).

python docs/make_cvat_export.py --output=example

example/export.zip has 20 images with masks in CVAT's format "Segmentation mask 1.1".
example/photos has five other images without masks. The tour uses both.
"""

import argparse
import io
import pathlib
import zipfile

import numpy as np
from PIL import Image

from pipelines import datasets

NUM_LABELLED, NUM_NEW = 20, 5


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args()
    data = datasets.load("texture_scenes")
    (options.output / "photos").mkdir(parents=True, exist_ok=True)
    write_export(options.output / "export.zip", data)
    for number, (image, _) in enumerate(_examples(data.eval, NUM_NEW)):
        Image.fromarray(image).save(options.output / "photos" / f"photo{number}.jpg", quality=95)


def write_export(path: pathlib.Path, data: datasets.Dataset) -> None:
    """Write a ZIP with labelmap.txt, the list of the names, images, and masks of colors."""
    colors = np.array(data.spec.colors, np.uint8)
    table = ["# label:color_rgb:parts:actions"]
    for name, color in zip(data.spec.class_names, colors, strict=True):
        table.append(f"{name}:{','.join(map(str, color))}::")
    names = []
    with zipfile.ZipFile(path, "w") as archive:
        for number, (image, label) in enumerate(_examples(data.train, NUM_LABELLED)):
            names.append(f"scene{number:02}")
            archive.writestr(f"JPEGImages/{names[-1]}.png", _png(image))
            label = np.where(label == datasets.VOID, data.spec.background_label, label)  # no void
            archive.writestr(f"SegmentationClass/{names[-1]}.png", _png(colors[label]))
        archive.writestr("ImageSets/Segmentation/default.txt", "\n".join(names) + "\n")
        archive.writestr("labelmap.txt", "\n".join(table) + "\n")


def _examples(split, number):
    """Yield images and label maps, spread evenly over a split."""
    chosen = split.take(datasets.spread(number, split.num_images))
    for example in datasets.examples(chosen).as_numpy_iterator():
        yield example["image"], example["label"]


def _png(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
