"""Arms x seeds on one data set with equal budgets: what a claim of a gain rests on.

python -m trainers.study --dataset=camvid --data_dir=DIR --seeds=0,1,2 --workdir=STUDY

The flags of trainers.mm (--preset, --init, --set ...) describe what all arms share. Each run is an
ordinary `python -m trainers.mm` in STUDY/ARM/seedN. Runs of one seed start from the same weights
and see the same crops in the same order, so that their differences are paired. The same command
again continues where it stopped, however it was stopped.
"""

import contextlib
import dataclasses
import fcntl
import importlib
import math
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

from absl import app, flags, logging

from trainers import config, mm, presets

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "arms",
    ["naive", "naive_longer", "random_triplets", "class_connected"],
    "Arms to run; ARM:N runs it with the first N seeds only. Any other name is M&M with the "
    "changes that --arm_set gives it. Differences are taken to the first arm.",
)
flags.DEFINE_list("seeds", ["0", "1", "2"], "Each decides weights, order of the data, and graphs.")
flags.DEFINE_multi_string("arm_set", [], "ARM:KEY=VALUE, a change of the configuration in one arm.")

_STAGES = ("mm", "segment", "evaluate")
_OWN_FLAGS = {"seed", "workdir", "stage", "compare", "overwrite"}
"""Of the flags of trainers.mm, those that a study sets itself."""

_LAST_LINES = 15  # of a failed run's log


class StudyError(config.UserError):
    """A study that cannot be planned or cannot go on."""


def naive_longer(experiment: config.Experiment) -> dict[str, object]:
    """Fine-tuning without M&M that may look at as many pixels as M&M and fine-tuning do together.

    Budgets are counted in pixels that go forward and backward through the backbone, which is the
    same on all machines: patches * side^2 in a step of M&M, images * crop^2 in one of fine-tuning.
    A pixel of fine-tuning costs more, since the segmenter's own layers come on top, so the count
    favours this arm. The drops of the rate keep their share of the schedule.

    Args:
        experiment: resolved, with M&M.
    """
    settings = experiment.segment
    num_steps = settings.steps + math.ceil(
        experiment.mm.steps * mm_pixels(experiment) / segment_pixels(experiment)
    )
    drops = tuple(round(drop * num_steps / settings.steps) for drop in settings.drops)
    return {**presets.WITHOUT_MM, "segment.steps": num_steps, "segment.drops": drops}


def mm_pixels(experiment: config.Experiment) -> int:
    """Pixels that a step of M&M sends through the backbone."""
    settings = experiment.mm
    return settings.num_images * settings.patches_per_image * settings.patch_size**2


def segment_pixels(experiment: config.Experiment) -> int:
    """Pixels that a step of fine-tuning sends through the backbone."""
    return experiment.segment.num_images * experiment.segment.crop**2


