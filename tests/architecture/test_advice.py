"""Messages that give advice: each flag, setting, value, command and argument in them exists.

`TRIED` names a test for each message of the trainers with a command or a flag: it follows the
advice, and the next command works.
"""

import ast
import functools
import pathlib
import re

import pytest

from trainers import flags, stages
from trainers.config import keys, presets

ROOT = pathlib.Path(__file__).parents[2]
OTHER_PROGRAMS = {"logdir", "always", "abbrev", "exclude", "dirty"}  # tensorboard and git
OF_ABSL = {"help", "verbosity"}
PLACEHOLDERS = {"stage=STAGE", "preset=NAME", "precision=NAME"}


@functools.cache
def messages(package):
    """Return (file:line, text) of each string that is no docstring; values become {}."""
    return tuple(_messages(package))


def _messages(package):
    for file in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        place = file.relative_to(ROOT).as_posix()
        nodes = list(ast.walk(tree))
        skipped = {id(part) for n in nodes if isinstance(n, ast.JoinedStr) for part in n.values}
        skipped |= {id(n.value) for n in nodes if isinstance(n, ast.Expr)}  # docstrings
        for node in (node for node in nodes if id(node) not in skipped):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
                yield f"{place}:{node.lineno}", "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{place}:{node.lineno}", node.value


@functools.cache
def defined_flags():
    """Return the flags that the commands define, read from their source."""
    text = "\n".join(file.read_text() for file in (ROOT / "trainers").glob("*.py"))
    named = re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", text)
    arguments = re.findall(r"add_argument\(\s*\"--(\w+)\"", text)
    found = {*named, *arguments, *flags.KEYS, *OF_ABSL}
    return found | {f"no{name}" for name in found}


@functools.cache
def parameters(package):
    """Return the names of all parameters and fields in a package."""
    names = set()
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arg):
                names.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
    return names


def unknown_flags(text):
    return set(re.findall(r"(?<![\w-])--([a-z]\w*)", text)) - defined_flags() - OTHER_PROGRAMS


def unknown_settings(text):
    """Return the settings in a text that do not exist, such as mm.nothing or {}.nothing=."""
    known = {*keys.settings(), *keys.RENAMED}
    sections = "|".join({key.split(".")[0] for key in known if "." in key})
    found = set(re.findall(rf"(?<![\w./-])((?:{sections})\.[a-z]\w*)\b(?![\w(/.])", text))
    files = (".py", ".h5", ".weights", ".png", ".yaml", ".yml")
    found = {name for name in found if not name.endswith(files)}
    last = {key.split(".")[-1] for key in known}
    return (found - known) | (set(re.findall(r"\{\}\.([a-z_]+)=", text)) - last)


def unknown_values(text):
    """Return the values of --stage, --preset and --precision that do not exist."""
    known = {
        "stage": {*(stage.name for stage in stages.STAGES), "all", stages.DATA_CHECK},
        "preset": set(presets.PRESETS),
        "precision": set(keys.settings()["precision"].choices),
    }
    wrong = set()
    for flag, values in known.items():
        for given in re.findall(rf"--{flag}=([\w,-]+)", text):
            wrong |= {f"{flag}={v}" for v in given.split(",") if v and v not in values}
    return wrong - PLACEHOLDERS


def unknown_commands(text):
    commands = re.findall(r"python -m ((?:trainers|pipelines)(?:\.\w+)+)", text)
    return {name for name in commands if not (ROOT / (name.replace(".", "/") + ".py")).exists()}


FAULTS, CHAIN = "tests/test_fault_injection.py", "tests/test_whole_chain.py"
RUNS, DOCTOR = "tests/trainers/runs", "tests/trainers/stages/test_doctor.py"
TRIED = {
    "Choose a folder that you may write": (FAULTS, "a_folder_without_write_permission"),
    "done already in {}; --overwrite": (CHAIN, "overwriting_the_evaluation_leaves_the_export"),
    "has no labels, so there is nothing to": (FAULTS, "the_advice_for_images_without_labels"),
    "Add --dataset=folder for your own": (FAULTS, "the_advice_for_a_folder_without_a_data_set"),
    "Wait for its end, stop it, or choose": (FAULTS, "a_second_run_in_the_same_folder"),
    "run these stages again: --overwrite": (FAULTS, "the_advice_for_other_settings"),
    "first (or with --stage=all": (FAULTS, "the_advice_for_a_missing_stage"),
    "was changed or damaged after": (FAULTS, "damaged_files_of_a_run"),
    "Run the stage again with a lower": (FAULTS, "the_command_after_a_diverged_training"),
    "Choose another --workdir, or move the": (f"{RUNS}/test_removal.py", "folders_of_other"),
    "is a link, and --overwrite": (f"{RUNS}/test_removal.py", "links_are_refused"),
    "Thin and small objects may be lost": (DOCTOR, "the_advice_for_shrunk_images"),
    "--ensemble takes two or more": (f"{RUNS}/test_ensemble.py", "an_ensemble_needs_two"),
    "--overwrite removed {} in {}": (f"{RUNS}/test_removal.py", "removed_parts_are_named"),
}
"""{part of a message: file and start of the name of a test that follows its advice}."""

CHECKS = (unknown_flags, unknown_settings, unknown_values, unknown_commands)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_messages_name_only_things_that_exist(check):
    found = [
        f"{place}: {sorted(wrong)}"
        for package in ("mm_keras", "pipelines", "trainers")
        for place, text in messages(package)
        if (wrong := check(text))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (unknown_flags, "use --overwite"),
        (unknown_settings, "Lower mm.learning_rates, or mm.margin"),
        (unknown_settings, "for example {}.learnrate=0.1"),
        (unknown_values, "--stage=mm,evalute"),
        (unknown_values, "--preset=quik"),
        (unknown_commands, "python -m trainers.repot DIR"),
    ],
)
def test_a_wrong_name_is_found(check, text):
    assert len(check(text)) == 1


def test_right_names_pass():
    text = "python -m trainers.mm --stage=mm,segment --set mm.margin=1 --nofigures mm.py {}.steps=1"
    assert not any(check(text) for check in CHECKS)


def test_arguments_in_messages_of_the_pipelines_exist():
    wrong = [
        f"{place}: {name}"
        for place, text in messages("pipelines")
        for name in re.findall(r"(?<![\w.\[])([a-z]\w+)=(?:\{|'|\d|none)", text)
        if name not in parameters("pipelines")
    ]
    assert not wrong, "\n".join(wrong)


def test_each_flag_in_a_message_of_a_run_is_tried():
    places = ("trainers/runs/", "trainers/training/", "trainers/stages/", "trainers/experiment.py")
    given = [
        (place, text)
        for place, text in messages("trainers")
        if place.startswith((*places, "trainers/command_line.py"))
        and re.search(r"(?<!git )--[a-z]\w+", text)
        and not set(re.findall(r"--([a-z]\w*)", text)) <= OTHER_PROGRAMS
        and " " in text.strip()
    ]
    assert len(given) > 5
    left = [f"{place}: {text}" for place, text in given if not any(t in text for t in TRIED)]
    assert not left, "\n".join(left)


@pytest.mark.parametrize("part", TRIED)
def test_the_tests_of_advice_exist(part):
    file, name = TRIED[part]
    assert any(part in text for _, text in messages("trainers"))
    assert f"def test_{name}" in (ROOT / file).read_text()
