"""Settings with the origin of each value, and the files that they are written to and read from."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

import yaml

from trainers.config import keys, presets
from trainers.config.errors import ConfigError
from trainers.config.schema import Experiment

FORMAT = 1
"""Version of settings files; a file of another version is refused."""

_HEAD = ("settings_format", "preset")


@dataclasses.dataclass(frozen=True)
class Resolved:
    """The settings of a run, and where each value comes from.

    Attributes:
        experiment: the settings.
        preset: the name of the preset; empty for an ensemble.
        origins: {key: "preset quick", "flag", "derived" or the name of a file}; a key that is
            missing has its default.
    """

    experiment: Experiment
    preset: str = ""
    origins: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def changed(self, values: Mapping[str, object], origin: str) -> "Resolved":
        """Return a copy with some keys set.

        Raises:
            ConfigError: names every key that is unknown and every value that cannot be used.
        """
        experiment = keys.changed(self.experiment, values)
        return dataclasses.replace(
            self, experiment=experiment, origins={**self.origins, **dict.fromkeys(values, origin)}
        )

    def origin(self, key: str) -> str:
        """Return the origin of a key's value."""
        return self.origins.get(key, "default")

    def as_yaml(self) -> str:
        """Return a settings file with the origin of each value as a comment."""
        lines = [f"settings_format: {FORMAT}", f"preset: {json.dumps(self.preset)}"]
        for key, value in keys.flatten(self.experiment).items():
            lines.append(f"{key}: {json.dumps(value)}  # {self.origin(key)}")
        return "\n".join(lines) + "\n"


def of_preset(name: str, given: Mapping[str, object] | None = None) -> Resolved:
    """Return the settings of a preset.

    Args:
        name: a key of `presets.PRESETS`.
        given: values that will be set afterwards. The preset depends on its data set, backbone,
            init and pixels, so it looks at these four.
    """
    result = Resolved(Experiment(), name)
    for values, origin in presets.layers(name, given or {}):
        result = result.changed(values, origin)
    return result


def read_file(path: str | pathlib.Path) -> tuple[dict[str, object], str | None]:
    """Read a settings file, JSON or YAML, flat ("mm.margin: 2.1") or nested.

    Returns:
        ({key: value}, the name of the preset or None).

    Raises:
        ConfigError: the file cannot be read, or holds no settings of this version.
    """
    path = pathlib.Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"{path} is neither JSON nor YAML: {first}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings: expected lines like 'mm.margin: 2.1'.")
    version = content.pop("settings_format", FORMAT)
    if version != FORMAT:
        raise ConfigError(
            f"{path} has settings_format {version!r}; this program reads {FORMAT}. Write the file "
            "again with --print_config, or use the version that wrote it."
        )
    preset = content.pop("preset", None)
    return _flat(content), preset or None


def _flat(content, prefix=""):
    flat = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def as_file(resolved: Resolved) -> dict[str, object]:
    """Return the content of a settings file, ready for JSON."""
    head = dict(zip(_HEAD, (FORMAT, resolved.preset), strict=True))
    return head | keys.flatten(resolved.experiment)
