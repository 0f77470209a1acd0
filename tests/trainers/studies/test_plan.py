"""The plan of a study: changes and budgets of its arms, commands of its runs."""

import pathlib

import pytest

from trainers import config
from trainers.config import presets
from trainers.studies import plan, step_cost


def shared(**changes):
    experiment = presets.experiment("tuned", "camvid")
    for key, value in changes.items():
        experiment = config.replace(experiment, key.replace("__", "."), value)
    return config.resolve(experiment, 360)


COST = step_cost.StepCost(mm=2000, segment=5000)


def test_naive_longer_spends_the_cost_of_mm_on_fine_tuning():
    """30 steps of 2,000 cost 60,000, as much as 12 steps of 5,000. With 52 steps instead of 40, the
    drops at 20 and 30 move to 26 and 39.
    """
    experiment = shared(mm__steps=30, segment__steps=40, segment__drops="20,30")
    changes = plan.naive_longer(experiment, COST)
    assert changes["mm.steps"] == 0
    assert changes["segment.steps"] == 52 and changes["segment.drops"] == (26, 39)
    more = config.replace(experiment, "mm.steps", 31)  # 12.4 steps: rounded up
    assert plan.naive_longer(more, COST)["segment.steps"] == 53


def test_arms_have_their_own_changes_and_seeds():
    planned = plan.plan(
        ["naive", "naive_longer:1", "mine:2", "class_connected"],
        [0, 1, 5],
        ["mine:mm.patch_size=64", "mine:mm.steps=7", "naive:segment.decay=0"],
        shared(),
        COST,
    )
    assert [(arm.name, arm.seeds) for arm in planned] == [
        ("naive", (0, 1, 5)),
        ("naive_longer", (0,)),
        ("mine", (0, 1)),
        ("class_connected", (0, 1, 5)),
    ]
    assert planned[0].changes == {"mm.steps": 0, "mm.drops": (), "segment.decay": "0"}
    assert planned[2].changes == {"mm.patch_size": "64", "mm.steps": "7"}


@pytest.mark.parametrize(
    ("names", "seeds", "changes", "message"),
    [
        (["naiv"], [0], [], "Unknown arm 'naiv'.*Did you mean naive"),
        (["naive", "naive"], [0], [], "one or more different arms. Received .'naive', 'naive'"),
        (["naive"], [0, 0], [], "one or more different seeds. Received .0, 0"),
        (["naive"], [], [], "one or more different seeds. Received"),
        (["naive:3"], [0, 1], [], r"N in 1..2. Received 'naive:3'"),
        (["naive:x"], [0, 1], [], "Received 'naive:x'"),
        (
            ["naive"],
            [0],
            ["class_connected:mm.margin=1"],
            "Unknown arm with changes 'class_connected'; known: naive",
        ),
        (["naive"], [0], ["mm.margin=1"], "has the form ARM:KEY=VALUE. Received 'mm.margin=1'"),
    ],
)
def test_impossible_plans_are_refused(names, seeds, changes, message):
    with pytest.raises(config.UserError, match=message):
        plan.plan(names, seeds, changes, shared(), COST)


def test_arms_that_need_steps_of_mm_are_refused_without_them():
    with pytest.raises(plan.StudyError, match="equal to naive: class_connected, naive_longer"):
        names = ["naive", "naive_longer", "class_connected"]
        plan.plan(names, [0], [], shared(mm__steps=0), COST)
    found = plan.plan(["naive", "pseudo_labels"], [0], [], shared(mm__steps=0), COST)
    assert [arm.name for arm in found] == ["naive", "pseudo_labels"]


def study(names=("naive", "class_connected:1"), seeds=(3, 4), changes=(), **settings):
    experiment = presets.experiment("tuned", "camvid")
    for key, value in settings.items():
        experiment = config.replace(experiment, key.replace("__", "."), value)
    resolved = config.resolve(experiment, 360)
    planned = plan.plan(list(names), list(seeds), list(changes), resolved, COST)
    return plan.Study(pathlib.Path("s"), planned, experiment, 360, "tuned")


def test_runs_come_seed_by_seed_in_folders_of_their_own():
    made = study()
    runs = [(arm.name, seed, str(made.folder(arm, seed))) for arm, seed in made.runs()]
    assert runs == [
        ("naive", 3, "s/naive/seed3"),
        ("class_connected", 3, "s/class_connected/seed3"),
        ("naive", 4, "s/naive/seed4"),
    ]


def test_settings_of_a_run_have_the_changes_of_its_arm_in_pixels():
    made = study(["mine"], changes=["mine:mm.max_size=0.5"])
    experiment = made.experiment(made.arms[0], 4)
    assert experiment.seed == 4 and experiment.mm.max_size == 90  # half of 180
    assert study().experiment(study().arms[0], 3).mm.steps == 0


@pytest.mark.parametrize("init", ["random", "jigsaw"])
def test_an_arm_runs_the_stages_from_mm_to_evaluate(init):
    made = study(["longer", "pseudo_labels"], network__init=init)
    stages = [made.stages(made.experiment(arm, 3)) for arm in made.arms]
    assert stages[0] == ["mm", "segment", "evaluate"]
    assert stages[1] == ["mm", "teacher", "pseudo", "segment", "evaluate"]


def test_longer_fine_tunes_as_many_steps_as_both_trainings_of_pseudo_labels():
    experiment = shared(segment__steps=40, segment__drops="20,30")
    changes = plan.ARMS["longer"](experiment, COST)
    assert changes == {"segment.steps": 80, "segment.drops": (40, 60)}
    assert plan.ARMS["pseudo_labels"](experiment, COST) == {"data.pseudo_labels": "rest"}


def test_a_command_names_settings_stages_and_folder():
    assert plan.command(["mm", "segment"], pathlib.Path("s/naive/seed3")) == [
        "-m",
        "trainers.mm",
        "--config=s/naive/seed3/study_settings.json",
        "--stage=mm,segment",
        "--workdir=s/naive/seed3",
    ]


def test_arms_of_one_seed_differ_only_in_their_changes():
    made = study(["naive", "random_triplets", "class_connected"])
    flat = [config.flatten(made.experiment(arm, 3)) for arm in made.arms]
    assert {key for key in flat[0] if flat[0][key] != flat[2][key]} == {"mm.steps", "mm.loss"}
    assert flat[1]["mm.loss"] == flat[2]["mm.loss"] == "triplet"
    assert {key for key in flat[1] if flat[1][key] != flat[2][key]} == {"mm.matching"}


def test_a_change_of_an_unknown_key_is_refused():
    with pytest.raises(config.ConfigError, match="Did you mean mm.margin"):
        study(["mine"], changes=["mine:mm.margn=1"])


def test_an_arm_with_a_change_without_effect_is_refused():
    changes = ["mine:mm.loss=softmax", "mine:mm.margin=1"]
    with pytest.raises(config.ConfigError, match="mm.margin=1.0 has no effect with mm.loss=soft"):
        study(["mine"], changes=changes)


def test_the_arms_of_a_seed_share_stage_proxy():
    assert study().first_stages() == []
    made = study(network__init="jigsaw")
    assert made.first_stages() == ["proxy"]
    assert str(made.first_folder(4)) == "s/shared/seed4" and made.first_experiment(4).seed == 4
    assert study(network__init="jigsaw", network__init_weights="file").first_stages() == []
