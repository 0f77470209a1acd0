"""Settings as keys ("mm.margin") and values: read, change, flatten, describe.

pydantic checks types and bounds. This module adds the keys, the reading of text from the command
line, and messages that name key, received value and expectation.
"""

import dataclasses
import difflib
import functools
import json
import typing
from collections.abc import Mapping
from typing import Literal, NamedTuple

import annotated_types
import pydantic

from trainers.config.errors import ConfigError, unknown
from trainers.config.schema import Experiment, OneOf

RENAMED = {"jigsaw.grey_share": "jigsaw.gray_share"}
"""Keys of earlier versions, refused with their new names."""

RENAMED_VALUES = {("jigsaw.placement", "centre"): "center"}
"""Values of earlier versions, refused with their new spelling."""


class Setting(NamedTuple):
    """The facts of one key.

    Attributes:
        key: for example "mm.margin".
        annotation: its type, with bounds.
        default: its default.
        description: one line.
        source: the origin of the default.
    """

    key: str
    annotation: object
    default: object
    description: str
    source: str

    @property
    def choices(self) -> tuple:
        """The values that it can have; empty if they are not a list."""
        return tuple(choice for part in _parts(self.annotation) for choice in _choices(part))

    @property
    def expected(self) -> str:
        """Its type, bounds or choices in words, for example "int, at least 1, or none"."""
        if self.choices:
            return " or ".join(map(str, self.choices))
        return " or ".join(dict.fromkeys(map(_in_words, _parts(self.annotation))))


@functools.cache
def settings() -> dict[str, Setting]:
    """Return the facts of all keys, in the order of definition."""
    return {setting.key: setting for setting in _settings(Experiment, "")}


def replace(experiment: Experiment, key: str, value: object) -> Experiment:
    """Return a copy with the value of one key replaced.

    Args:
        key: "mm.margin" or "seed".
        value: of the field's type, or text to be read as one: "2.1", "none", "true", "100,200".

    Raises:
        ConfigError: an unknown key (with the closest known keys), or a value that the field does
            not take.

    >>> replace(Experiment(), "mm.drops", "100,200").mm.drops
    (100, 200)
    """
    value = read(key, value)
    return _replaced(experiment, key.split("."), value)


def read(key: str, value: object) -> object:
    """Return the value of a key as its field takes it; see `replace`."""
    if key not in settings():
        raise ConfigError(_unknown_key(key))
    candidates, error = _candidates(value), None
    for candidate in candidates:
        try:
            return _adapter(key).validate_json(json.dumps(candidate), strict=True)
        except pydantic.ValidationError as problem:
            if error is None or _is_about_bounds(problem):
                error = problem
        except TypeError:  # not a type of JSON
            continue
    raise ConfigError(_refusal(settings()[key], value, error))


def all_keys() -> list[str]:
    """Return all keys that `replace` takes."""
    return list(settings())


def flatten(experiment: object) -> dict[str, object]:
    """Return {"mm.margin": 2.1, ...} in the order of definition, tuples as lists, ready for JSON.

    >>> flatten(Experiment())["mm.drops"]
    [6000]
    """
    flat = {}
    for field in dataclasses.fields(experiment):
        value = getattr(experiment, field.name)
        if dataclasses.is_dataclass(value):
            flat |= {f"{field.name}.{key}": inner for key, inner in flatten(value).items()}
        else:
            flat[field.name] = list(value) if isinstance(value, tuple) else value
    return flat


def changed(experiment: Experiment, values: Mapping[str, object], source: str = "") -> Experiment:
    """Return a copy with several keys replaced.

    Args:
        values: {"mm.margin": 2.1, ...}.
        source: the file that they come from, for the message.

    Raises:
        ConfigError: names every key that is unknown and every value that cannot be used.
    """
    problems = []
    for key, value in values.items():
        try:
            experiment = replace(experiment, key, value)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        where = f"{source}: " if source else ""
        raise ConfigError(where + "\n".join(problems))
    return experiment


def from_flat(flat: Mapping[str, object], source: str) -> Experiment:
    """Return the experiment that a run recorded; keys that are missing have their defaults.

    Args:
        flat: {"mm.margin": 2.1, ...}, as read from JSON.
        source: the file, for messages.

    Raises:
        ConfigError: an unknown key or a value that cannot be used; names the file.
    """
    try:
        return changed(Experiment(), flat)
    except ConfigError as error:
        raise ConfigError(
            f"{source} was written by another version of this program: {error} "
            "Run its stages again with --overwrite, or use the version that wrote it."
        ) from error


def resolve(experiment: Experiment, shorter_side: int, num_bands: int = 3) -> Experiment:
    """Turn sizes that are shares of the images' shorter side into pixels.

    Patch sizes become even, since a patch is centered on a pixel of a known label.

    Args:
        experiment: the settings.
        shorter_side: of the images in pixels; `data.shorter_side` bounds it.
        num_bands: number of bands of the images, for `network.channels`.
    """
    return changed(experiment, derived(experiment, shorter_side, num_bands))


