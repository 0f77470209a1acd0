"""Injected faults end in the same bits as an unbroken run, or in one sentence.

Killed processes, damaged files, a full disk, two runs at once, and random settings. All tests here
are slow.
"""

import contextlib
import dataclasses
import io
import json
import math
import os
import pathlib
import random
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
    *(
        f"--set={stage}.{key}={value}"
        for stage in ("mm", "segment")
        for key, value in (("steps", 12), ("drops", ""), ("log_every", 1), ("checkpoint_every", 4))
    ),
]


def _command(data, workdir, *arguments):
    flags = (*SMALL, f"--data_dir={data}", f"--workdir={workdir}", *arguments)
    return [sys.executable, "-m", "trainers.mm", *flags]


def _environment(cache):
    return {**os.environ, "PYTHONPATH": str(ROOT), "TFDS_DATA_DIR": str(cache)}


def _run(data, workdir, cache, *arguments):
    return subprocess.run(
        _command(data, workdir, *arguments),
        env=_environment(cache),
        capture_output=True,
        text=True,
        timeout=600,
    )


def _content(workdir):
    """Return the results of a run without its times: losses, scores, and all weights."""
    import h5py

    def scores(path):
        content = json.loads(path.read_text())
        return {k: v for k, v in content.items() if k not in ("seconds", "peak_bytes")}

    def weights(path):
        found = {}

        def collect(name, item):
            if isinstance(item, h5py.Dataset):
                found[name] = item[()].tobytes()

        with h5py.File(path) as file:
            file.visititems(collect)
        return found

    return {
        "losses": [(workdir / s / "metrics.jsonl").read_text() for s in ("mm", "segment")],
        "scores": scores(workdir / "evaluate" / "results.json"),
        "mm": weights(workdir / "mm" / "backbone.weights.h5"),
        "segment": weights(workdir / "segment" / "segmenter.weights.h5"),
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
def unbroken(data, tmp_path_factory):
    """(workdir, cache, seconds) of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    started = time.monotonic()
    done = _run(data, folder / "run", folder / "cache")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "run", folder / "cache", time.monotonic() - started


def test_20_kills_at_random_moments_end_in_the_same_bits(data, unbroken, tmp_path):
    expected, moments = _content(unbroken[0]), random.Random(0)
    num_kills = 0
    while num_kills < 20:
        folder = tmp_path / f"after{num_kills}"
        while True:  # kill the same run again and again, until it ends by itself
            process = subprocess.Popen(
                _command(data, folder / "run"),
                env=_environment(folder / "cache"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                # Most of the time is the start: later moments meet the stages.
                _, stderr = process.communicate(timeout=moments.uniform(0.2, 1.1) * unbroken[2])
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                num_kills += 1
        assert process.returncode == 0, stderr[-3000:]
        assert _content(folder / "run") == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_the_same_command_continues(
    data, unbroken, tmp_path, number
):
    workdir = tmp_path / "run"
    process = subprocess.Popen(
        _command(data, workdir, "--set=mm.checkpoint_every=1000"),
        env=_environment(unbroken[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = workdir / "mm" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode != 0 and "Traceback" not in stderr
    assert "the same command continues" in stderr
    done = _run(data, workdir, unbroken[1], "--set=mm.checkpoint_every=1000")
    assert done.returncode == 0, done.stderr[-3000:]
    assert _content(workdir) == _content(unbroken[0])


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def _empty(path):
    path.write_bytes(b"")


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


def _outcome(settings, stages, workdir):
    """Return None after a run that ended, or the sentence of its error."""
    try:
        experiment.run_experiment(settings, stages, workdir)
    except BaseException as error:
        sentence = command_line.sentence(error) if isinstance(error, Exception) else None
        assert sentence, f"{type(error).__name__}: {error}"
        return sentence
    return None


@pytest.mark.parametrize("damage", [_cut, _flip, _empty])
def test_damaged_files_of_a_run_give_the_same_bits_or_a_sentence(unbroken, tmp_path, damage):
    source, cache, _ = unbroken
    settings, expected = _settings_of(source), _content(source)
    names = [p.relative_to(source) for p in sorted(source.rglob("*")) if p.is_file()]
    names = [n for n in names if not {"logs", "saved_model"} & set(n.parts) and n.name != ".lock"]
    assert len(names) > 10
    for name in names:
        workdir = tmp_path / "run"
        shutil.copytree(source, workdir)
        damage(workdir / name)
        for stage in ("segment", "evaluate"):  # what is not done is made from the rest
            (workdir / stage / "results.json").unlink(missing_ok=True)
        with _cache(cache):
            sentence = _outcome(settings, STAGES[:3], workdir)
        if sentence is None and name.name != "metrics.jsonl":
            assert _content(workdir) == expected, name
        shutil.rmtree(workdir)


@pytest.mark.parametrize("damage", [_cut, _flip, _empty])
def test_damaged_files_of_the_cache_give_the_same_scores_or_a_sentence(unbroken, tmp_path, damage):
    source, cache, _ = unbroken
    settings, expected = _settings_of(source), _content(source)["scores"]
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
        if sentence is None:
            assert _content(workdir)["scores"] == expected, name
        shutil.rmtree(workdir)
        shutil.rmtree(copy)


def test_a_full_disk_is_one_sentence_and_the_run_continues(data, unbroken, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root can make a small disk")
    try:
        done = _run(data, disk / "run", unbroken[1], "--stage=mm,segment,evaluate")
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-3000:]
        assert done.stderr.splitlines()[-1].startswith("error: ")
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        done = _run(data, disk / "run", unbroken[1], "--stage=mm,segment,evaluate")
        assert done.returncode == 0, done.stderr[-3000:]
        assert _content(disk / "run") == _content(unbroken[0])
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("place", ["workdir", "parent", "cache"])
def test_a_file_in_the_place_of_a_folder_is_one_sentence(data, unbroken, tmp_path, place):
    file = tmp_path / "file"
    file.write_text("mine")
    workdir = {"workdir": file, "parent": file / "run", "cache": tmp_path / "run"}[place]
    cache = file if place == "cache" else unbroken[1]
    done = _run(data, workdir, cache)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert str(file) in done.stderr and file.read_text() == "mine"


def test_a_second_run_in_the_same_folder_is_refused(data, unbroken, tmp_path):
    workdir = tmp_path / "run"
    first = subprocess.Popen(
        _command(data, workdir, "--set=mm.steps=1000000"),
        env=_environment(unbroken[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (workdir / "mm" / "metrics.jsonl").exists():
            assert first.poll() is None
            time.sleep(0.05)
        for arguments in ((), ("--overwrite",), ("--set=mm.margin=1",)):
            done = _run(data, workdir, unbroken[1], *arguments)
            assert done.returncode == 1 and f"in use by process {first.pid}" in done.stderr
    finally:
        first.kill()
        first.wait()


VALUES = (
    *("-1", "0", "1", "2", "3", "7", "0.5", "-0.5", "1e-9", "1e30", "nan", "inf", "2147483648"),
    *("x", "", "none", "true", "1,2", "-3,5", "2,1", "0.1,0.2", "[1]", "{}", "ä", "a\x1bb"),
)


def test_200_random_settings_give_a_run_or_a_sentence(data, unbroken, tmp_path):
    base = _settings_of(unbroken[0])
    base = dataclasses.replace(
        base,
        mm=dataclasses.replace(base.mm, steps=1),
        segment=dataclasses.replace(base.segment, steps=1),
    )
    draw, num_runs = random.Random(1), 0
    keys = [key for key in settings() if key not in ("data.unlabelled_dir", "strategy")]
    for number in range(200):
        key, value = draw.choice(keys), draw.choice(VALUES)
        try:
            changed = config.replace(base, key, value)
        except config.ConfigError as error:
            assert key in str(error)
            continue
        if key.endswith(".steps") and config.flatten(changed)[key] > 10:
            continue  # a valid setting that takes too long
        workdir = tmp_path / str(number)
        with _cache(unbroken[1]):
            sentence = _outcome(changed, STAGES[:3], workdir)
        num_runs += sentence is None
        if sentence is None:
            results = json.loads((workdir / "results.json").read_text())
            assert math.isfinite(results["miou"])
        shutil.rmtree(workdir, ignore_errors=True)
    assert num_runs > 20


def test_messages_escape_control_characters():
    console = terminal.console(file=io.StringIO())
    console.print(terminal.printable("sign [/stop] \x1b[2J"))
    assert console.file.getvalue().strip() == "sign [/stop] \\x1b[2J"
