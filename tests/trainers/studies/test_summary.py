"""The summary of a made-up study, compared with arithmetic on the numbers that went in."""

import json
import types

import numpy as np
import pytest

from mm_keras import metrics
from mm_keras.metrics import intervals
from trainers import config
from trainers.config import presets
from trainers.studies import plan, step_cost, summary

CLASS_NAMES = ("road", "car", "sky")
ARMS = {"naive": (0, 1), "class_connected": (0, 1), "mine": (1,), "alone": (5,)}


def _study(workdir):
    shared = presets.experiment("tuned", "camvid", "testing")
    shared = config.replace(shared, "network.width", 1.0)
    changes = {
        "naive": presets.WITHOUT_MM,
        "class_connected": {},
        "mine": {"mm.margin": "1.5", "segment.steps": "7", "segment.drops": ()},
        "alone": {},
    }
    arms = [plan.Arm(name, changes[name], seeds) for name, seeds in ARMS.items()]
    return plan.Study(workdir, arms, shared, 360, "tuned")


def _split(title, num_images):
    return types.SimpleNamespace(title=title, num_images=num_images)


DATASET = types.SimpleNamespace(
    spec=types.SimpleNamespace(name="camvid", class_names=CLASS_NAMES, num_classes=3),
    train=_split("train", 4),
    eval=_split("val", 5),
)


def _confusions(arm, seed):
    """Matrices of five images, int32 [5, 3, 3]. Seed 1 has no pixel of the last class."""
    rng = np.random.default_rng([list(ARMS).index(arm), seed])
    matrices = rng.integers(1, 50, (5, 3, 3)) + 100 * np.eye(3, dtype=int)
    if seed == 1:
        matrices[:, 2], matrices[:, :, 2] = 0, 0
    return matrices.astype("int32")


