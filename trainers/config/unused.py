"""Settings that are given and have no effect, because the value of another one does not use them.

Such a command asks for something that it would not get, so it is refused. Only values that a user
gives are checked: presets and settings files of earlier runs hold all keys.
"""

from collections.abc import Iterable
from typing import NamedTuple

from trainers.config.errors import ConfigError
from trainers.config.keys import flatten
from trainers.config.schema import TRAINING, Experiment, Optimization


class Needs(NamedTuple):
    """The setting that decides whether another one is used.

    Attributes:
        key: the deciding setting.
        values: its values, or terms of its sum, that use the other setting. Empty for a switch: all
            values but 0 and none.
    """

    key: str
    values: tuple[str, ...] = ()

    def is_met(self, value: object) -> bool:
        """Return whether the deciding setting has one of the values; none is left to the run.

        >>> Needs("mm.loss", ("triplet",)).is_met("softmax+triplet")
        True
        """
        if not self.values:
            return bool(value)
        return value is None or not set(self.values).isdisjoint(str(value).split("+"))


_OF_STAGE = {
    "drops": ("schedule", ("drops",)),
    "warmup": ("schedule", ("cosine", "poly")),
    "momentum": ("optimizer", ("sgd",)),
    "backbone_rate": ("optimizer", ("adamw",)),
}
_TRIPLETS = Needs("mm.loss", ("triplet", "triplet_all"))
_TUNING = Needs("mm.steps")
_HYPERCOLUMN = Needs("segment.head", ("hypercolumn",))
_UNET = Needs("segment.head", ("unet",))
_VALIDATION = Needs("segment.validate_every")
_PSEUDO = Needs("data.pseudo_labels")

_OF_SETTING = {
    "mm.margin": _TRIPLETS,
    "mm.scale": _TRIPLETS,
    "mm.matching": Needs("mm.loss", ("triplet",)),
    "mm.loss_margin": Needs("mm.loss", ("triplet_semihard", "cosface", "proxy_anchor")),
    "mm.temperature": Needs(
        "mm.loss", ("supcon", "normalized_softmax", "cosface", "proxy_anchor", "pixel_contrast")
    ),
    "mm.num_points": Needs("mm.loss", ("pixel_contrast",)),
    "segment.num_points": _HYPERCOLUMN,
    "segment.point_border": _HYPERCOLUMN,
    "segment.balanced_points": _HYPERCOLUMN,
    "segment.input_scale": _HYPERCOLUMN,
    "segment.decoder_width": _UNET,
    "segment.deep_supervision": _UNET,
    "segment.keep": _VALIDATION,
    "segment.monitor": _VALIDATION,
    "segment.patience": _VALIDATION,
    "data.validation_images": Needs("data.validation"),
    "data.service": _TUNING,
    "data.pseudo_threshold": _PSEUDO,
    "data.pseudo_min_share": _PSEUDO,
    "data.pseudo_share": _PSEUDO,
}
_OF_TUNING = (
    "loss",
    "embedding",
    "projection",
    "temperature",
    "margin",
    "loss_margin",
    "scale",
    "matching",
    "learning_rate",
    "optimizer",
    "schedule",
    "decay",
    "num_images",
    "chunk",
    "graph",
    "augmentation",
)


def _tables():
    """Yield (setting, what it needs); a setting may need several."""
    for section in TRAINING:
        for name, (other, values) in _OF_STAGE.items():
            yield f"{section}.{name}", Needs(f"{section}.{other}", values)
    yield from _OF_SETTING.items()
    yield from ((f"mm.{name}", _TUNING) for name in _OF_TUNING)


NEEDS: dict[str, list[Needs]] = {}
"""{setting: the settings that decide whether it is used}."""

for _key, _needs in _tables():
    NEEDS.setdefault(_key, []).append(_needs)


def check(experiment: Experiment, given: Iterable[str]) -> None:
    """Raise an error if a given setting has no effect.

    A setting may have its default, which asks for nothing. Who turns a switch off may leave its
    settings: `--set mm.steps=0` after the settings of M&M gives the run to compare with.

    Args:
        experiment: the settings of a run.
        given: keys that a user gives.

    Raises:
        ConfigError: names the setting, and the value of the other one that does not use it.
    """
    values, usual, given = flatten(experiment), _usual(), set(given)
    for key in sorted(given & NEEDS.keys()):
        for needs in NEEDS[key]:
            is_switched = not needs.values and needs.key in given
            if values[key] == usual[key] or is_switched or needs.is_met(values[needs.key]):
                continue
            used = " or ".join(f"{needs.key}={value}" for value in needs.values)
            raise ConfigError(
                f"{key}={_text(values[key])} has no effect with {needs.key}="
                f"{_text(values[needs.key])}. Leave it out, or use "
                f"{used or f'another {needs.key}'}."
            )


def _usual():
    """Return {key: the value that asks for nothing}."""
    plain = flatten(Optimization())
    stages = {f"{section}.{name}": plain[name] for section in TRAINING for name in _OF_STAGE}
    return flatten(Experiment()) | stages


def _text(value):
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
