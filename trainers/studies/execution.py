"""The runs of a study, one after the other, each in a process of its own."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

from trainers.config import resolved
from trainers.runs import files
from trainers.studies import plan

_LAST_LINES = 15  # of a failed run's log


def run(study: plan.Study, log: Callable[[str], None] = print):
    """Run every run of a study that is not done yet.

    Args:
        log: called with each line of progress.

    Raises:
        plan.StudyError: a run failed; the message holds the end of its log.
    """
    runs = list(study.runs())
    with _lock(study.workdir, log) as lock:
        for number, (arm, seed) in enumerate(runs, start=1):
            title = f"[{number}/{len(runs)}] {arm.name} seed {seed}"
            folder = study.folder(arm, seed)
            result = folder / "evaluate" / "results.json"
            if not result.exists():
                log(f"{title}: running, log in {folder / 'log.txt'}")
                _share_first_stages(study, arm, seed, lock)
                _execute(study, study.experiment(arm, seed), study.stages(), folder, lock)
            log(f"{title}: mIoU {100 * json.loads(result.read_text())['miou']:.2f}")


@contextlib.contextmanager
def _lock(workdir, log):
    """Hold the study's lock, which the runs inherit.

    If a study is killed, the next one waits until the run that it left behind has ended.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"waiting for another study, or the run that one left behind, in {workdir}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _execute(study, experiment, stages, folder: pathlib.Path, lock):
    """Run some stages in a folder; the settings travel in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    settings_file, log_file = folder / "study_settings.json", folder / "log.txt"
    content = resolved.as_file(resolved.Resolved(experiment, study.preset))
    files.write_json(settings_file, content)
    command = plan.command(settings_file, stages, folder)
    with log_file.open("a") as log:
        done = subprocess.run(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[lock.fileno()],
        )
    if done.returncode:
        last = "\n".join(log_file.read_text(errors="replace").splitlines()[-_LAST_LINES:])
        raise plan.StudyError(f"python {' '.join(command)}\nfailed; the end of {log_file}:\n{last}")


def _share_first_stages(study, arm, seed, lock):
    """Run the stages before M&M once a seed, and copy their files into the arm's folder."""
    folder, shared = study.folder(arm, seed), study.first_folder(seed)
    missing = [
        stage for stage in study.first_stages() if not (folder / stage / "results.json").exists()
    ]
    if not missing:
        return
    _execute(study, study.first_experiment(seed), study.first_stages(), shared, lock)
    for stage in missing:
        source, target = shared / stage, folder / stage
        if not source.exists():
            continue
        temporary = target.with_name(f"{os.getpid()}.tmp")
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns("checkpoints", "logs"))
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
