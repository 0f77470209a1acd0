"""The comparison of quality: equal images and budgets, exact scores, clear failures."""

import json
import pathlib
import sys

import pytest

from pipelines.datasets.spec import Dataset, DatasetSpec, Split, voc_colors
from trainers import config
from trainers.benchmarks import quality
from trainers.config import resolved

SPEC = DatasetSpec("ours", ("a", "b"), voc_colors(2), None, "ours")
SPLIT = Split("train", ("x", "y"), ("x.jpg", "y.jpg"), ("x.png", "y.png"), (True, False), 90)
PROGRAM = """
import json, sys
task = json.load(open(sys.argv[1]))
assert task["cpu_seconds"] == 5, "wrong budget"
confusion = [[3, 1], [0, 4]] if task["seed"] else [[4, 0], [0, 4]]
result = {"steps": 7, "cpu_seconds": 5.2, "confusion": confusion}
json.dump(result, open(sys.argv[2], "w"))
"""


@pytest.fixture
def comparison(monkeypatch, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    monkeypatch.setattr(quality, "PEER_PROGRAM", program)
    monkeypatch.setattr(quality, "_loaded", lambda data: Dataset(SPEC, SPLIT, SPLIT, ()))
    return quality.Comparison(config.Data(), 5, (0, 1), sys.executable)


def test_each_method_and_seed_has_the_miou_of_its_confusion_matrix(comparison):
    lines = []
    scores = quality.compare(comparison, quality.peers()[:2], lines.append)
    assert list(scores) == ["Unet ResNet-18", "Unet ResNet-18, augmented"]
    for values in scores.values():
        assert values == pytest.approx([100, 100 * (3 / 4 + 4 / 5) / 2])
    assert len(lines) == 4 and "7 steps, 5 CPU seconds" in lines[0]


def test_peers_get_the_labelled_images_and_all_images_to_evaluate():
    files = quality._files(Dataset(SPEC, SPLIT, SPLIT, ()))
    assert files["train"] == [("x.jpg", "x.png")] and len(files["eval"]) == 2
    assert files["num_classes"] == 2
    json.dumps(files)


def test_our_method_gets_the_settings_that_flags_give():
    given = {"data.dataset": "folder", "data.data_dir": "pictures", "data.num_train_images": 12}
    settings = resolved.of_preset("quick").changed(given, "flag")
    assert quality.ours(settings).task == {"preset": "quick", "changes": given}


def test_without_an_interpreter_our_preset_and_the_plain_unet_run():
    comparison = quality.Comparison(config.Data(), 5, (0,), None)
    methods = comparison.methods(resolved.of_preset("quick"))
    assert [method.name for method in methods] == ["mm-keras, preset quick", "Keras U-Net"]


def test_eight_peers_are_compared():
    assert len({method.name for method in quality.peers()}) == 8


def test_methods_are_chosen_by_name_or_by_a_part_of_it():
    methods = quality.peers()
    names = [method.name for method in quality.chosen(methods, ["DeepLab", "Unet ResNet-18"])]
    assert names[0] == "Unet ResNet-18" and len(names) == 5
    assert quality.chosen(methods, []) == methods
    with pytest.raises(config.UserError, match="No method 'SegFormer'. There are: Unet ResNet"):
        quality.chosen(methods, ["SegFormer"])


def test_a_program_that_fails_is_named_with_its_error(comparison, tmp_path):
    pathlib.Path(quality.PEER_PROGRAM).write_text("raise SystemExit('no such network')")
    with pytest.raises(config.UserError, match="Unet.*\n.*no such network"):
        quality.compare(comparison, quality.peers()[:1], print)


def test_the_table_has_mean_and_deviation():
    table = quality.table({"one": [40.0, 42.0], "two": [30.0, 31.0]})
    columns = [list(column.cells) for column in table.columns]
    assert columns[1] == ["41.0", "30.5"] and columns[2] == ["1.4", "0.7"]
    assert columns[3] == ["", "+10.5"]
    # Two differences, 10 and 11: 10.5 with half a width of 12.706 x 0.5 (t, one degree).
    assert columns[4] == ["", "+4.1 to +16.9"]
    single = quality.table({"one": [40.0], "two": [30.0]}).columns
    assert list(single[3].cells) == ["", "+10.0"] and list(single[4].cells) == ["", "-"]
