"""The reference of all settings in Markdown.

python -m trainers.config.reference > docs/reference/configuration.md
"""

import operator
from collections.abc import Iterator

from trainers.config import keys, presets
from trainers.config.schema import PROXIES, STARTS, Experiment

_HEAD = """\
# Configuration

This page lists every setting. It is generated from `trainers/config/schema.py`:
`python -m trainers.config.reference > docs/reference/configuration.md`.

Set a key with `--set KEY=VALUE`, in a settings file (`--config=FILE`) or in Python
(`trainers.config.replace`). Lists have commas between their items: `--set mm.drops=100,200`. `none`
stands for no value. Sizes that are "int or float" are pixels, or a share of the images' shorter
side. A setting that is given and has no effect is refused, such as `segment.drops` with
`segment.schedule=cosine`. `python -m trainers.mm --print_config` prints the settings of a run with
their origins.
"""

_STARTS = """\
## Starts

The values of `network.init`. Stage proxy trains a pretext task on images without labels, unless
`network.init_weights` names a file. With `network.rescale=true` the layers of any start are scaled
to one change rate.
"""

_PRESETS = """\
## Presets

A preset is a set of values. `python -m trainers.report --presets` lists the cells of the paper's
tables as well. The values below differ from the defaults above. To see the values of a cell, use
`python -m trainers.mm --preset=NAME --data_dir=DIR --print_config`.
"""


def page() -> str:
    """Return docs/reference/configuration.md."""
    return "\n".join([_HEAD, *_sections(), _STARTS, *starts(), "", _PRESETS, *_preset_parts()])


def starts() -> Iterator[str]:
    """Yield the rows of the table of starts."""
    yield "| init | start | stage proxy |"
    yield "|---|---|---|"
    for init, summary in STARTS.items():
        stage = "pretext task" if init in PROXIES else "-"
        yield f"| `{init}` | {summary.removesuffix('.')} | {stage} |"


def _sections() -> Iterator[str]:
    groups = {"": []}
    for setting in keys.settings().values():
        groups.setdefault(setting.key.rpartition(".")[0], []).append(setting)
    for section, settings in groups.items():
        if section:
            summary = type(operator.attrgetter(section)(Experiment())).__doc__
            yield f"## {section}\n\n{summary}\n"
        else:
            yield "## Keys without a section\n"
        yield "| key | type, bounds or choices | default | description | source |"
        yield "|---|---|---|---|---|"
        yield from map(_row, settings)
        yield ""


def _row(setting: keys.Setting) -> str:
    cells = (
        f"`{setting.key}`",
        setting.expected,
        f"`{_text(setting.default)}`",
        setting.description,
        setting.source.removesuffix("."),
    )
    return f"| {' | '.join(cells)} |"


def _preset_parts() -> Iterator[str]:
    for name, preset in presets.PRESETS.items():
        if preset.claim:
            continue
        yield f"### {name}\n\n{preset.summary[0].upper()}{preset.summary[1:]}.\n"
        yield from _changes(preset.keys)
        layers = ("of_backbone", "of_dataset", "of_network")
        for layer in layers:
            for condition, changes in getattr(preset, layer).items():
                yield f"With {_condition(condition)}:\n"
                yield from _changes(changes)


def _condition(condition) -> str:
    if isinstance(condition, str):
        return condition
    backbone, init, pixels = condition
    return f"{backbone} from {init}" + (f" and `network.pixels={pixels}`" if pixels else "")


def _changes(changes) -> Iterator[str]:
    if changes:
        yield from (f"- `{key}={_text(value)}`" for key, value in changes.items())
        yield ""


def _text(value) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(map(_text, value)) or "(empty)"
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    print(page(), end="")
