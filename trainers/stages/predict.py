"""Stage predict: leaves the predicted class ids of the evaluation split in predict/results, one
palette PNG an image, as the benchmarks' servers take them.
"""

import os
import pathlib
import shutil
from collections.abc import Iterable

import numpy as np
from PIL import Image

from pipelines import datasets
from trainers import config
from trainers.runs.runtime import Runtime
from trainers.training import networks

FOLDERS = {"voc_sbd": "VOC2012/Segmentation/comp6_{split}_cls"}
"""Where in `results` the files of a data set belong, if not in it: VOC's server takes the folder
`results` of its development kit, "comp6" being segmentation with training data beyond VOC's own.
Cityscapes' server takes files that begin with CITY_SEQUENCE_FRAME wherever they lie.
"""


def run(experiment: config.Experiment, runtime: Runtime):
    """Writes under a temporary name, then renames."""
    dataset, folder = runtime.dataset, runtime.folder("predict")
    predictor = networks.predictor(experiment, runtime)
    maps = (
        (example["id"].numpy().decode(), class_ids)
        for example, class_ids in networks.predictions(predictor, runtime, "predict")
    )
    temporary, final = folder / f"{os.getpid()}.tmp", folder / "results"
    place = FOLDERS.get(dataset.spec.name, "").format(split=dataset.eval.name)
    num_images = write(temporary / place, maps, dataset.spec)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    return {"num_images": num_images}


def write(folder: pathlib.Path, maps: Iterable, spec: datasets.DatasetSpec) -> int:
    """Writes FOLDER/ID.png for each pair of an image's id and its class ids, integer [H, W].

    The files are palette PNGs in the classes' colors and hold `spec.label_ids`.

    Returns:
        The number of files.
    """
    label_ids = np.arange(spec.num_classes) if spec.label_ids is None else spec.label_ids
    label_ids = np.asarray(label_ids, np.uint8)
    palette = _palette(label_ids, spec.colors)
    folder.mkdir(parents=True, exist_ok=True)
    num_files = 0
    for image_id, class_ids in maps:
        picture = Image.fromarray(label_ids[class_ids])
        picture.putpalette(palette)
        file = folder / f"{image_id}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)
        num_files += 1
    return num_files


def _palette(label_ids, colors) -> bytes:
    """VOC's palette with the data set's own colors in it; for VOC, that of its own files."""
    palette = np.array(datasets.voc_colors(256), np.uint8)
    palette[label_ids] = colors
    return palette.tobytes()