def derived(experiment: Experiment, shorter_side: int, num_bands: int = 3) -> dict[str, int]:
    """Return {key: pixels} for each size that is a share, and the bands; see `resolve`."""
    if experiment.data.shorter_side is not None:
        shorter_side = min(shorter_side, experiment.data.shorter_side)
    multiples = {"mm.min_size": 2, "mm.max_size": 2, "mm.crop": 1, "segment.crop": 1}
    flat = flatten(experiment)
    pixels = {
        key: max(multiple, round(flat[key] * shorter_side / multiple) * multiple)
        for key, multiple in multiples.items()
        if isinstance(flat[key], float)
    }
    return pixels | ({"network.channels": num_bands} if num_bands != 3 else {})


def _settings(section, prefix):
    for field in dataclasses.fields(section):
        key = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(field.default):
            yield from _settings(type(field.default), f"{key}.")
        else:
            yield _setting(key, section, field.name, field.default)


def _replaced(section, names, value):
    name, *inner = names
    if inner:
        value = _replaced(getattr(section, name), inner, value)
    return dataclasses.replace(section, **{name: value})


def _setting(key, section, name, default):
    text = next(
        (text for owner in section.__mro__ if (text := _description(owner, name)) is not None), ""
    )
    description, _, source = " ".join(text.split()).partition(" Source: ")
    annotation = typing.get_type_hints(section, include_extras=True)[name]
    return Setting(key, annotation, default, description, source)


def _description(owner, name):
    fields = owner.__dict__.get("__pydantic_fields__", {})
    return fields[name].description if name in fields else None


@functools.cache
def _adapter(key):
    config = pydantic.ConfigDict(allow_inf_nan=False)
    return pydantic.TypeAdapter(settings()[key].annotation, config=config)


def _candidates(value):
    """Return the readings of a value, the likeliest first; only text has several."""
    if isinstance(value, tuple):
        return [list(value)]
    if not isinstance(value, str):
        return [value]
    if value.lower() == "none":
        return [None, value]
    items = [item.strip() for item in value.split(",") if item.strip()]
    return [value, _scalar(value), items, [_scalar(item) for item in items]]


def _scalar(text):
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _is_about_bounds(problem):
    """Return whether the value has the right type: its message is the most useful one."""
    types = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "value_error"}
    return bool(types & {error["type"] for error in problem.errors()})


def _unknown_key(key):
    if key in RENAMED:
        return f"Key {key!r} is now called {RENAMED[key]!r}."
    known = list(settings())
    close = difflib.get_close_matches(key, known, n=3)
    inside = [other for other in known if other.startswith(f"{key}.")] or known
    hint = f" Did you mean {' or '.join(close)}?" if close else f" Known: {', '.join(inside)}."
    return f"Unknown config key {key!r}.{hint}"


def _refusal(setting, value, error):
    spelling = (setting.key, str(value))
    if spelling in RENAMED_VALUES:
        return f"{setting.key}: {value!r} is now {RENAMED_VALUES[spelling]!r}."
    problems = error.errors() if error else ()
    texts = [p["msg"].removeprefix("Value error, ") for p in problems if p["type"] == "value_error"]
    if setting.choices and texts and "+" in str(value):  # a sum: the text names the wrong part
        return f"{setting.key}: {texts[0]}"
    if setting.choices:
        return unknown(setting.key, value, setting.choices)
    for text in texts:
        return f"{setting.key} {text}."
    return f"{setting.key} must be {setting.expected}. Received {value!r}."


def _parts(annotation):
    """Return the alternatives of a type, none first."""
    if typing.get_origin(annotation) is typing.Annotated:
        if any(isinstance(item, pydantic.AfterValidator) for item in annotation.__metadata__):
            return [annotation]
        inner = typing.get_args(annotation)[0]
        return [annotation] if len(_parts(inner)) == 1 else _parts(inner)
    arguments = typing.get_args(annotation)
    if not arguments or typing.get_origin(annotation) in (tuple, Literal):
        return [annotation]
    return sorted(arguments, key=lambda part: part is not type(None))


def _choices(part):
    if typing.get_origin(part) is Literal:
        return typing.get_args(part)
    for item in getattr(part, "__metadata__", ()):
        if isinstance(getattr(item, "func", None), OneOf):
            return item.func.choices()
    return ()


_BOUNDS = {
    annotated_types.Ge: ("ge", "at least"),
    annotated_types.Gt: ("gt", "more than"),
    annotated_types.Le: ("le", "at most"),
    annotated_types.Lt: ("lt", "less than"),
}


def _in_words(part):
    if part is type(None):
        return "none"
    if typing.get_origin(part) is not typing.Annotated:
        return _name(part)
    words = [_name(typing.get_args(part)[0])]
    for item in part.__metadata__:
        for bound in getattr(item, "metadata", ()):
            if type(bound) in _BOUNDS:
                attribute, word = _BOUNDS[type(bound)]
                words.append(f"{word} {getattr(bound, attribute):.10g}")
    return ", ".join(words)


def _name(kind):
    if typing.get_origin(kind) is tuple:
        return f"a list of {typing.get_args(kind)[0].__name__}"
    return kind.__name__