ARMS = {
    "naive": lambda experiment: presets.WITHOUT_MM,
    "naive_longer": naive_longer,
    "random_triplets": lambda experiment: {"mm.matching": "random_triplets"},
    "class_connected": lambda experiment: {"mm.matching": "class_connected"},
}
"""Name -> function(resolved experiment) -> changes of the configuration."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """changes: {key: value} on top of what all arms share; seeds: those it is run with."""

    name: str
    changes: dict[str, object]
    seeds: tuple[int, ...]


def plan(
    names: list[str], seeds: list[int], changes: list[str], shared: config.Experiment
) -> list[Arm]:
    """The arms of a study.

    Args:
        names: as the flag --arms takes them.
        seeds: of all arms.
        changes: as the flag --arm_set takes them.
        shared: resolved; what all arms have in common.

    Raises:
        config.ConfigError: an unknown arm, or a change that does not fit.
        StudyError: M&M has no steps, or seeds or arms come twice.
    """
    if shared.mm.steps == 0:
        raise StudyError("mm.steps is 0, so all arms would be the same: choose some M&M steps.")
    own = _changes_by_arm(changes)
    names_and_seeds = [_arm_and_seeds(name, seeds) for name in names]
    names = [name for name, _ in names_and_seeds]
    for kind, values in (("arms", names), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise StudyError(f"--{kind} takes one or more different ones. Received {values}.")
    for name in own.keys() - set(names):
        raise config.ConfigError(config.unknown("arm of --arm_set", name, names))
    return [
        Arm(name, _changes_of(name, own.get(name), shared), chosen)
        for name, chosen in names_and_seeds
    ]


def _arm_and_seeds(text, seeds):
    name, colon, number = text.partition(":")
    if not colon:
        return name, tuple(seeds)
    if not number.isdecimal() or not 1 <= int(number) <= len(seeds):
        raise StudyError(f"--arms takes ARM:N with N in 1..{len(seeds)}. Received {text!r}.")
    return name, tuple(seeds[: int(number)])


def _changes_by_arm(assignments):
    changes = {}
    for text in assignments:
        name, colon, assignment = text.partition(":")
        key, equals, value = assignment.partition("=")
        if not (colon and equals):
            raise config.ConfigError(f"--arm_set takes ARM:KEY=VALUE. Received {text!r}.")
        changes.setdefault(name, {})[key] = value
    return changes


def _changes_of(name, own, shared):
    if name not in ARMS and own is None:
        raise config.ConfigError(
            f"{config.unknown('arm', name, ARMS)} Another name needs --arm_set={name}:KEY=VALUE."
        )
    usual = ARMS[name](shared) if name in ARMS else {}
    return {**usual, **(own or {})}


@dataclasses.dataclass(frozen=True)
class Study:
    """Runs to be done.

    workdir: of the study.
    arms: in the order of the summary; differences are taken to the first.
    shared: the configuration of all arms; sizes may still be shares.
    shorter_side: of the data set's images, which settles such sizes.
    flags: arguments of trainers.mm that give `shared`.
    """

    workdir: pathlib.Path
    arms: list[Arm]
    shared: config.Experiment
    shorter_side: int
    flags: list[str]

    def runs(self) -> Iterator[tuple[Arm, int]]:
        """All runs, seed by seed, so that what is there first can be compared."""
        for seed in dict.fromkeys(seed for arm in self.arms for seed in arm.seeds):
            yield from ((arm, seed) for arm in self.arms if seed in arm.seeds)

    def experiment(self, arm: Arm, seed: int) -> config.Experiment:
        """The configuration of one run, resolved.

        Raises:
            config.ConfigError: a change does not fit.
        """
        experiment = self.shared
        for key, value in (arm.changes | {"seed": seed}).items():
            experiment = config.replace(experiment, key, value)
        config.check(experiment)
        return config.resolve(experiment, self.shorter_side)

    def folder(self, arm: Arm, seed: int) -> pathlib.Path:
        """The working folder of one run."""
        return self.workdir / arm.name / f"seed{seed}"

    def command(self, arm: Arm, seed: int) -> list[str]:
        """What runs it, without the interpreter."""
        changes = (f"--set={key}={_as_text(value)}" for key, value in arm.changes.items())
        return self._command(self.folder(arm, seed), seed, _STAGES, changes)

    def first_stages(self) -> list[str]:
        """Stages before M&M, which all arms of a seed share: the proxy task, where there is one."""
        stages = importlib.import_module("trainers.runtime").STAGES
        if self.shared.network.init == "random":
            return []
        return list(stages[: stages.index("mm")])

    def first_folder(self, seed: int) -> pathlib.Path:
        """The working folder of a seed's first stages."""
        return self.workdir / "shared" / f"seed{seed}"

    def first_command(self, seed: int) -> list[str]:
        """What runs a seed's first stages, without the interpreter."""
        return self._command(self.first_folder(seed), seed, self.first_stages())

    def _command(self, folder, seed, stages, changes=()):
        return [
            *("-m", "trainers.mm", *self.flags, *changes),
            *(f"--seed={seed}", f"--stage={','.join(stages)}", f"--workdir={folder}"),
        ]


def _as_text(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def run(study: Study, say=print):
    """Runs what is not done yet, one run after the other, each in a process of its own.

    Raises:
        StudyError: a run failed; shows the end of its log.
    """
    todo = list(study.runs())
    with _lock(study.workdir, say) as lock:
        for number, (arm, seed) in enumerate(todo, start=1):
            folder, title = (
                study.folder(arm, seed),
                f"[{number}/{len(todo)}] {arm.name} seed {seed}",
            )
            if (folder / "evaluate" / "results.json").exists():
                say(f"{title}: done")
                continue
            say(f"{title}: running, log in {folder / 'log.txt'}")
            started = time.monotonic()
            _share_first_stages(study, arm, seed, lock)
            _execute(study.command(arm, seed), folder, lock)
            say(f"{title}: done in {time.monotonic() - started:.0f} s")


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
        raise StudyError(f"python {' '.join(command)}\nfailed; the end of {path}:\n{last}")


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
            raise StudyError(f"A study sets --{name} itself; see --seeds, --arms and --workdir.")
    if not FLAGS.workdir:
        raise StudyError("A study needs a --workdir.")
    shared = mm.experiment_of_flags()
    runtime = importlib.import_module("trainers.runtime")
    importlib.import_module("trainers.networks").check(shared)
    dataset = runtime.load_dataset(shared.data)
    for message in dataset.messages:
        print(message)
    shorter_side = dataset.train.shorter_side
    arms = plan(FLAGS.arms, _seeds(), FLAGS.arm_set, config.resolve(shared, shorter_side))
    study = Study(pathlib.Path(FLAGS.workdir), arms, shared, shorter_side, _shared_flags())
    for arm, seed in study.runs():
        where = runtime.Runtime(study.folder(arm, seed), dataset, console=None)
        runtime.check_workdir(where, study.experiment(arm, seed))
    return study, dataset


def _seeds():
    if not all(seed.isdecimal() for seed in FLAGS.seeds):
        raise StudyError(f"--seeds takes whole numbers from 0 on. Received {FLAGS.seeds}.")
    return [int(seed) for seed in FLAGS.seeds]


def _shared_flags():
    """The given flags of trainers.mm, as arguments for each run."""
    given = [flag for flag in FLAGS.get_flags_for_module(mm.__name__) if flag.present]
    given = [flag for flag in given if flag.name not in _OWN_FLAGS]
    return [argument for flag in given for argument in flag.serialize().splitlines()]


if __name__ == "__main__":
    app.run(main)
