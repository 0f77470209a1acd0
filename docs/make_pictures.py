"""Make the pictures of docs/ from a finished run, on generated images (texture_scenes).

python -m trainers.mm
python -m trainers.mm --stage=doctor
python docs/make_pictures.py --workdir=runs/texture_scenes-vgg16-random-quick --browser=chromium

Needs the extra viz. The pictures are PNG files of 256 colors in docs/pictures. method.png explains
the method on two images. result.png shows predictions. With --browser, the script also makes
screenshots of TensorBoard and of the page of the data check. TensorBoard shows the path of the run,
so give a relative one.
"""

import argparse
import contextlib
import io
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib import figure, offsetbox
from matplotlib.patches import Patch
from PIL import Image

from mm_keras import matching, visualize
from pipelines import datasets
from pipelines.batches import mix
from pipelines.patch_sampling import PatchSampling

PICTURES = pathlib.Path(__file__).parent / "pictures"

METHOD_IMAGES = {33: 374, 22: 106}
"""Evaluation images of method.png, and the seeds of their patches.

Both images have the class stripes, so edges of the graph cross the images. The seeds give boxes of
many sizes, nearly all of them inside the image.
"""

GRAPH_SEED = 270
"""Gives edges between many pairs of classes."""

NUM_RESULTS = 6
"""Evaluation images of result.png, spread evenly: they are not chosen by their scores."""

PATCHES_PER_IMAGE, MIN_SIZE, MAX_SIZE, PATCH_SIZE = 6, 28, 84, 64
ATTRACTIVE, REPULSIVE = "#0a8a3a", "#c8102e"
INK, QUIET = "#1a1a1a", "#5a5a5a"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="A finished run.")
    parser.add_argument("--output", type=pathlib.Path, default=PICTURES)
    parser.add_argument("--browser", help="Chromium or Chrome, for the screenshots.")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    data = datasets.load("texture_scenes")
    predict = _predictor(options.workdir)
    _save(method(data, predict), options.output / "method.png")
    _save(result(data, predict), options.output / "result.png")
    if options.browser:
        _screenshots(options.workdir, options.browser, options.output)


def method(data, predict) -> np.ndarray:
    """Return the picture of mix, match, tune and fine-tune: uint8 [height, width, 3]."""
    examples = _examples(data.eval, tuple(METHOD_IMAGES))
    seeds = METHOD_IMAGES.values()
    drawn = [
        _patches(image, label, seed) for (image, label), seed in zip(examples, seeds, strict=True)
    ]
    patches = np.concatenate([patches for _, patches, _ in drawn])
    labels = np.concatenate([labels for _, _, labels in drawn])
    colors = _shares(data.spec.colors)
    page = figure.Figure(figsize=(13.6, 5.5), dpi=110, facecolor="white")
    for row, ((image, label), (boxes, _, own)) in enumerate(zip(examples, drawn, strict=True)):
        bottom = 0.44 - 0.40 * row
        _draw_boxes(_axes(page, 0.010, bottom, 0.15), image, boxes, own, colors)
        for left, class_ids in ((0.722, predict(image)), (0.858, label)):
            axes = _axes(page, left, bottom + 0.03, 0.13)
            axes.imshow(visualize.color_map(class_ids, data.spec.colors))
    _draw_patches(page, patches, labels, data.spec.class_names, colors)
    _draw_graph(page.add_axes((0.418, 0.17, 0.265, 0.655)), patches, labels, colors)
    _draw_texts(page)
    _draw_loss(page)
    return _pixels(page)


def result(data, predict) -> np.ndarray:
    """Return images, truths and predictions, one image per column: uint8 [height, width, 3]."""
    numbers = datasets.spread(NUM_RESULTS, data.eval.num_images)
    page = figure.Figure(figsize=(13.6, 7.4), dpi=100, facecolor="white")
    grid = page.subplots(
        3,
        NUM_RESULTS,
        gridspec_kw={
            "left": 0.08,
            "right": 0.995,
            "bottom": 0.06,
            "top": 0.99,
            "wspace": 0.04,
            "hspace": 0.04,
        },
    )
    for column, (image, label) in enumerate(_examples(data.eval, numbers)):
        pictures = [visualize.color_map(ids, data.spec.colors) for ids in (label, predict(image))]
        for axes, picture in zip(grid[:, column], (image, *pictures), strict=True):
            axes.imshow(picture)
            axes.set_axis_off()
    for row, text in enumerate(("image", "truth", "prediction")):
        page.text(0.075, 0.84 - 0.31 * row, text, fontsize=12, color=INK, ha="right", va="center")
    swatches = [
        Patch(facecolor=color, label=name)
        for name, color in zip(data.spec.class_names, _shares(data.spec.colors), strict=True)
    ]
    swatches.append(Patch(facecolor="gray", edgecolor="black", hatch="////", label="void"))
    page.legend(handles=swatches, loc="lower center", ncols=len(swatches), frameon=False)
    return _pixels(page)


