"""Execution of a study: its runs one after the other, each in its own process."""

import contextlib
import fcntl
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

from trainers.config import resolved
from trainers.runs import files, finished
from trainers.studies import plan

_LAST_LINES = 15  # lines of a failed run's log in the error message


def run(study: plan.Study, log: Callable[[str], None] = print):
    """Execute all runs of a study that are not finished yet.

    Args:
        study: the runs.
        log: function that is called with each line of progress.

    Raises:
        plan.StudyError: a run failed; the message contains the last lines of its log.
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
                experiment = study.experiment(arm, seed)
                _execute(study, experiment, study.stages(experiment), folder, lock)
            log(f"{title}: mIoU {100 * finished.scores(folder)['miou']:.2f}")


@contextlib.contextmanager
def _lock(workdir, log):
    """Hold the lock of the study. The processes of the runs inherit it.

    A run may outlive a killed study. The next study then waits until that run has ended.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"waiting for another study in {workdir}, or for a run of a killed study")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _execute(study, experiment, stages, folder: pathlib.Path, lock):
    """Run some stages in a folder, in a new process that reads the settings from a file."""
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / "log.txt"
    content = resolved.as_file(resolved.Resolved(experiment, study.preset))
    files.write_json(plan.settings_file(folder), content)
    command = plan.command(stages, folder)
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
        raise plan.StudyError(
            f"python {' '.join(command)}\nfailed. The last lines of {log_file}:\n{last}"
        )


def _share_first_stages(study, arm, seed, lock):
    """Run the stages before M&M once per seed, and copy their files into the folder of the arm."""
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
        left_out = shutil.ignore_patterns("checkpoints", "logs")
        with files.replacing(target) as temporary:
            shutil.copytree(source, temporary, ignore=left_out)
