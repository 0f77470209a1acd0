"""The page of stage suggest: one HTML file with embedded pictures and without scripts."""

import html
from collections.abc import Sequence

from pipelines import datasets
from trainers.runs.pictures import data_url

NAME = "index.html"
SIDE = 240
"""Pixels of the longer side of a picture."""

_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top }
figure img { margin-right: .2rem } figcaption { opacity: .75; overflow-wrap: anywhere }
"""


def render(
    spec: datasets.DatasetSpec, new: Sequence, masks: Sequence, has_images: bool = True
) -> str:
    """Return the page.

    Args:
        spec: facts of the data set.
        new: `trainers.stages.suggest.Scored` of the images to label, in order.
        masks: the same of the masks to look at again.
        has_images: whether new images were given.
    """
    name = html.escape(spec.name)
    hint = "" if has_images else "<p>No new images were given: set suggest.images to a folder.</p>"
    parts = [
        f"<h1>{name}: what to label next</h1>",
        "<h2>Images to label</h2>",
        hint or _figures(new, "uncertainty", "No image could be read."),
        "<h2>Masks to look at again</h2>",
        "<p>Image, mask, and prediction. The network contradicts these masks most firmly.</p>",
        _figures(masks, "doubt", "The network contradicts no mask."),
    ]
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>suggest: {name}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _figures(images, score, otherwise) -> str:
    return "".join(_figure(k, image, score) for k, image in enumerate(images, 1)) or (
        f"<p>{otherwise}</p>"
    )


def _figure(rank, scored, score) -> str:
    panels = (scored.image, scored.truth, scored.prediction)
    pictures = "".join(_picture(panel) for panel in panels if panel is not None)
    caption = f"{rank}. {html.escape(scored.name)}, {score} {scored.score:.3f}"
    return f"<figure>{pictures}<figcaption>{caption}</figcaption></figure>"


def _picture(pixels) -> str:
    height, width = pixels.shape[:2]
    return f'<img width="{width}" height="{height}" alt="" src="{data_url(pixels)}">'
