"""A time budget becomes steps of the stages, with the shape of the schedule kept."""

import io
import pathlib

import pytest
import rich.console

from trainers import config, experiment
from trainers.config import resolved
from trainers.training import budget

COSTS = [budget.Cost("mm", 150, 0.2, 6.0), budget.Cost("segment", 360, 0.1, 4.0)]


def _planned(minutes, costs=COSTS):
    return budget.planned(resolved.of_preset("release"), costs, minutes)


def test_the_plan_uses_the_time_and_keeps_the_shares_of_the_stages():
    plan = _planned(10).experiment
    seconds = 10 + 0.2 * plan.mm.steps + 0.1 * plan.segment.steps
    assert 598 < seconds <= 600
    assert plan.mm.steps / plan.segment.steps == pytest.approx(150 / 360, rel=0.01)


def test_drops_keep_their_share_of_the_steps():
    plan = _planned(10).experiment
    assert plan.mm.drops[0] / plan.mm.steps == pytest.approx(6000 / 8000, rel=0.01)


def test_a_stage_without_steps_stays_without_steps():
    costs = [budget.Cost("mm", 0, 0.2, 6.0), COSTS[1]]
    assert _planned(1, costs).experiment.mm.steps == 8000  # untouched


@pytest.mark.parametrize("minutes", [0, 0.1, 0.17])
def test_a_budget_below_one_step_of_each_stage_is_refused_with_the_least(minutes):
    with pytest.raises(config.ConfigError, match=r"too short: .* at least 0.3 minutes"):
        _planned(minutes)


def test_the_plan_names_steps_and_minutes():
    lines = budget.describe(_planned(10), COSTS)
    assert lines[0].startswith("mm: 1") and "200 ms" in lines[0]
    assert lines[1].startswith("segment: 3") and "minutes" in lines[1]


def test_a_run_that_has_begun_keeps_its_plan(tmp_path):
    settings = resolved.of_preset("quick")
    assert budget.planned_before(settings, tmp_path) is None
    text = settings.changed({"mm.steps": 77, "segment.steps": 99}, "derived").as_yaml()
    (tmp_path / "settings.json").write_text(text)
    again = budget.planned_before(settings, tmp_path).experiment
    assert (again.mm.steps, again.segment.steps) == (77, 99)


def test_several_devices_are_refused():
    settings = resolved.of_preset("quick").changed({"strategy": "mirrored"}, "flag")
    with pytest.raises(config.ConfigError, match="one device"):
        experiment.within_minutes(settings, 5)


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [150, 0])
def test_stages_are_timed_in_a_folder_of_their_own(tmp_path, monkeypatch, num_steps):
    monkeypatch.chdir(tmp_path)
    settings = resolved.of_preset("quick", {"network.backbone": "testing"})
    changes = {"network.backbone": "testing", "mm.steps": num_steps}
    settings = settings.changed(changes, "flag")
    output = io.StringIO()
    console = rich.console.Console(file=output)
    plan = experiment.within_minutes(settings, 2, ["mm", "segment"], console).experiment
    assert plan.segment.steps > 10 and (plan.mm.steps > 10) == (num_steps > 0)
    assert "segment: " in output.getvalue() and not list(pathlib.Path(tmp_path).iterdir())


@pytest.mark.slow
def test_fine_tuning_alone_can_be_planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = resolved.of_preset("quick", {"network.backbone": "testing"})
    settings = settings.changed({"network.backbone": "testing"}, "flag")
    plan = experiment.within_minutes(settings, 2, ["segment"]).experiment
    assert plan.segment.steps > 10 and plan.mm.steps == settings.experiment.mm.steps
