"""Finished runs read back, and set against each other."""

import pytest

from trainers import config
from trainers.config import presets
from trainers.runs import finished


def test_runs_are_found_at_any_depth_and_once(make_preset_run, tmp_path):
    make_preset_run("study/naive/seed0", "tuned", 0.2, mm__steps=0)
    make_preset_run("study/graph/seed0", "tuned", 0.3)
    make_preset_run("pair", "tuned", 0.4)
    make_preset_run("pair", "tuned", 0.3, variant="naive")
    runs = finished.find([tmp_path, tmp_path / "pair"])
    assert [(str(r.folder.relative_to(tmp_path)), r.variant, r.kind) for r in runs] == [
        ("pair", "", presets.TUNED),
        ("pair/naive", "naive", presets.NAIVE),
        ("study/graph/seed0", "", presets.TUNED),
        ("study/naive/seed0", "", presets.NAIVE),
    ]
    assert runs[1].workdir == tmp_path / "pair" and runs[1].results["miou"] == 0.3
    assert runs[0].costs["mm"] == {"seconds": 10.0, "peak_bytes": 1}


def test_a_run_of_its_own_may_be_called_naive(make_preset_run, tmp_path):
    make_preset_run("naive", "tuned", 0.2, mm__steps=0)
    (run,) = finished.find([tmp_path])
    assert run.workdir == tmp_path / "naive" and run.variant == "" and run.kind == presets.NAIVE


def test_a_folder_without_runs(tmp_path):
    with pytest.raises(finished.NoRunsError, match="no evaluate/results.json"):
        finished.find([tmp_path])


def test_the_experiment_comes_back(make_preset_run, tmp_path):
    folder = make_preset_run("a", "release", 0.2, segment__crop=0.5, data__num_train_images=9)
    (run,) = finished.find([folder])
    expected = config.replace(presets.experiment("release"), "segment.crop", 0.5)
    assert run.experiment() == config.replace(expected, "data.num_train_images", 9)
    assert run.num_nodes == 144 and run.seed == 0


def test_differences_know_defaults_and_free_keys():
    flat = config.flatten(config.Experiment())
    older = {key: value for key, value in flat.items() if key != "data.holdout"}
    assert finished.differences(older, flat) == {}
    other = flat | {"data.data_dir": "x", "mm.log_every": 1, "mm.margin": 1.0, "seed": 4}
    assert finished.differences(flat, other, free=["seed"]) == {"mm.margin": (2.1, 1.0)}


def test_curves(make_preset_run, tmp_path):
    folder = make_preset_run("a", "tuned", 0.2)
    (run,) = finished.find([folder])
    assert finished.curve(run, "mm") == []
    (folder / "mm" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2}\n')
    assert finished.curve(run, "mm") == [{"step": 1, "loss": 2.0}, {"step": 2}]


@pytest.mark.parametrize("name", ["results.json", "config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_damaged_files_are_named(make_preset_run, tmp_path, name, content):
    file = make_preset_run("a", "tuned", 0.2) / "evaluate" / name
    file.write_bytes(content)
    with pytest.raises(config.UserError, match=f"evaluate/{name} cannot be read"):
        finished.find([tmp_path])


def test_a_damaged_line_of_metrics_is_named(make_preset_run, tmp_path):
    folder = make_preset_run("a", "tuned", 0.2)
    (run,) = finished.find([folder])
    (folder / "mm" / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    with pytest.raises(config.UserError, match="metrics.jsonl is damaged .*, or remove it: "):
        finished.curve(run, "mm")
    (folder / "mm" / "metrics.jsonl").unlink()
    assert finished.curve(run, "mm") == []


def test_the_data_check_of_a_folder_has_no_cost(make_preset_run, tmp_path):
    folder = make_preset_run("a", "tuned", 0.2)
    (folder / "doctor").mkdir()
    (folder / "doctor" / "results.json").write_text('{"splits": {}, "findings": []}')
    (run,) = finished.find([tmp_path])
    assert set(run.costs) == {"mm", "segment", "evaluate"}


def sides(comparisons):
    return {c.name: ([r.seed for r in c.naive], [r.seed for r in c.tuned]) for c in comparisons}


def test_comparisons_pair_seeds_and_tell_ways_of_mm_apart(make_preset_run, tmp_path):
    for seed in (0, 1, 2):
        make_preset_run(f"naive/seed{seed}", "tuned", 0.2, mm__steps=0, seed=seed)
    for seed in (1, 0):
        make_preset_run(f"graph/seed{seed}", "tuned", 0.3, seed=seed)
    triplets = {"mm__matching": "random_triplets"}
    make_preset_run("random/seed2", "tuned", 0.3, seed=2, **triplets)
    make_preset_run("longer/seed0", "tuned", 0.3, mm__steps=0, segment__steps=999)
    found = sides(finished.compare(finished.find([tmp_path])))
    assert found == {
        f"{tmp_path.name}-graph": ([0, 1], [0, 1]),
        f"{tmp_path.name}-random-seed2": ([2], [2]),
        f"{tmp_path.name}-longer-seed0": ([0], []),
    }


def test_runs_of_other_seeds_are_not_compared(make_preset_run, tmp_path):
    make_preset_run("a", "tuned", 0.2, mm__steps=0, seed=1)
    make_preset_run("b", "tuned", 0.3, seed=2)
    (comparison,) = finished.compare(finished.find([tmp_path]))
    assert not comparison.naive and [run.seed for run in comparison.tuned] == [2]
    assert list(comparison.columns) == ["M&M"]


def test_a_pair_in_one_folder(make_preset_run, tmp_path):
    make_preset_run("pair", "tuned", 0.4)
    make_preset_run("pair", "tuned", 0.3, variant="naive")
    (comparison,) = finished.compare(finished.find([tmp_path / "pair"]))
    assert list(comparison.columns) == ["baseline", "M&M"]
    assert comparison.name == "pair"


def test_graph_sizes(make_preset_run, tmp_path):
    for images, seed in ((4, 0), (4, 1), (8, 0)):
        make_preset_run(f"{images}-{seed}", "tuned", 0.3, mm__num_images=images, seed=seed)
    make_preset_run("naive", "tuned", 0.3, mm__steps=0, mm__num_images=16)
    make_preset_run("other", "tuned", 0.3, mm__margin=1.0, mm__num_images=16)
    (group,) = finished.graph_studies(finished.find([tmp_path]))
    assert sorted((run.num_nodes, run.seed) for run in group) == [(48, 0), (48, 1), (96, 0)]
