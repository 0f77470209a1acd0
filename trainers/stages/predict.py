"""Stage predict: write the predicted class ids of the evaluation split to predict/results.

Each image has one palette PNG, in the form that the servers of VOC and Cityscapes accept.
"""

import pathlib
from collections.abc import Iterable

from pipelines import datasets
from trainers import config
from trainers.runs import palette_masks
from trainers.runs.files import replacing
from trainers.runs.runtime import Runtime
from trainers.training import networks

FOLDERS = {"voc_sbd": "VOC2012/Segmentation/comp6_{split}_cls"}
"""{data set: folder of its files inside `results`}; other data sets use `results` itself.

The VOC server expects the folder `results` of its development kit. There "comp6" is segmentation
with training data beyond VOC. The Cityscapes server accepts files in any folder if their names
begin with CITY_SEQUENCE_FRAME.
"""


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Write all predictions, complete or not at all.

    Returns:
        "num_images", the number of files.
    """
    dataset, folder = runtime.dataset, runtime.folder("predict")
    predictor = networks.predictor(experiment, runtime)
    maps = (
        (example["id"].numpy().decode(), class_ids)
        for example, class_ids in networks.predictions(predictor, runtime, "predict")
    )
    place = FOLDERS.get(dataset.spec.name, "").format(split=dataset.eval.name)
    with replacing(folder / "results") as temporary:
        num_images = write(temporary / place, maps, dataset.spec)
    values = zip(dataset.spec.mask_values, dataset.spec.class_names, strict=True)
    if dataset.spec.label_ids is not None:
        table = ", ".join(f"{value} {name}" for value, name in values)
        runtime.log(f"predict: the files hold the values of the data set's masks: {table}")
    return {"num_images": num_images}


def write(folder: pathlib.Path, maps: Iterable, spec: datasets.DatasetSpec) -> int:
    """Write one palette PNG per image, FOLDER/ID.png.

    The pixels hold `spec.mask_values`; the palette has the colors of the classes.

    Args:
        folder: is created if it does not exist.
        maps: pairs of the id of an image and its class ids, integer [H, W].
        spec: facts of the data set.

    Returns:
        The number of files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    num_files = 0
    for image_id, class_ids in maps:
        picture = palette_masks.picture(class_ids, spec.mask_values, spec.colors)
        palette_masks.save(picture, folder / f"{image_id}.png")
        num_files += 1
    return num_files
