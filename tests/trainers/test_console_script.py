"""The console script mm-keras, and the help of the commands."""

import subprocess
import sys

import pytest

from trainers import __main__ as console_script
from trainers import mm, predict, study


@pytest.mark.parametrize("command", console_script.COMMANDS)
def test_each_command_starts_its_module(command, monkeypatch):
    started = []
    for module in (mm, predict, study):
        monkeypatch.setattr(module, "start", lambda: started.append(list(sys.argv)))
    if command == "report":
        from trainers import report

        monkeypatch.setattr(report, "start", lambda: started.append(list(sys.argv)))
    monkeypatch.setattr(sys, "argv", ["mm-keras", command, "--x=1"])
    console_script.main()
    first = ["--stage=doctor"] if command == "check" else []
    assert started == [[f"mm-keras {command}", *first, "--x=1"]]


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["trian"], 2), (["--help"], 0)])
def test_without_a_command_the_usage_is_printed(arguments, status, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mm-keras", *arguments])
    with pytest.raises(SystemExit) as exit_:
        console_script.main()
    printed = capsys.readouterr()
    assert exit_.value.code == status
    assert "predict new images" in (printed.err if status else printed.out)


def test_the_help_fits_two_screens_and_shows_everyday_flags_first():
    done = subprocess.run(
        [sys.executable, "-m", "trainers", "train", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout
    lines = text.splitlines()
    assert len(lines) <= 2 * 24 and max(map(len, lines)) <= 100
    assert "repeat this option" not in text
    assert text.index("--workdir") < text.index("Other flags:") < text.index("--strategy")


@pytest.mark.slow  # imports TensorFlow in a fresh process
def test_a_command_prints_no_line_of_tensorflow(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "trainers", "train", "--print_config"],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    allowed = ("texture_scenes", "Generat")
    assert not [x for x in done.stderr.splitlines() if x.strip() and not x.startswith(allowed)]