def _miou(arm, seed):
    return 100 * metrics.mean_iou(_confusions(arm, seed).sum(axis=0))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(study, text of the summary, content of summary.json) of made-up runs."""
    return _made(tmp_path_factory.mktemp("study"))


def _made(workdir):
    study = _study(workdir)
    for arm, seed in study.runs():
        folder, confusions = study.folder(arm, seed), _confusions(arm.name, seed)
        results = metrics.summary(confusions.sum(axis=0), CLASS_NAMES)
        stages = {"mm": {"seconds": 10.0 + seed}, "segment": {"seconds": 20.0 + seed}}
        for stage, content in (stages | {"evaluate": results | {"seconds": 1.0}}).items():
            (folder / stage).mkdir(parents=True)
            (folder / stage / "results.json").write_text(json.dumps(content))
        recorded = config.flatten(study.experiment(arm, seed))
        (folder / "evaluate" / "config.json").write_text(json.dumps(recorded))
        np.savez(folder / "evaluate" / "per_image.npz", confusion=confusions)
        for stage in ("mm", "segment") if arm.name != "naive" else ("segment",):
            lines = [json.dumps({"step": k, "loss": 1 / k}) + "\n" for k in (10, 20)]
            (folder / stage / "metrics.jsonl").write_text("".join(lines))
    text = summary.write(study, DATASET)
    return study, text, json.loads((workdir / "summary.json").read_text())


def _rows(text, head):
    """{first cell: other cells} of the table whose first line starts with `head`."""
    table = next(block for block in text.split("\n\n") if block.startswith(f"| {head}"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {name: rest for name, *rest in cells}


def test_means_and_deviations_are_over_the_seeds_of_an_arm(made):
    _, _, content = made
    assert list(content["arms"]) == list(ARMS)
    for name, seeds in ARMS.items():
        mious = [_miou(name, seed) for seed in seeds]
        arm = content["arms"][name]
        assert arm["mious"] == pytest.approx(
            {str(seed): miou for seed, miou in zip(seeds, mious, strict=True)}
        )
        assert arm["mean"] == pytest.approx(np.mean(mious))
        if len(seeds) == 1:
            assert arm["deviation"] is None
        else:
            assert arm["deviation"] == pytest.approx(np.std(mious, ddof=1))
        assert arm["seconds"] == [10 + np.mean(seeds), 20 + np.mean(seeds)]


def test_differences_to_the_first_arm_are_paired_by_seed(made):
    _, _, content = made
    arm = content["arms"]["class_connected"]
    differences = [_miou("class_connected", seed) - _miou("naive", seed) for seed in (0, 1)]
    expected = intervals.over_seeds(differences)
    assert arm["over_seeds"] == pytest.approx(vars(expected))
    first, second = (
        np.stack([_confusions(name, seed) for seed in (0, 1)])
        for name in ("naive", "class_connected")
    )
    expected = intervals.over_images(first, second)
    assert arm["over_images"] == pytest.approx(
        {key: 100 * value for key, value in vars(expected).items()}
    )
    mine = content["arms"]["mine"]["over_seeds"]  # only seed 1 is in both arms
    assert mine["mean"] == pytest.approx(_miou("mine", 1) - _miou("naive", 1))
    assert mine["low"] is None and mine["high"] is None
    for name in ("naive", "alone"):
        assert content["arms"][name]["over_seeds"] is content["arms"][name]["over_images"] is None


def test_class_ious_are_means_over_the_seeds_that_have_the_class(made):
    _, text, content = made
    arm = content["arms"]["class_connected"]["per_class"]
    with_sky = metrics.summary(_confusions("class_connected", 0).sum(axis=0), CLASS_NAMES)
    assert arm["sky"] == pytest.approx(100 * with_sky["per_class_iou"]["sky"])
    assert content["arms"]["mine"]["per_class"]["sky"] is None
    rows = _rows(text, "class")
    assert rows["class"] == list(ARMS) and list(rows)[2:] == list(CLASS_NAMES)
    assert rows["sky"][2] == "" and rows["sky"][1] == f"{arm['sky']:.2f}"


def test_steps_and_multiply_adds_follow_the_settings_of_the_arm(made):
    study, _, content = made
    for arm in study.arms:
        experiment = study.experiment(arm, arm.seeds[0])
        cost = step_cost.count(experiment, 3)
        steps = [experiment.mm.steps, experiment.segment.steps]
        assert content["arms"][arm.name]["steps"] == steps
        operations = (steps[0] * cost.mm + steps[1] * cost.segment) / 1e12
        assert content["arms"][arm.name]["operations"] == pytest.approx(operations)
    assert content["arms"]["mine"]["changes"]["mm.margin"] == "1.5"
    assert content["arms"]["mine"]["steps"] == [800, 7]
    assert content["preset"] == "tuned" and content["settings"]["network.backbone"] == "testing"


def test_the_text_has_the_numbers_and_the_commands(made):
    study, text, content = made
    assert text + "\n" == (study.workdir / "summary.md").read_text()
    assert text.startswith("# Study: camvid, testing x1 from random\n")
    assert "4 images of train, evaluated on 5 images of val" in text
    rows, arm = _rows(text, "arm "), content["arms"]["class_connected"]
    assert rows["naive"][2:5] == ["", "", ""] and rows["alone"][2:5] == ["", "", ""]
    assert rows["class_connected"][:3] == [
        "2",
        f"{arm['mean']:.2f} ± {arm['deviation']:.2f}",
        f"{arm['over_seeds']['mean']:+.2f}",
    ]
    assert rows["mine"][1] == f"{_miou('mine', 1):.2f}" and rows["mine"][3] == ""
    bounds = arm["over_images"]
    assert rows["class_connected"][4] == f"{bounds['low']:+.2f} to {bounds['high']:+.2f}"
    for arm, seed in study.runs():
        stages = study.stages(study.experiment(arm, seed))
        command = plan.command(stages, study.folder(arm, seed))
        assert f"    python {' '.join(command)}" in text
    seeds = next(block for block in text.split("\n\n") if "| seed 0" in block).splitlines()
    assert [cell.strip() for cell in seeds[0].strip("|").split("|")] == [
        "arm",
        "seed 0",
        "seed 1",
        "seed 5",
    ]


def test_the_figure_is_written_where_matplotlib_is_installed(made):
    pytest.importorskip("matplotlib")
    assert (made[0].workdir / "summary.png").stat().st_size > 5000


def test_the_text_is_written_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setattr(summary.importlib.util, "find_spec", lambda name: None)
    _made(tmp_path)
    assert (tmp_path / "summary.md").exists() and not (tmp_path / "summary.png").exists()
