"""Injected faults end in the same bits as an unbroken run, or in one sentence.

Killed processes, damaged files, a full disk, two runs at once, and random settings. All tests here
are slow.
"""

import contextlib
import io
import json
import math
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from trainers import command_line, config, experiment
from trainers.config import terminal
from trainers.config.keys import settings

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]
PROGRAM = ROOT / "tests" / "programs" / "forked_runs.py"
DEADLINE = 900
"""Seconds; a run takes some seconds on a free core."""
STAGES = ("mm", "segment", "evaluate", "export")
SMALL = [
    "--dataset=folder",
    "--backbone=testing",
    "--set=network.width=1",
    "--set=data.shorter_side=none",
    "--set=evaluate.boundary=false",
    "--set=mm.num_images=2",
    "--set=mm.patches_per_image=4",
    "--set=mm.patch_size=16",
    "--set=mm.min_size=8",
    "--set=mm.max_size=24",
    "--set=mm.crop=30",
    "--set=segment.num_images=2",
    "--set=segment.crop=24",
    "--set=data.validation=val",
    "--set=segment.validate_every=6",
    *(
        f"--set={stage}.{key}={value}"
        for stage in ("mm", "segment")
        for key, value in (("steps", 12), ("drops", ""), ("log_every", 1), ("checkpoint_every", 4))
    ),
]


class Forks:
    """Commands of trainers.mm in processes that are forked from one that has TensorFlow."""

    def __init__(self):
        self._server = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._server.stdout.readline()

    def ask(self, **request):
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def close(self):
        self._server.stdin.close()
        self._server.wait()


class Run:
    """One command: `forks` runs it in a process of its own."""

    def __init__(self, forks, arguments, cache, log, **options):
        self._forks, self._log = forks, log
        environment = {"TFDS_DATA_DIR": str(cache)}
        request = {"arguments": arguments, "environment": environment, "log": str(log)}
        self.pid = forks.ask(**request, **options)["pid"]
        self.status = None

    @property
    def output(self):
        return self._log.read_text()

    def poll(self):
        if self.status is None:
            self.status = self._forks.ask(poll=self.pid)["status"]
        return self.status

    def wait(self):
        self.wait_until(lambda: self.poll() is not None)
        return self

    def wait_until(self, happens):
        deadline = time.monotonic() + DEADLINE
        while not happens():
            assert time.monotonic() < deadline and (self.poll() is None or happens()), self.output
            time.sleep(0.05)

    def send(self, number):
        os.kill(self.pid, number)
        return self


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Function(data, workdir, cache, *flags, only=all arguments, **options) -> Run."""
    forks, logs = Forks(), tmp_path_factory.mktemp("logs")
    runs = []

    def start(data, workdir, cache, *flags, only=None, **options):
        arguments = only or [*SMALL, f"--data_dir={data}", f"--workdir={workdir}", *flags]
        runs.append(Run(forks, arguments, cache, logs / str(len(runs)), **options))
        return runs[-1]

    yield start
    for run in runs:
        if run.poll() is None:
            run.send(signal.SIGKILL).wait()
    forks.close()


def assert_done(run):
    assert run.wait().status == 0, run.output[-3000:]


def assert_one_sentence(run):
    """The command failed with one sentence as its last output, and without a traceback."""
    assert run.wait().status == 1 and "Traceback" not in run.output, run.output[-3000:]
    assert run.output.splitlines()[-1].startswith("error: ") or "\nerror: " in run.output
    return run.output


def _losses(workdir, stage):
    return (workdir / stage / "metrics.jsonl").read_text()


def _weights(path):
    """Return {name: bytes} of all arrays of a file of weights."""
    import h5py

    found = {}

    def collect(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()].tobytes()

    with h5py.File(path) as file:
        file.visititems(collect)
    return found


def _content(workdir):
    """Return the results of a run without its times: losses, scores, and all weights."""

    def scores(path):
        content = json.loads(path.read_text())
        return {k: v for k, v in content.items() if k not in ("seconds", "peak_bytes")}

    return {
        "losses": [_losses(workdir, stage) for stage in ("mm", "segment")],
        "scores": scores(workdir / "evaluate" / "results.json"),
        "mm": _weights(workdir / "mm" / "backbone.weights.h5"),
        "segment": _weights(workdir / "segment" / "segmenter.weights.h5"),
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of six images of 30 x 44 pixels with three classes."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    (folder / "classes.txt").write_text("ground\nwall\nsky\n")
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for k in range(6):
        labels = rng.integers(0, 3, (5, 6)).repeat(6, 0).repeat(8, 1)[:, :44].astype("uint8")
        pixels = labels[..., None] * 60 + rng.integers(0, 60, (*labels.shape, 3))
        Image.fromarray(pixels.astype("uint8")).save(folder / "images" / f"{k}.png")
        Image.fromarray(labels).save(folder / "masks" / f"{k}.png")
    return folder


@pytest.fixture(scope="module")
def unbroken(data, start, tmp_path_factory):
    """(workdir, cache) of a run that nothing disturbed; beside them `changes`, their number."""
    folder = tmp_path_factory.mktemp("unbroken")
    count = {"watched": [str(folder)], "count": str(folder / "changes")}
    assert_done(start(data, folder / "run", folder / "cache", **count))
    return folder / "run", folder / "cache"


def test_20_kills_at_random_moments_end_in_the_same_bits(data, start, unbroken, tmp_path):
    """The moments are changes of files, from the data set's copy to the export, and after them."""
    expected, draw = _content(unbroken[0]), random.Random(0)
    last = int((unbroken[0].parent / "changes").read_text())
    num_kills, num_runs = 0, 0
    while num_kills < 20:
        folder = tmp_path / f"run{num_runs}"
        num_runs += 1
        while True:  # kill the same run again and again, until it ends by itself
            kill = {"kill": (draw.randint(1, last), draw.choice((0, 0.02, 0.3)))}
            kill |= {"watched": [str(folder)]}
            run = start(data, folder / "run", folder / "cache", **kill).wait()
            if run.status == 0:
                break
            assert run.status in (-signal.SIGKILL, -signal.SIGALRM), run.output[-3000:]
            num_kills += 1
        assert _content(folder / "run") == expected
        assert not list((folder / "run").rglob("*.tmp*"))


