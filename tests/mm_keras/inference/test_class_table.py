"""The table of classes: round trip through JSON, and refusals."""

import json

import pytest

from mm_keras.inference import ClassTable, loading

WINDOW = {"num_bands": 1, "bands": (0, 0, 0), "low": (0.0,) * 3, "high": (1000.0,) * 3}
TABLE = ClassTable(("a", "b"), ((0, 0, 0), (1, 2, 3)), (5, 9), background=1, window=WINDOW)


def test_a_table_survives_json(tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps(TABLE.as_json()))
    assert ClassTable.read(tmp_path / "classes.json") == TABLE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colors": [[0, 0, 0]]}, "as many colors"),
        ({"class_names": [], "colors": [], "mask_values": []}, "as many colors"),
        ({"colors": [[0, 0], [1, 2]]}, "RGB triples"),
        ({"colors": [[0, 0, 0], [1, 2, 256]]}, "RGB triples"),
        ({"mask_values": [1, 1]}, "must differ"),
        ({"mask_values": [1, 2.5]}, "must differ"),
        ({"class_names": [1, 2]}, "must be text"),
        ({"background": 2}, "must be a class id"),
        ({"mask_values": None}, "Expected lists"),
        ({"window": {"num_bands": 1}}, "Expected lists"),
        ({"window": {"num_bands": 1, "bands": [0], "low": [0, 1], "high": [9]}}, "window needs"),
    ],
)
def test_a_table_whose_parts_do_not_fit_is_refused(tmp_path, changes, message):
    file = tmp_path / "classes.json"
    file.write_text(json.dumps(TABLE.as_json() | changes))
    with pytest.raises(ValueError, match=f"classes.json is not a table of classes.*{message}"):
        ClassTable.read(file)


@pytest.mark.parametrize("text", ["", "[]", '{"class_names"', "[" * 100_000])
def test_a_file_without_a_table_is_named(tmp_path, text):
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(ValueError, match="classes.json is not a table"):
        ClassTable.read(tmp_path / "classes.json")


def test_a_model_without_classes_is_refused(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ValueError, match="has no table of classes"):
        loading.load_predictor(tmp_path)
