"""The figures of a report: runs in, PNG files out."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image
from sklearn import manifold

from mm_keras import visualize
from pipelines import datasets
from trainers import config
from trainers.reporting import measurements, plots
from trainers.runs import finished
from trainers.runs.dataset import load_dataset


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the figures.

    Attributes:
        data_dir: folder of the data set; None for the folder that the runs recorded.
        num_images: images in a gallery.
        num_patches: patches in a t-SNE map.
    """

    data_dir: str | None = None
    num_images: int = 6
    num_patches: int = 1500


def draw(
    runs: list[finished.Run],
    output: pathlib.Path,
    options: Options,
    log: Callable[[str], None],
) -> Iterator[pathlib.Path]:
    """Draw all figures that the runs allow.

    Args:
        runs: finished runs.
        output: an existing folder.
        options: sizes, and the folder of the data set.
        log: function that is called with a reason where figures are left out.

    Yields:
        The path of each figure as soon as it is written.
    """
    for number, group in enumerate(finished.graph_studies(runs), start=1):
        yield _save(_graph_sizes(group), output / f"graph-sizes-{number}.png")
    for comparison in finished.compare(runs):
        try:
            dataset = _dataset(comparison, options.data_dir)
        except config.ConfigError as error:
            log(f"{comparison.name}: no figures, because the data set cannot be read: {error}")
            continue
        for name, picture in _pictures(comparison, dataset, options):
            yield _save(picture, output / f"{comparison.name}-{name}.png")


def _dataset(comparison, data_dir):
    run = (comparison.tuned or comparison.naive)[0]
    experiment = run.experiment()
    data = experiment.data
    data = dataclasses.replace(data, data_dir=data_dir or data.data_dir)
    return load_dataset(data, experiment.network.channels)


def _pictures(comparison, dataset, options):
    """Yield (name, figure or picture)."""
    if comparison.naive and comparison.tuned:
        yield "per-class", _per_class_bars(comparison, dataset.spec)
    mious = {
        name: measurements.image_mious(measurements.per_image_confusions(runs[0], dataset))
        for name, runs in comparison.columns.items()
    }
    last = list(mious.values())[-1]
    num_images = min(options.num_images, len(last))
    spread = datasets.spread(num_images, len(last))
    worst = np.argsort(np.where(np.isnan(last), np.inf, last), kind="stable")[:num_images]
    for name, numbers in (("examples", spread), ("worst", worst.tolist())):
        yield name, _gallery(comparison, dataset, numbers, mious)
    if comparison.tuned:
        yield from _maps(comparison, dataset, options.num_patches)


def _title(comparison):
    run = (comparison.tuned or comparison.naive)[0]
    recorded = run.recorded
    title = (
        f"{recorded['data.dataset']}, {recorded['network.backbone']} "
        f"x{recorded['network.width']:g} from {recorded['network.init']}"
    )
    return f"{title}, {comparison.name}"


def _per_class_bars(comparison, spec):
    series, deviations = {}, {}
    for name, runs in comparison.columns.items():
        ious = np.array(
            [[run.results["per_class_iou"][c] for c in spec.class_names] for run in runs]
        )
        ious = 100 * ious.astype(float)  # None, for a class that does not occur, becomes NaN
        series[name] = ious.mean(axis=0)
        deviations[name] = ious.std(axis=0, ddof=1) if len(runs) > 1 else None
    num_runs = len(comparison.tuned)
    note = f"\nmeans and standard deviations of {num_runs} seeds" if num_runs > 1 else ""
    return plots.per_class_bars(
        spec.class_names,
        spec.colors,
        series,
        deviations if num_runs > 1 else None,
        title=_title(comparison) + note,
    )


def _gallery(comparison, dataset, numbers, mious):
    pairs = measurements.images(dataset, numbers)
    columns = {
        name: measurements.predictions(runs[0], dataset, numbers)
        for name, runs in comparison.columns.items()
    }
    captions = [
        f"{dataset.eval.ids[n]}: mIoU "
        + ", ".join(f"{name} {100 * mious[name][n]:.1f}" for name in columns)
        for n in numbers
    ]
    return visualize.segmentation_gallery(
        *zip(*pairs, strict=True),
        columns,
        dataset.spec.colors,
        dataset.spec.class_names,
        captions=captions,
    )


def _maps(comparison, dataset, num_patches):
    """Yield t-SNE maps before and after M&M (Fig. 1b), and after fine-tuning (Fig. 4)."""
    run = comparison.tuned[0]
    pixels, labels, positions = measurements.patches(run.experiment(), dataset, num_patches)

    def figure(networks, title):
        maps = {}
        for name, backbone in networks:
            points = measurements.embeddings(backbone, pixels)
            share = 100 * measurements.neighbor_agreement(points, labels, positions)
            head = f"{name}\nnearest neighbor of the same class: {share:.1f} %"
            maps[head] = _plane(points)
        return plots.embedding_maps(
            maps,
            labels,
            dataset.spec.class_names,
            dataset.spec.colors,
            f"{len(labels)} patches of {dataset.eval.title}, {title}\n{_title(comparison)}",
        )

    networks = (
        ("before M&M", measurements.initial_backbone(run, dataset)),
        ("after M&M", measurements.tuned_backbone(run, dataset)),
    )
    yield "patches", figure(networks, "before fine-tuning")
    networks = [
        (f"{name}, fine-tuned", measurements.fine_tuned_backbone(runs[0], dataset))
        for name, runs in comparison.columns.items()
    ]
    yield "patches-fine-tuned", figure(networks, "after fine-tuning")


def _plane(points):
    perplexity = min(30, (len(points) - 1) / 3)
    return manifold.TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(points)


def _graph_sizes(runs):
    recorded = runs[0].recorded
    return plots.graph_sizes(
        [run.num_nodes for run in runs],
        [100 * run.results["miou"] for run in runs],
        [run.costs["mm"]["seconds"] / run.recorded["mm.steps"] for run in runs],
        f"{recorded['data.dataset']}, {recorded['network.backbone']} from "
        f"{recorded['network.init']}",
    )


def _save(picture, path):
    if isinstance(picture, np.ndarray):
        Image.fromarray(picture).save(path)
    else:
        picture.savefig(path, dpi=120)
    return path
