"""Arms x seeds on one data set with equal budgets: what a claim of a gain rests on.

python -m trainers.study --dataset=camvid --data_dir=DIR --seeds=0,1,2 --workdir=STUDY

The flags of trainers.mm (--preset, --init, --set ...) describe what all arms share. Each run is an
ordinary `python -m trainers.mm` in STUDY/ARM/seedN. Runs of one seed start from the same weights
and see the same crops in the same order, so that their differences are paired. The same command
again continues where it stopped, however it was stopped.
"""

import contextlib
import fcntl
import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import rich.console
from absl import app, flags, logging

from trainers import arms, config, mm

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "arms",
    ["naive", "naive_longer", "random_triplets", "class_connected"],
    "Arms to run; ARM:N runs it with the first N seeds only. Any other name is M&M with the "
    "changes that --arm_set gives it. Differences are taken to the first arm.",
)
flags.DEFINE_list("seeds", ["0", "1", "2"], "Each decides weights, order of the data, and graphs.")
flags.DEFINE_multi_string("arm_set", [], "ARM:KEY=VALUE, a change of the configuration in one arm.")

_OWN_FLAGS = {"seed", "workdir", "stage", "compare", "overwrite"}
"""Of the flags of trainers.mm, those that a study sets itself."""

_LAST_LINES = 15  # of a failed run's log


def run(study: arms.Study, say=print):
    """Runs what is not done yet, one run after the other, each in a process of its own.

    Raises:
        arms.StudyError: a run failed; shows the end of its log.
    """
    todo = list(study.runs())
    with _lock(study.workdir, say) as lock:
        for number, (arm, seed) in enumerate(todo, start=1):
            title = f"[{number}/{len(todo)}] {arm.name} seed {seed}"
            folder = study.folder(arm, seed)
            result = folder / "evaluate" / "results.json"
            if not result.exists():
                say(f"{title}: running, log in {folder / 'log.txt'}")
                _share_first_stages(study, arm, seed, lock)
                _execute(study.command(arm, seed), folder, lock)
            say(f"{title}: mIoU {100 * json.loads(result.read_text())['miou']:.2f}")


@contextlib.contextmanager
def _lock(workdir, say):
    """Holds the study's lock, which runs inherit: if a study is killed, the next one waits until
    the run that was left alone has ended.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another study, or the run that one left behind, in {workdir}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _execute(command, folder, lock):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "log.txt"
    with path.open("a") as log:
        done = subprocess.run(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[lock.fileno()],
        )
    if done.returncode:
        last = "\n".join(path.read_text(errors="replace").splitlines()[-_LAST_LINES:])
        raise arms.StudyError(f"python {' '.join(command)}\nfailed; the end of {path}:\n{last}")


def _share_first_stages(study, arm, seed, lock):
    """Runs the stages before M&M once a seed, and copies what they left into the arm's folder."""
    missing = [
        stage
        for stage in study.first_stages()
        if not (study.folder(arm, seed) / stage / "results.json").exists()
    ]
    if not missing:
        return
    _execute(study.first_command(seed), study.first_folder(seed), lock)
    for stage in missing:
        source, target = study.first_folder(seed) / stage, study.folder(arm, seed) / stage
        if not source.exists():
            continue
        temporary = target.with_name(f"{os.getpid()}.tmp")
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns("checkpoints", "logs"))
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)


def main(argv):
    if argv[1:]:
        sys.exit(f"Unexpected arguments: {' '.join(argv[1:])}. All options begin with --.")
    logging.set_verbosity(logging.WARNING)
    try:
        study, dataset = _prepared()
        run(study)
        summary = importlib.import_module("trainers.summary")
        print(summary.write(study, dataset))
    except config.UserError as error:
        sys.exit(f"error: {error}")


def _prepared():
    """The study that the flags ask for, checked against what is there already; and its data."""
    for name in _OWN_FLAGS - {"workdir"}:
        if FLAGS[name].present:
            raise arms.StudyError(
                f"A study sets --{name} itself; see --seeds, --arms and --workdir."
            )
    if not FLAGS.workdir:
        raise arms.StudyError("A study needs a --workdir.")
    shared = mm.with_possible_width(mm.experiment_of_flags(), rich.console.Console())
    runtime = importlib.import_module("trainers.runtime")
    importlib.import_module("trainers.networks").check(shared)
    dataset = runtime.load_dataset(shared.data)
    for message in dataset.messages:
        print(message)
    shorter_side = dataset.train.shorter_side
    resolved = config.resolve(shared, shorter_side)
    cost = importlib.import_module("trainers.step_cost").count(resolved, dataset.spec.num_classes)
    planned = arms.plan(FLAGS.arms, _seeds(), FLAGS.arm_set, resolved, cost)
    workdir = pathlib.Path(FLAGS.workdir)
    study = arms.Study(workdir, planned, shared, shorter_side, _shared_flags())
    for arm, seed in study.runs():
        where = runtime.Runtime(study.folder(arm, seed), dataset, console=None)
        runtime.check_workdir(where, study.experiment(arm, seed))
    return study, dataset


def _seeds():
    if not all(seed.isdecimal() for seed in FLAGS.seeds):
        raise arms.StudyError(f"--seeds takes whole numbers from 0 on. Received {FLAGS.seeds}.")
    return [int(seed) for seed in FLAGS.seeds]


def _shared_flags():
    """The given flags of trainers.mm, as arguments for each run."""
    given = [flag for flag in FLAGS.get_flags_for_module(mm.__name__) if flag.present]
    given = [flag for flag in given if flag.name not in _OWN_FLAGS]
    return [argument for flag in given for argument in flag.serialize().splitlines()]


if __name__ == "__main__":
    app.run(main)
