"""The README's commands can be read by .ci/run, and its Python example runs as it stands."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def load_readme_commands():
    path = ROOT / ".ci" / "readme_commands.py"
    spec = importlib.util.spec_from_file_location("readme_commands", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


find_commands = load_readme_commands().find_commands


def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def section(heading="## Install and run", block="echo run\n"):
    return f"{heading}\n\n```bash\n{block}```\nMore words.\n\n"


RUN, TEST = section(), section("## Install and test", "echo test\n")


def test_commands_are_found():
    other = "## Use\n\n```bash\nls\npwd\n```\n"
    assert find_commands(f"# Name\n\n{other}{RUN}{TEST}{other}") == ["echo run", "echo test"]


@pytest.mark.parametrize(
    "text, message",
    [
        (RUN, "heading '## Install and test' once, found 0"),
        (RUN + RUN + TEST, "heading '## Install and run' once, found 2"),
        (section(block="echo run\nls\n") + TEST, "single line .* found 2"),
        (section(block="") + TEST, "single line .* found 0"),
        (RUN + "```bash\nls\n```\n" + TEST, "one ```bash block .* found 2"),
        (RUN.replace("```bash", "```text") + TEST, "one ```bash block .* found 0"),
        (RUN.replace("\n\n```", "\n\nWords first.\n\n```") + TEST, "directly under"),
    ],
)
def test_other_forms_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        find_commands(text)


def test_the_readme_holds_two_set_up_commands():
    run, test = find_commands(readme())
    for command in (run, test):
        assert "-m venv .venv" in command and ".venv/bin/pip install" in command
    assert "-m trainers.mm" in run
    assert "-m pytest" in test


@pytest.mark.skipif(os.name != "posix", reason="runs bash")
def test_ci_runs_the_commands_and_then_ruff(tmp_path):
    (tmp_path / ".ci").mkdir()
    for name in ("run", "readme_commands.py"):
        (tmp_path / ".ci" / name).write_bytes((ROOT / ".ci" / name).read_bytes())
    ruff = "printf '#!/bin/sh\\necho ruff $*\\n' > .venv/bin/ruff && chmod +x .venv/bin/ruff"
    run = section(block=f"mkdir -p .venv/bin && {ruff}\n")
    test = section("## Install and test", 'read x || echo "2 passed, $MM_TEST_DATA"\n')

    def ci(text):
        (tmp_path / "README.md").write_text(text)
        environment = {**os.environ, "MM_TEST_DATA": "given"}
        command = ["bash", str(tmp_path / ".ci" / "run")]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )

    done = ci(run + test)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("+ ")]
    assert lines == ["2 passed, given", "ruff check .", "ruff format --check ."]
    assert ci(section(block="false\n") + test).returncode != 0
    broken = ci(run)
    assert broken.returncode != 0 and "Install and test" in broken.stderr
    assert not broken.stdout


@pytest.mark.slow
def test_the_python_example_runs(tmp_path):
    """All ```python blocks, in order and in one process, in an empty working directory."""
    blocks = re.findall(r"^```python\n(.*?)^```[ \t]*$", readme(), re.MULTILINE | re.DOTALL)
    assert blocks, "README.md holds no ```python block"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TFDS_DATA_DIR": str(tmp_path / "records")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