@pytest.mark.parametrize("init", ["bigan", "context_encoder"])
def test_a_killed_pretext_task_ends_in_the_same_bits(data, start, unbroken, tmp_path, init):
    """The parts of BiGAN are trained against each other, so each step depends on all before it."""
    settings = {"steps": 12, "drops": "", "num_images": 2, "crop": 32, "shorter_side": "none"}
    settings |= {"held_out": 0.4, "log_every": 1, "checkpoint_every": 4, "statistics_steps": 2}
    more = {"bigan": {"side": 16, "num_codes": 4}, "context_encoder": {"decoder": "4,4,4"}}
    keys = {f"{init}.{key}": value for key, value in (settings | more[init]).items()}
    flags = [f"--init={init}", "--stage=proxy", "--backbone=alexnet", "--set=network.width=0.1"]
    flags += [f"--set={key}={value}" for key, value in keys.items()]
    unbroken_run = start(data, tmp_path / "unbroken", unbroken[1], *flags)
    assert_done(unbroken_run)
    assert "remapper" not in unbroken_run.output  # an error that TensorFlow logged for LeakyReLU
    metrics = tmp_path / "run" / "proxy" / "metrics.jsonl"
    run = start(data, tmp_path / "run", unbroken[1], *flags)
    run.wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 5)
    assert run.send(signal.SIGKILL).wait().status == -signal.SIGKILL
    assert_done(start(data, tmp_path / "run", unbroken[1], *flags))
    assert metrics.read_text() == _losses(tmp_path / "unbroken", "proxy")
    first, second = (
        _weights(tmp_path / name / "proxy" / "backbone.weights.h5") for name in ("unbroken", "run")
    )
    assert first == second


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_the_same_command_continues(
    data, start, unbroken, tmp_path, number
):
    flags, workdir = ("--set=mm.checkpoint_every=1000", "--stage=mm"), tmp_path / "run"
    metrics = workdir / "mm" / "metrics.jsonl"
    run = start(data, workdir, unbroken[1], *flags)
    run.wait_until(lambda: metrics.exists() and metrics.read_text())
    run.send(number).wait()
    assert run.status == 1 and "Traceback" not in run.output, run.output
    assert "the same command continues" in run.output
    assert_done(start(data, workdir, unbroken[1], *flags))
    assert metrics.read_text() == (unbroken[0] / "mm" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_training_is_one_sentence(data, start, tmp_path, number, status):
    cache = tmp_path / "cache"
    run = start(data, tmp_path / "run", cache)
    run.wait_until(lambda: cache.exists())
    run.send(number).wait()
    assert run.status == status and "Traceback" not in run.output, run.output
    assert run.output.splitlines()[-1] == "stopped; the same command continues the run"


def _settings_of(workdir):
    from trainers.config import resolved

    values, _ = resolved.read_file(workdir / "settings.json")
    return config.changed(config.Experiment(), values)


@contextlib.contextmanager
def _cache(folder):
    before = os.environ.get("TFDS_DATA_DIR")
    os.environ["TFDS_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("TFDS_DATA_DIR")
        if before is not None:
            os.environ["TFDS_DATA_DIR"] = before


def _outcome(settings, stages, workdir, overwrite=False):
    """Return None after a run that ended, or the sentence of its error."""
    try:
        experiment.run_experiment(settings, stages, workdir, overwrite=overwrite)
    except BaseException as error:
        sentence = command_line.sentence(error) if isinstance(error, Exception) else None
        assert sentence, f"{type(error).__name__}: {error}"
        return sentence
    return None


def _follow_advice(sentence, settings, workdir):
    """Do what a message asks for, and run the stages again."""
    command = re.search(r"python -m trainers\.mm .*--overwrite .*--stage=(\S+)", sentence)
    if command:
        assert _outcome(settings, command[1].split(","), workdir, overwrite=True) is None
    else:
        assert re.search(r"[Rr]emove (it|this folder|the folder)\b", sentence), sentence
        place = re.search(r"remove the folder (\S+)", sentence) or re.search(
            r"(/\S+?)(?=[:,\s])", sentence
        )
        place = pathlib.Path(place[1])
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert _outcome(settings, STAGES[:3], workdir) is None, sentence


def _files(folder):
    """Return the relative paths of the files, without logs and exports, which no stage reads."""
    paths = [p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file()]
    return [p for p in paths if not {"logs", "saved_model", ".lock"} & set(p.parts)]


def test_damaged_files_of_a_run_give_the_same_bits_or_advice_that_works(unbroken, tmp_path, damage):
    source, cache = unbroken
    settings, expected = _settings_of(source), _content(source)
    names = _files(source)
    assert len(names) > 10
    for name in names:
        workdir = tmp_path / "run"
        shutil.copytree(source, workdir)
        damage(workdir / name)
        left = ("segment", "evaluate") if name.parts[0] in ("mm", "segment") else ("evaluate",)
        for stage in left:  # what is not done is made from the rest
            if name != pathlib.Path(stage, "results.json"):
                (workdir / stage / "results.json").unlink()
        with _cache(cache):
            sentence = _outcome(settings, STAGES[:3], workdir)
            print(name, "->", sentence)
            if sentence:
                _follow_advice(sentence, settings, workdir)
        if name.name != "metrics.jsonl":  # of a stage that is done
            assert _content(workdir) == expected, name
        shutil.rmtree(workdir)


def test_damaged_files_of_the_cache_give_the_same_bits_or_advice_that_works(
    unbroken, tmp_path, damage
):
    source, cache = unbroken
    settings, expected = _settings_of(source), _content(source)
    names = [p.relative_to(cache) for p in sorted(cache.rglob("*")) if p.is_file()]
    assert len(names) > 3
    for name in names:
        copy, workdir = tmp_path / "cache", tmp_path / "run"
        shutil.copytree(cache, copy)
        shutil.copytree(source, workdir)
        (workdir / "evaluate" / "results.json").unlink()
        damage(copy / name)
        with _cache(copy):
            sentence = _outcome(settings, ["evaluate"], workdir)
            print(name, "->", sentence)
            if sentence:
                _follow_advice(sentence, settings, workdir)
        assert _content(workdir) == expected, name
        shutil.rmtree(workdir)
        shutil.rmtree(copy)


@pytest.mark.parametrize("name", ["settings.json", "run.json"])
def test_damaged_settings_of_a_run_are_named(data, start, unbroken, tmp_path, name, damages):
    shutil.copytree(unbroken[0], tmp_path / "run")
    damages["cut"](tmp_path / "run" / name)
    (tmp_path / "run" / "evaluate" / "results.json").unlink()
    flags = ("--stage=evaluate",)
    if name == "settings.json":
        output = assert_one_sentence(start(data, tmp_path / "run", unbroken[1], *flags))
        assert "settings.json" in output and "--preset" in output
        flags = (*flags, "--preset=quick")
    assert_done(start(data, tmp_path / "run", unbroken[1], *flags))
    assert _content(tmp_path / "run") == _content(unbroken[0])


def test_the_command_after_a_diverged_training_works(data, start, unbroken, tmp_path):
    flags = ("--stage=mm", "--set=mm.learning_rate=1e25")
    output = assert_one_sentence(start(data, tmp_path / "run", unbroken[1], *flags))
    command = shlex.split(re.search(r"python -m trainers\.mm (.*)", output)[1])
    command = [flag.replace("=1e+24", "=0.01") for flag in command]
    assert "--set=mm.learning_rate=0.01" in command
    run = start(data, tmp_path / "run", unbroken[1], only=command)
    assert_done(run)
    assert _losses(tmp_path / "run", "mm") == _losses(unbroken[0], "mm")


def test_the_advice_for_other_settings_works(data, start, unbroken, tmp_path):
    shutil.copytree(unbroken[0], tmp_path / "run")
    flags = ("--stage=mm", "--set=mm.margin=1.5", "--set=mm.steps=1")
    output = assert_one_sentence(start(data, tmp_path / "run", unbroken[1], *flags))
    advice = re.search(r"--overwrite --stage=\S+(?=\.)", output)[0].split()
    assert advice == ["--overwrite", "--stage=mm,segment,evaluate,export"]
    flags = (*flags, "--set=segment.steps=1", *advice)
    assert_done(start(data, tmp_path / "run", unbroken[1], *flags))


def test_the_advice_for_a_missing_stage_works(data, start, unbroken, tmp_path):
    def run(stage):
        flags = ("--set=mm.steps=1", "--set=segment.steps=1", f"--stage={stage}")
        return start(data, tmp_path / "run", unbroken[1], *flags)

    output = assert_one_sentence(run("evaluate"))
    assert "the same command with --stage=segment first" in output
    assert "the same command with --stage=mm first" in assert_one_sentence(run("segment"))
    for stage in ("mm", "segment", "evaluate"):
        assert_done(run(stage))


def test_the_advice_for_images_without_labels_works(data, start, unbroken, tmp_path):
    shutil.copytree(unbroken[0], tmp_path / "run")
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "images" / "test").mkdir()
    shutil.copy(data / "images" / "0.png", tmp_path / "data" / "images" / "test" / "new.png")
    flags = ("--stage=mm,segment,evaluate", "--eval_split=test")
    run = start(tmp_path / "data", tmp_path / "run", unbroken[1], *flags)
    advice = re.search(r"--stage=\S+(?=\.)", assert_one_sentence(run))[0]
    assert advice == "--stage=mm,segment,predict"
    flags = (advice, "--eval_split=test")
    assert_done(start(tmp_path / "data", tmp_path / "run", unbroken[1], *flags))
    assert (tmp_path / "run" / "predict" / "results" / "new.png").exists()


def test_the_advice_for_a_folder_without_a_data_set_works(data, start, unbroken, tmp_path):
    flags = [f"--data_dir={data}", f"--workdir={tmp_path / 'run'}", "--stage=doctor"]
    output = assert_one_sentence(start(None, None, unbroken[1], only=flags))
    assert "Add --dataset=folder" in output
    assert_done(start(None, None, unbroken[1], only=[*flags, "--dataset=folder"]))


@contextlib.contextmanager
def _small_disk(folder, size):
    """Mount a disk of some bytes; only root can."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user cannot mount a small disk")
    try:
        yield lambda options: subprocess.run(
            ["mount", "-o", f"remount,{options}", str(folder)], check=True
        )
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("size", ["20k", "150k", "500k"])
def test_a_full_disk_is_one_sentence_and_the_run_continues(data, start, unbroken, tmp_path, size):
    workdir, stages = tmp_path / "disk" / "run", "--stage=mm,segment,evaluate"
    with _small_disk(tmp_path / "disk", size) as remount:
        assert "No space left" in assert_one_sentence(start(data, workdir, unbroken[1], stages))
        remount("size=50m")
        assert_done(start(data, workdir, unbroken[1], stages))
        assert _content(workdir) == _content(unbroken[0])


def test_a_full_disk_of_the_data_sets_is_one_sentence(data, start, unbroken, tmp_path):
    cache = tmp_path / "disk" / "cache"
    with _small_disk(tmp_path / "disk", "20k") as remount:
        run = start(data, tmp_path / "run", cache, "--stage=mm")
        assert "No space left" in assert_one_sentence(run)
        remount("size=50m")
        assert_done(start(data, tmp_path / "run", cache, "--stage=mm"))
    assert _losses(tmp_path / "run", "mm") == _losses(unbroken[0], "mm")


def test_a_read_only_disk_is_one_sentence(data, start, unbroken, tmp_path):
    with _small_disk(tmp_path / "disk", "50m") as remount:
        remount("ro")
        run = start(data, tmp_path / "disk" / "run", unbroken[1])
        assert "Read-only" in assert_one_sentence(run)


@pytest.mark.parametrize("place", ["workdir", "stage", "cache", "parent"])
def test_a_folder_without_write_permission_is_one_sentence(data, start, unbroken, tmp_path, place):
    folder = tmp_path / "locked"
    folder.mkdir()
    workdir = folder if place == "workdir" else folder / "run"
    if place == "stage":
        workdir = tmp_path / "run"
        shutil.copytree(unbroken[0], workdir)
        (workdir / "evaluate" / "results.json").unlink()
        folder = workdir / "evaluate"
    if place == "cache":
        workdir = tmp_path / "run"
    cache = folder / "cache" if place == "cache" else unbroken[1]
    folder.chmod(0o555)
    run = start(data, workdir, cache, powerless=True)
    output = assert_one_sentence(run)
    assert "Permission denied" in output and str(folder) in output


@pytest.mark.parametrize("place", ["workdir", "parent", "cache"])
def test_a_file_in_the_place_of_a_folder_is_one_sentence(data, start, unbroken, tmp_path, place):
    file = tmp_path / "file"
    file.write_text("mine")
    workdir = {"workdir": file, "parent": file / "run", "cache": tmp_path / "run"}[place]
    cache = file if place == "cache" else unbroken[1]
    output = assert_one_sentence(start(data, workdir, cache))
    assert str(file) in output and file.read_text() == "mine"


def test_a_second_run_in_the_same_folder_is_refused(data, start, unbroken, tmp_path):
    workdir = tmp_path / "run"
    first = start(data, workdir, unbroken[1], "--set=mm.steps=1000000")
    first.wait_until((workdir / "mm" / "metrics.jsonl").exists)
    for flags in ((), ("--overwrite",), ("--set=mm.margin=1",)):
        output = assert_one_sentence(start(data, workdir, unbroken[1], *flags))
        assert f"in use by process {first.pid}" in output
    first.send(signal.SIGKILL).wait()


def test_two_runs_prepare_one_data_set_at_once(data, start, unbroken, tmp_path):
    runs = [start(data, tmp_path / name, tmp_path / "cache", "--stage=mm") for name in "ab"]
    for run, name in zip(runs, "ab", strict=True):
        assert_done(run)
        assert _losses(tmp_path / name, "mm") == _losses(unbroken[0], "mm")


VALUES = (
    *("-1", "0", "1", "2", "3", "7", "0.5", "-0.5", "1e-9", "1e30", "nan", "inf", "2147483648"),
    *("x", "", "none", "true", "1,2", "-3,5", "2,1", "0.1,0.2", "[1]", "{}", "ä", "a\x1bb"),
)


STAGES_OF = {
    "mm": ["mm"],
    "segment": ["segment"],
    "evaluate": ["evaluate"],
    **dict.fromkeys(config.PROXIES, ["proxy"]),
}
"""{section: the stages that use it}; other settings run all stages."""


@pytest.fixture(scope="module")
def short(data, start, unbroken, tmp_path_factory):
    """(settings, workdir) of a run with one step in each stage."""
    workdir = tmp_path_factory.mktemp("short") / "run"
    flags = ("--set=mm.steps=1", "--set=segment.steps=1", "--stage=mm,segment,evaluate")
    assert_done(start(data, workdir, unbroken[1], *flags))
    return _settings_of(workdir), workdir


def _random_setting(draw, base):
    """Return (key, settings with one random value or None, sentence of the refusal or None)."""
    keys = [key for key in settings() if key not in ("data.unlabelled_dir", "strategy", "timeout")]
    key, value = draw.choice(keys), draw.choice(VALUES)
    section = key.split(".")[0]
    if section in config.PROXIES:
        small = {"network.init": section, f"{section}.steps": 1, f"{section}.num_images": 2}
        small |= {"network.backbone": "alexnet"} if section == "split_brain" else {}
        base = config.changed(base, small | {f"{section}.drops": []})
    try:
        return key, config.replace(base, key, value), None
    except config.ConfigError as error:
        return key, None, str(error)


def test_150_random_settings_give_a_run_or_a_sentence(short, unbroken, tmp_path):
    draw, num_runs = random.Random(1), 0
    base, source = short
    for number in range(150):
        key, changed, sentence = _random_setting(draw, base)
        if changed is None:
            assert key in sentence
            continue
        if key.endswith("steps") and config.flatten(changed)[key] > 10:
            continue  # a valid setting that takes too long
        stages = STAGES_OF.get(key.split(".")[0], ["mm", "segment", "evaluate"])
        workdir = tmp_path / str(number)
        if stages[0] in ("segment", "evaluate"):
            shutil.copytree(source, workdir)
            shutil.rmtree(workdir / stages[0])
            shutil.rmtree(workdir / "evaluate", ignore_errors=True)
        with _cache(unbroken[1]):
            sentence = _outcome(changed, stages, workdir)
        print(key, config.flatten(changed)[key], "->", sentence)
        num_runs += sentence is None
        if sentence is None and stages[-1] == "evaluate":
            assert math.isfinite(json.loads((workdir / "results.json").read_text())["miou"])
        shutil.rmtree(workdir, ignore_errors=True)
    assert num_runs > 20


FLAGS = {
    "stage": ("all", "predict", "doctor", "mm,doctor", "proxy", "mm", "x", "", "evaluate"),
    "preset": ("quick", "paper", "release", "table2_vgg16-random", "x", ""),
    "backbone": ("alexnet", "testing", "applications/No", "applications/", "kerashub/x", "x", ""),
    "init": ("random", "colorization", "jigsaw", "imagenet", "x", ""),
    "init_weights": ("", "missing.h5", ".", "classes.txt"),
    "data_dir": ("", ".", "missing", "classes.txt"),
    "dataset": ("folder", "camvid", "voc_sbd", "cityscapes", "texture_scenes", "x", ""),
    "unlabelled_dir": ("", ".", "missing", "classes.txt"),
    "train_split": ("train", "val", "test", "x", "", "a/b", "..", "all"),
    "eval_split": ("train", "val", "test", "x", "", "a/b", "..", "all"),
    "precision": ("float32", "mixed_float16", "mixed_bfloat16", "x", ""),
    "strategy": ("none", "mirrored", "multi_worker", "x"),
    "data_service": ("grpc://127.0.0.1:1", "grpc://x", "x", ""),
    "seed": ("1", "-1", "x", "", "4294967296"),
    "ensemble": ("missing", "classes.txt", ".", ",", ""),
    "config": ("missing.yaml", "classes.txt", ".", ""),
    "workdir": ("", ".", "classes.txt", "classes.txt/x", "a\x1bb"),
    "set": ("mm.margin", "mm.margin=", "=1", "x=1", "mm=1", "mm.steps=1", "MM.STEPS=1"),
    "compare": ("true", "x"),
    "overwrite": ("true", "x"),
    "print_config": ("true",),
    "unknown": ("1",),
}
"""{flag: values to draw from}; relative paths are in a copy of the data set's folder."""


def test_50_random_flags_give_a_run_or_a_sentence(data, start, unbroken, tmp_path):
    draw, num_runs = random.Random(2), 0
    few = ("--set=mm.steps=1", "--set=segment.steps=1", "--set=timeout=3", "--stage=mm")
    home = tmp_path / "home"
    shutil.copytree(data, home)
    for number in range(50):
        flag = draw.choice(list(FLAGS))
        flags = (*few, f"--{flag}={draw.choice(FLAGS[flag])}")
        run = start(data, tmp_path / str(number), unbroken[1], *flags, folder=str(home)).wait()
        print(flags[-1], run.status, run.output.splitlines()[-1:])
        assert "Traceback" not in run.output and run.status in (0, 1), (flags, run.output[-3000:])
        num_runs += run.status == 0
    assert num_runs > 5


def test_messages_escape_control_characters():
    console = terminal.console(file=io.StringIO())
    console.print(terminal.printable("sign [/stop] \x1b[2J"))
    assert console.file.getvalue().strip() == "sign [/stop] \\x1b[2J"
