"""The flags that describe a run, and the settings that they give; shared by `mm` and `study`."""

import pathlib

from absl import flags

from trainers import config
from trainers.config import resolved, schedules, unused
from trainers.config.keys import settings

FLAGS = flags.FLAGS

KEYS = {
    "backbone": "network.backbone",
    "dataset": "data.dataset",
    "init": "network.init",
    "init_weights": "network.init_weights",
    "data_dir": "data.data_dir",
    "unlabelled_dir": "data.unlabelled_dir",
    "train_split": "data.train_split",
    "eval_split": "data.eval_split",
    "precision": "precision",
    "strategy": "strategy",
    "data_service": "data.service",
    "seed": "seed",
}
"""Flag -> the key that it sets."""

DEFAULT_PRESET = "quick"


def _define():
    flags.DEFINE_string(
        "preset",
        DEFAULT_PRESET,
        "quick, standard, detail, photos, tuned, naive, paper, release or a cell of the paper; "
        "python -m trainers.report --presets lists them.",
    )
    flags.DEFINE_string("config", None, "Settings file, JSON or YAML, that changes the preset.")
    for name, key in KEYS.items():
        setting = settings()[key]
        default = "" if setting.default is None else f" Default: {setting.default}."
        text = f"{setting.description}{default}"
        if setting.choices:
            text += f" One of {', '.join(map(str, setting.choices))}."
        flags.DEFINE_string(name, None, text, allow_override=True)
    flags.DEFINE_multi_string("set", [], "Any key of the settings: --set mm.margin=2.1.")
    flags.DEFINE_list("ensemble", [], "Working folders of finished runs to average: A,B.")


_define()


def read(workdir: str | None = None) -> resolved.Resolved:
    """Return the settings: preset, settings file, flags, then each --set; the last one wins.

    An ensemble starts from the settings of its first member instead of a preset.

    Args:
        workdir: folder of a run. If it holds settings, and neither --preset nor --config is given,
            they take the place of the preset: a run remembers its settings.

    Raises:
        config.ConfigError: an unknown preset, key or value, one without effect, or one that an
            ensemble cannot have.
    """
    given = _given()
    if FLAGS.ensemble:
        return _of_ensemble(given)
    file = _settings_file(workdir)
    from_file, preset = _read(file) if file else ({}, None)
    if FLAGS["preset"].present or preset is None:
        preset = FLAGS.preset
    result = resolved.of_preset(preset, from_file | given)
    try:
        result = schedules.changed(result, from_file, str(file))
    except config.ConfigError as error:
        raise config.ConfigError(f"{file}: {error}") from error
    result = schedules.changed(result, given, "flag")
    unused.check(result.experiment, given)
    return result


def _read(file):
    try:
        return resolved.read_file(file)
    except config.ConfigError as error:
        if FLAGS.config:
            raise
        raise config.ConfigError(
            f"{error} Restore it, or give all settings of this run again, beginning with --preset."
        ) from error


def _settings_file(workdir):
    if FLAGS.config:
        return pathlib.Path(FLAGS.config)
    file = pathlib.Path(workdir or ".") / "settings.json"
    is_remembered = workdir and not FLAGS["preset"].present and file.exists()
    return file if is_remembered else None


def _given() -> dict[str, object]:
    """Return the keys and values that the flags and then each --set give."""
    values = {key: FLAGS[flag].value for flag, key in KEYS.items()}
    values = {key: value for key, value in values.items() if value is not None}
    for assignment in FLAGS["set"].value:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise config.ConfigError(f"--set takes KEY=VALUE. Received {assignment!r}.")
        values.pop(key, None)  # the order of the values is the order on the command line
        values[key] = value
    return values


def _of_ensemble(given) -> resolved.Resolved:
    for key in given:
        # The members are trained already: only data and ways of predicting can be chosen.
        is_fixed = key in {"data.shorter_side", *config.PSEUDO_KEYS}
        if is_fixed or not key.startswith(("data.", "evaluate.")):
            raise config.ConfigError(
                f"{key} is fixed by the members of an ensemble. Leave it out, or train a member "
                "with it."
            )
    for flag in ("preset", "config"):
        if FLAGS[flag].present:
            raise config.ConfigError(f"--{flag} has no meaning for an ensemble. Leave it out.")
    from trainers.runs import ensemble

    experiment = ensemble.of_workdirs(FLAGS.ensemble)
    origins = dict.fromkeys(config.all_keys(), FLAGS.ensemble[0])
    return resolved.Resolved(experiment, origins=origins).changed(given, "flag")
