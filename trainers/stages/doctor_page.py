"""The page of stage doctor: one HTML file with embedded pictures and without scripts."""

import html

import numpy as np
from PIL import Image

from mm_keras import visualize
from pipelines.datasets import audit
from trainers.runs.pictures import data_url

_MOST_NAMES = 500  # names of a finding on the page
_PICTURE_SIDE = 260  # pixels of the longer side: two figures of two panels fit side by side
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
h1 { margin-bottom: 0 } h2 { margin-top: 2.2rem }
.source, .quiet { color: #666 }
.finding { border-left: .35rem solid #d9a400; background: #fdf8e6; padding: .6rem 1rem;
  margin: .8rem 0 }
.error { border-color: #c62828; background: #fdecea }
.fine { border-color: #2e7d32; background: #edf7ed }
.finding p { margin: .2rem 0 } .finding ul { margin: .2rem 0; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
th { text-align: left; font-weight: 600 }
td, th { padding: .15rem .6rem .15rem 0; white-space: nowrap }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
td.bars { width: 40% }
.bar { background: #4878a8; height: .55rem; min-width: 1px } .bar.none { background: none }
.swatch { display: inline-block; width: .9rem; height: .9rem; margin-right: .5rem;
  border: 1px solid #999; vertical-align: -.1rem }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top }
figure img { display: block } figcaption { color: #666; overflow-wrap: anywhere }
"""


def page(result: audit.Audit) -> str:
    """Return the page: findings, class statistics of the splits, and images with their masks."""
    name = html.escape(result.spec.name)
    parts = [
        f"<h1>{name}</h1>",
        f'<p class="source">{html.escape(result.spec.source)}</p>',
        *(f"<p>{html.escape(message)}</p>" for message in result.messages),
        "<h2>Findings</h2>",
        *_findings(result),
        *(_split(result.spec, split) for split in result.splits),
    ]
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>doctor: {name}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _findings(result: audit.Audit) -> list[str]:
    if not result.findings:
        return ['<div class="finding fine">No faults were found in this data set.</div>']
    return [_finding(finding) for finding in result.findings]


def _finding(finding: audit.Finding) -> str:
    severity = "error" if finding.is_error else "warning"
    names = "".join(f"<li>{html.escape(name)}</li>" for name in finding.names[:_MOST_NAMES])
    if len(finding.names) > _MOST_NAMES:
        names += f"<li>and {len(finding.names) - _MOST_NAMES:,} more</li>"
    is_open = " open" if len(finding.names) <= 10 else ""
    return (
        f'<div class="finding {severity}"><p><b>{severity}</b>: {len(finding.names):,} &times; '
        f"{html.escape(finding.kind.problem)}</p><details{is_open}><summary>files</summary>"
        f"<ul>{names}</ul></details><p>&rarr; {html.escape(finding.kind.fix)}</p></div>"
    )


def _split(spec, split: audit.SplitFacts) -> str:
    sizes = [f"{height} x {width}" for height, width in (split.smallest, split.largest)]
    size = sizes[0] if sizes[0] == sizes[1] else f"{sizes[0]} to {sizes[1]}"
    facts = f"{split.num_images:,} images of {size} pixels (height x width)"
    if split.num_sound < split.num_images:
        facts += f", {split.num_sound:,} without a fault, which the table counts"
    facts += f"; {split.void_share:.1%} void" if split.has_masks else "; no masks"
    return (
        f"<h2>{html.escape(split.name)}</h2><p>{facts}.</p>"
        f"{_class_table(spec, split) if split.has_masks else ''}{_pictures(spec, split)}"
    )


def _class_table(spec, split: audit.SplitFacts) -> str:
    """Return a table with one row per class; the longest bar is the most frequent class."""
    shares = split.class_pixels / max(1, split.class_pixels.sum())
    longest = max(shares.max(), 1e-9)
    rows = []
    for k, (name, color) in enumerate(zip(spec.class_names, spec.colors, strict=True)):
        kind = "bar" if split.class_pixels[k] else "bar none"
        rows.append(
            f'<tr><td>{k}</td><td><span class="swatch" style="background: rgb{tuple(color)}">'
            f'</span>{html.escape(name)}</td><td class="number">{split.class_images[k]:,}</td>'
            f'<td class="number">{split.class_pixels[k]:,}</td>'
            f'<td class="number">{shares[k]:.2%}</td><td class="bars">'
            f'<div class="{kind}" style="width: {100 * shares[k] / longest:.1f}%"></div></td></tr>'
        )
    return (
        '<table><tr><th>id</th><th>class</th><th class="number">images with it</th>'
        '<th class="number">pixels</th><th class="number">of the labelled</th><th></th></tr>'
        f"{''.join(rows)}</table>"
    )


def _pictures(spec, split: audit.SplitFacts) -> str:
    """Return the images, each beside a copy with its mask over it; void is hatched."""
    if not split.pictures:
        return ""
    figures = []
    for picture in split.pictures:
        image, overlay = _overlay(picture, spec.colors)
        both = np.concatenate([image, overlay], 1) if split.has_masks else image
        figures.append(
            f'<figure><img alt="" src="{data_url(both)}">'
            f"<figcaption>{html.escape(picture.id)}</figcaption></figure>"
        )
    legend = '<p class="quiet">Right: the image with its mask; void is hatched.</p>'
    return f"<div>{legend if split.has_masks else ''}{''.join(figures)}</div>"


def _overlay(picture: audit.Picture, colors) -> tuple[np.ndarray, np.ndarray]:
    """Return the image, scaled down, and its average with the colored mask."""
    height, width = picture.labels.shape
    scale = min(1, _PICTURE_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    rgb = np.ascontiguousarray(visualize.as_rgb(picture.pixels))
    image = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))
    labels = Image.fromarray(picture.labels).resize(size, Image.Resampling.NEAREST)
    painted = visualize.color_map(np.asarray(labels), colors)
    return image, ((image.astype(np.uint16) + painted) // 2).astype(np.uint8)
