"""The command that predicts new images: its arguments and its messages."""

import pathlib

import pytest

from trainers import config, predict
from trainers.config import terminal
from trainers.predictions import folder


@pytest.fixture
def calls(monkeypatch, parsed_flags):
    """The arguments of the library's function; it finds one damaged and no other image."""
    found = []

    def fake(*arguments):
        found.append(arguments)
        return folder.Summary(0, 0, 0, (("a\x1b.png", "damaged"),), pathlib.Path("out/areas.csv"))

    monkeypatch.setattr(folder, "predict", fake)
    return found


@pytest.mark.parametrize("arguments", [[], ["runs/mine"]])
def test_missing_arguments_are_answered_with_an_example(arguments, parsed_flags):
    with pytest.raises(config.UserError, match="python -m trainers.predict runs/mine photos"):
        predict._run(arguments, terminal.console())


def test_no_predicted_image_is_an_error_and_names_are_escaped(calls, monkeypatch, capsys):
    monkeypatch.setattr(predict.FLAGS["output"], "value", "out")
    with pytest.raises(config.UserError, match="no image could be predicted"):
        predict._run(["runs/mine", "photos", "more"], terminal.console())
    assert calls[0][:3] == ("runs/mine", ["photos", "more"], "out")
    assert r"skipped: a\x1b.png: damaged" in capsys.readouterr().out