def _shares(colors):
    """Return RGB colors with values 0..1 instead of 0..255."""
    return [tuple(channel / 255 for channel in color) for color in colors]


def _screenshots(workdir, browser, output):
    """Save pictures of TensorBoard's curves and images, and of the page of the data check."""
    page = (workdir / "doctor" / "index.html").resolve().as_uri()
    with _tensorboard(workdir) as address:
        tags = "mm/(loss%7C.*distance%7Ceffective)%7Csegment/(loss%7Cpixel)"
        query = f"?darkMode=false&smoothing=0&runFilter=mm%7Csegment&tagFilter={tags}"
        shots = (
            ("tensorboard-curves", f"{address}{query}#timeseries", (1800, 1000), (1530, 950)),
            (
                "tensorboard-images",
                f"{address}?darkMode=false#images&tagFilter=mm",
                (1400, 1000),
                (1100, 860),
            ),
            ("doctor", page, (1120, 1400), (1105, 1110)),
        )
        for name, url, window, visible in shots:
            picture = _screenshot(browser, url, window).crop((0, 0, *visible))
            picture.thumbnail((1100, 1250), Image.Resampling.LANCZOS)
            _save(np.asarray(picture), output / f"{name}.png")


@contextlib.contextmanager
def _tensorboard(workdir):
    """Run TensorBoard on a free port and yield its address."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={workdir}", f"--port={port}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        address = f"http://localhost:{port}/"
        _wait_for(f"{address}data/runs", seconds=120)
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait_for(url, seconds):
    """Wait until TensorBoard has found the runs."""
    for _ in range(seconds):
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(url) as answer:
            if len(answer.read()) > len("[]"):
                return
        time.sleep(1)
    raise TimeoutError(f"No runs at {url} after {seconds} seconds.")


def _screenshot(browser, url, window):
    """Return what a browser without a screen shows."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "screenshot.png"
        # Screenshots do not show WebGL. Without it TensorBoard draws its curves as SVG.
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-3d-apis"]
        command += ["--disable-quic", "--no-first-run", "--disable-background-networking"]
        command += ["--disable-component-update", "--disable-sync"]
        command += [f"--user-data-dir={folder}/profile", f"--screenshot={file}"]
        command += [f"--window-size={window[0]},{window[1]}", "--virtual-time-budget=20000", url]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return Image.open(file).convert("RGB")


def _predictor(workdir):
    """Return a function from an image to its class ids, the SavedModel of the run."""
    model = tf.saved_model.load(str(workdir / "export" / "saved_model"))
    serve = model.signatures["serving_default"]

    def predict(image):
        return serve(images=tf.constant(image)[None])["class_ids"][0].numpy()

    predict.model = model  # its variables live as long as the function
    return predict


def _examples(split, numbers):
    """Return (image uint8 [H, W, 3], label uint8 [H, W]) of some images, as numbered."""
    part = split.take(numbers)
    read = [(e["image"].numpy(), e["label"].numpy()) for e in datasets.examples(part)]
    found = dict(zip(sorted(numbers), read, strict=True))
    return [found[number] for number in numbers]


def _patches(image, label, seed):
    """Return boxes [N, 4], patches [N, S, S, 3] and labels [N] of one image."""
    sampling = PatchSampling(
        PATCHES_PER_IMAGE,
        MIN_SIZE,
        MAX_SIZE,
        PATCH_SIZE,
        background_label=0,
        class_balanced=True,
    )
    chosen = mix.sample_boxes(label, sampling, seed=seed)
    patches = mix.cut(image, chosen.boxes, PATCH_SIZE)
    return chosen.boxes.numpy(), patches.numpy(), chosen.labels.numpy()


def _axes(page, left, bottom, width):
    """Add axes without ticks for a square picture; sizes are shares of the page."""
    width_in_inches, height_in_inches = page.get_size_inches()
    axes = page.add_axes((left, bottom, width, width * width_in_inches / height_in_inches))
    axes.set_axis_off()
    return axes


