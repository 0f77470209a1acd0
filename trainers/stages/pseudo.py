"""Stage pseudo: the network of stage teacher labels images that have no masks.

It writes pseudo/labels/, pseudo/images/ (of files that TensorFlow cannot decode), a line for each
finished image in pseudo/journal.jsonl, and pseudo/images.json at the end. A command that continues
skips the images in the journal.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np
import rich.progress

from mm_keras import inference
from pipelines import datasets
from pipelines.datasets import new_images, planes, records, tiles
from pipelines.datasets.spec import VOID, printable
from trainers import config
from trainers.runs.files import replacing
from trainers.runs.runtime import Runtime
from trainers.training import networks, pseudo_labels

_JOURNAL = "journal.jsonl"
_MOST_NAMED = 10  # unreadable files in the log


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Label the images of `data.pseudo_labels`.

    The images are predicted in one view, with the default settings of `evaluate`: the labels do
    not depend on the way in which the result is measured.

    Returns:
        "figures": see `pseudo_labels.report`, with "num_images", "num_known" (images that the run
        trains or measures on, which are skipped) and "skipped" (unreadable files).

    Raises:
        config.UserError: no image has enough confident pixels.
    """
    settings, spec = experiment.data, runtime.dataset.spec
    found = pseudo_labels.sources(settings, runtime.dataset)
    labeller = _Labeller(experiment, runtime)
    images = [image for source in _tracked(found, runtime) for image in labeller(source)]
    used = [image for image in images if image.share >= settings.pseudo_min_share]
    if not used:
        _forget(labeller.folder)
        raise config.UserError(_nothing(found, images, labeller, settings))
    pseudo_labels.write(labeller.folder, used)
    figures = pseudo_labels.report(images, used, spec.class_names)
    figures["num_images"], figures["num_known"] = len(found), labeller.num_known
    figures["skipped"] = [name for name, _ in labeller.skipped]
    _log(figures, labeller.skipped, runtime)
    return {"figures": figures}


class _Labeller:
    """Label one image after the other.

    Attributes:
        folder: of the stage.
        skipped: (name, problem) of unreadable files.
        num_known: images that the run trains or measures on.
    """

    def __init__(self, experiment: config.Experiment, runtime: Runtime):
        self.folder, self._spec = runtime.folder("pseudo"), runtime.dataset.spec
        self._threshold = experiment.data.pseudo_threshold
        self.skipped: list[tuple[str, str]] = []
        self.num_known = 0
        self._known = pseudo_labels.known_images(runtime.dataset)
        plain = dataclasses.replace(experiment, evaluate=config.Evaluate())
        self._predictor = networks.predictor(plain, runtime, "teacher")
        self._done = _read_journal(self.folder / _JOURNAL)

    def __call__(self, source: new_images.Source) -> list[pseudo_labels.Image]:
        """Return the image, the tiles of a large image, or nothing if it is not used."""
        entry = self._done.get(source.name) or self._new(source)
        self.num_known += entry["is_known"]
        return [pseudo_labels.Image(**image) for image in entry["images"]]

    def _new(self, source) -> dict:
        """Label an image and return its line of the journal."""
        try:
            image = new_images.read_for_training(source.file, self._spec.window)
            labelled = [self._label(*part) for part in _parts(source.name, image)]
        except (datasets.DatasetError, inference.ImageError) as error:
            self.skipped.append((printable(str(source.file)), str(error)))
            return {"is_known": False, "images": []}
        images = [dataclasses.asdict(image) for image in labelled if image is not None]
        entry = {"name": source.name, "is_known": None in labelled, "images": images}
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
        return entry

    def _label(self, name, kept, pixels, is_nodata) -> pseudo_labels.Image | None:
        """Write the label map of an image; return None for an image of the data set."""
        if pseudo_labels.fingerprint(pixels) in self._known:
            return None
        class_ids, probability = (a[0].numpy() for a in self._predictor.predict(pixels[None]))
        label = pseudo_labels.thresholded(class_ids, probability, self._threshold)
        label[is_nodata] = VOID
        place = f"labels/{name}.png"
        _write(self.folder / place, records.encode_png(label))
        if isinstance(kept, bytes):
            _write(self.folder / f"images/{name}.png", kept)
            kept = f"images/{name}.png"
        number = self._spec.num_classes
        counts = (np.bincount(ids[ids < number], minlength=number) for ids in (class_ids, label))
        predicted, confident = (tuple(count.tolist()) for count in counts)
        return pseudo_labels.Image(name, str(kept), place, predicted, confident)


def _parts(name, image) -> Iterator[tuple]:
    """Yield (name, file or PNG bytes, pixels, pixels without data) of an image or of its tiles."""
    is_nodata = image.is_nodata
    if is_nodata is None:
        is_nodata = np.zeros(image.pixels.shape[:2], bool)
    if not tiles.is_large(image.pixels):
        kept = image.kept if isinstance(image.kept, bytes) else image.kept.resolve()
        yield name, kept, image.pixels, is_nodata
        return
    for tile, place in tiles.named(name, image.pixels.shape[:2]):
        pixels = image.pixels[place]
        yield tile, planes.encode(pixels), pixels, is_nodata[place]


def _write(path: pathlib.Path, content: bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _read_journal(path) -> dict[str, dict]:
    """Return {name: line} of finished images; a killed process may leave half of the last line."""
    found = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            found[entry["name"]] = entry
    return found


def _forget(folder):
    """Remove labels that nothing can use: another threshold then needs no --overwrite."""
    for name in ("labels", "images"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / _JOURNAL).unlink(missing_ok=True)


def _nothing(found, images, labeller, settings) -> str:
    """Return the message for a run without any pseudo-label."""
    facts = f"{labeller.num_known} belong to the data set, {len(labeller.skipped)} are unreadable"
    if not images:
        return (
            f"None of the {len(found)} images of data.pseudo_labels can be used: {facts}. Name "
            "other images, or leave data.pseudo_labels out."
        )
    best = max(image.share for image in images)
    return (
        f"None of the {len(found)} images of data.pseudo_labels has enough confident pixels "
        f"({facts}). At data.pseudo_threshold={settings.pseudo_threshold:g} the best image has "
        f"{best:.1%} of them, and data.pseudo_min_share={settings.pseudo_min_share:g} asks for "
        f"{settings.pseudo_min_share:.1%}. Lower one of them, train longer, or leave "
        "data.pseudo_labels out."
    )


def _log(figures, skipped, runtime):
    """Log the counts, one line for each class, and the unreadable files."""
    runtime.log(
        f"pseudo: {figures['num_used']} of {figures['num_images']} images are used, with "
        f"{figures['share_of_pixels']:.1%} of all pixels; {figures['num_unsure']} have too few "
        f"confident pixels, {figures['num_known']} belong to the data set, {len(skipped)} are "
        "unreadable"
    )
    for name, entry in figures["classes"].items():
        share = entry["share_kept"]
        text = "not predicted" if share is None else f"{share:.1%} of its pixels kept"
        runtime.log(f"pseudo: {name}: {entry['pixels']:,} pixels, {text}")
    for name, problem in skipped[:_MOST_NAMED]:
        runtime.log(f"pseudo: skipped {name}: {problem}")


def _tracked(found, runtime):
    return rich.progress.track(found, "pseudo", console=runtime.console)
