"""Write an export as CVAT makes it, and new images, from generated images (texture_scenes).

python docs/make_cvat_export.py --output=example

example/export.zip has 20 images with masks in CVAT's format "Segmentation mask 1.1".
example/photos has five other images without masks. The tour uses both. After its commands,

python docs/make_cvat_export.py --output=example --predictions=predictions

writes docs/pictures/overlays.png: the five images, and below them their overlays.
"""

import argparse
import io
import pathlib
import zipfile

import numpy as np
from PIL import Image

from pipelines import datasets

NUM_LABELLED, NUM_NEW = 20, 5
PICTURE = pathlib.Path(__file__).parent / "pictures" / "overlays.png"
SIDE, GAP = 200, 6  # pixels of an image of the picture, and between two of them


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--predictions", type=pathlib.Path, help="Output of trainers.predict.")
    options = parser.parse_args()
    if options.predictions:
        picture(options.output / "photos", options.predictions / "overlays").save(PICTURE)
        return
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


def picture(photos: pathlib.Path, overlays: pathlib.Path) -> Image.Image:
    """Return the images of a folder in a row, and below them the overlays of the same names."""
    names = sorted(path.name for path in photos.iterdir())
    page = Image.new("RGB", (len(names) * (SIDE + GAP) - GAP, 2 * SIDE + GAP), "white")
    for row, folder in enumerate((photos, overlays)):
        for column, name in enumerate(names):
            with Image.open(folder / name) as image:
                image.thumbnail((SIDE, SIDE))
                page.paste(image, (column * (SIDE + GAP), row * (SIDE + GAP)))
    return page.quantize(256, dither=Image.Dither.NONE)


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