def _draw_boxes(axes, image, boxes, labels, colors):
    height, width = image.shape[:2]
    axes.imshow(image)
    for (y0, x0, y1, x1), label in zip(boxes, labels, strict=True):
        for color, line in (("white", 5), (colors[label], 2.5)):
            corners = ([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0])
            axes.plot(*corners, color=color, lw=line, solid_joinstyle="miter")
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _draw_patches(page, patches, labels, class_names, colors):
    """Draw three columns of patches, framed in the colors of their classes."""
    for number, (patch, label) in enumerate(zip(patches, labels, strict=True)):
        image, place = divmod(number, PATCHES_PER_IMAGE)
        row, column = divmod(place, 3)
        left, bottom = 0.195 + 0.066 * column, 0.655 - 0.40 * image - 0.187 * row
        axes = _axes(page, left, bottom, 0.052)
        axes.imshow(patch)
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color=colors[label], linewidth=4)
        axes.set_xlabel(class_names[label], fontsize=10, color=INK, labelpad=3)


def _draw_graph(axes, patches, labels, colors):
    """Draw the class-connected graph: one cluster of nodes per class."""
    places = _places(labels)
    triplets = matching.class_connected(labels, seed=GRAPH_SEED)
    edges = (
        (triplets.negative, REPULSIVE, (0, (4, 2)), 1.2, 0.75),
        (triplets.positive, ATTRACTIVE, "solid", 3.2, 1),
    )
    for partners, color, style, width, alpha in edges:
        for anchor, partner in enumerate(np.asarray(partners)):
            line = np.stack([places[anchor], places[partner]], axis=1)
            axes.plot(*line, color=color, linestyle=style, lw=width, alpha=alpha, zorder=1)
    for patch, label, place in zip(patches, labels, places, strict=True):
        picture = offsetbox.OffsetImage(patch, zoom=0.40)
        frame = {"edgecolor": colors[label], "linewidth": 3}
        axes.add_artist(
            offsetbox.AnnotationBbox(picture, place, pad=0.05, bboxprops=frame, zorder=2)
        )
    axes.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3))
    axes.set_axis_off()


def _places(labels):
    """Return a place for each node, float64 [N, 2]: classes on a circle, members around them."""
    places = np.zeros((len(labels), 2))
    classes = np.unique(labels)
    for number, label in enumerate(classes):
        members = np.flatnonzero(labels == label)
        angle = 2 * np.pi * (number / len(classes) + 1 / 8)
        center = 0.95 * np.array([np.cos(angle), np.sin(angle)])
        radius = 0.22 + 0.04 * len(members)
        turns = angle + 2 * np.pi * (np.arange(len(members)) + 0.5) / len(members)
        places[members] = center + radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    return places


def _draw_texts(page):
    heads = (
        (0.010, "1  Mix", "patches of many sizes\nfrom several images"),
        (0.195, "", "label of a patch: class\nof its center pixel"),
        (0.418, "2  Match", "a graph over all patches,\none triplet per patch"),
        (0.722, "4  Fine-tune", "the backbone becomes a segmenter"),
        (0.418, "3  Tune", ""),
    )
    for left, head, text in heads:
        top = 0.15 if head == "3  Tune" else 0.985
        page.text(left, top, head, fontsize=19, weight="bold", color=INK, va="top")
        page.text(left, top - 0.07, text, fontsize=13, color=QUIET, va="top", linespacing=1.25)
    for place, text in ((0.787, "prediction"), (0.923, "truth")):
        page.text(place, 0.812, text, fontsize=12, color=INK, ha="center")
    for left in (0.177, 0.398, 0.700):
        page.text(left, 0.44, "➔", fontsize=22, color=QUIET, ha="center", va="center")


def _draw_loss(page):
    """Draw the loss in the colors of the edges, which makes it their legend."""
    parts = (
        ("loss = max(0, margin + ", INK),
        ("distance", ATTRACTIVE),
        (" − ", INK),
        ("distance", REPULSIVE),
        (")", INK),
    )
    names = ((" ━━ attractive", ATTRACTIVE), ("   ╍╍ repulsive", REPULSIVE))
    for bottom, size, line in ((0.045, 12, parts), (0.003, 12, names)):
        texts = [
            offsetbox.TextArea(text, textprops={"color": color, "fontsize": size})
            for text, color in line
        ]
        page.add_artist(
            offsetbox.AnchoredOffsetbox(
                "lower left",
                child=offsetbox.HPacker(children=texts, pad=0, sep=0),
                frameon=False,
                bbox_to_anchor=(0.418, bottom),
                bbox_transform=page.transFigure,
                borderpad=0,
            )
        )


def _pixels(page) -> np.ndarray:
    buffer = io.BytesIO()
    with matplotlib.rc_context({"font.family": "DejaVu Sans"}):
        page.savefig(buffer, format="png", facecolor="white")
    return np.asarray(Image.open(buffer).convert("RGB"))


def _save(picture: np.ndarray, path: pathlib.Path):
    """Write a PNG of 256 colors, a third of the size of a PNG of all colors."""
    Image.fromarray(picture).quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
