"""Schedules that keep their shape: the drops of a stage follow its number of steps."""

from collections.abc import Mapping

from trainers.config.errors import ConfigError
from trainers.config.resolved import Resolved
from trainers.config.schema import TRAINING


def changed(settings: Resolved, values: Mapping[str, object], origin: str) -> Resolved:
    """Return a copy with some keys set, and with drops that fit the new steps.

    Who changes only the steps of a stage means a shorter or longer run of the same schedule. So its
    drops are scaled by the same factor.

    Args:
        settings: the settings before the change.
        values: {key: value}.
        origin: origin of the values.

    Raises:
        ConfigError: an unknown key, a wrong value, or a drop after the last step.
    """
    result = settings.changed(values, origin)
    scaled = {}
    for section in TRAINING:
        before, after = (getattr(s.experiment, section) for s in (settings, result))
        if not after.drops or not after.steps or after.schedule != "drops":
            continue
        if f"{section}.steps" in values and f"{section}.drops" not in values:
            scaled[f"{section}.drops"] = _scaled(before.drops, before.steps, after.steps)
        elif after.drops[-1] >= after.steps and f"{section}.drops" in values:
            raise ConfigError(
                f"{section}.drops={list(after.drops)} lies beyond the last step, "
                f"{section}.steps={after.steps}. Choose lower drops. Without {section}.drops, the "
                "usual drops are scaled to the steps."
            )
    return result.changed(scaled, "derived") if scaled else result


def _scaled(drops, num_before, num_after):
    scaled = {max(1, round(drop * num_after / max(num_before, 1))) for drop in drops}
    return tuple(sorted(drop for drop in scaled if drop < num_after))
