"""The table of stages: the one place that names them, in the order in which they need each other.

A stage is a module of this package with a function `run(experiment, runtime) -> results`. The
functions below import their modules late: the names are needed before TensorFlow loads.
"""

from collections.abc import Iterable, Sequence

from trainers import config
from trainers.runs.stage import Stage


def _proxy(experiment, runtime):
    from trainers.stages import proxy

    return proxy.run(experiment, runtime)


def _mm(experiment, runtime):
    from trainers.stages import mm

    return mm.run(experiment, runtime)


def _teacher(experiment, runtime):
    from trainers.stages import teacher

    return teacher.run(experiment, runtime)


def _pseudo(experiment, runtime):
    from trainers.stages import pseudo

    return pseudo.run(experiment, runtime)


def _segment(experiment, runtime):
    from trainers.stages import segment

    return segment.run(experiment, runtime)


def _evaluate(experiment, runtime):
    from trainers.stages import evaluate

    return evaluate.run(experiment, runtime)


def _export(experiment, runtime):
    from trainers.stages import export

    return export.run(experiment, runtime)


def _predict(experiment, runtime):
    from trainers.stages import predict

    return predict.run(experiment, runtime)


def _suggest(experiment, runtime):
    from trainers.stages import suggest

    return suggest.run(experiment, runtime)


_TRAINED = ("mm", "segment", config.PSEUDO_LABELS)
_PREDICTING = (*_TRAINED, "evaluate")


def _finished(name, sections, run, **facts) -> Stage:
    """Return a stage that uses the finished network of a run or of an ensemble."""
    return Stage(name, sections, run, "segment", of_ensembles=True, **facts)


STAGES = (
    Stage("proxy", (), _proxy, trains=True),
    Stage("mm", ("mm",), _mm, "proxy", trains=True),
    Stage("teacher", ("mm", "segment"), _teacher, "mm", trains=True, is_compared=True),
    Stage("pseudo", _TRAINED, _pseudo, "teacher", is_compared=True),
    Stage("segment", _TRAINED, _segment, "mm", ("pseudo",), trains=True, is_compared=True),
    _finished("evaluate", _PREDICTING, _evaluate, is_compared=True, shows_images=True),
    _finished("export", (*_PREDICTING, "export"), _export),
    _finished("predict", _PREDICTING, _predict, shows_images=True, is_usual=False),
    _finished("suggest", (*_PREDICTING, "suggest"), _suggest, is_usual=False),
)
"""All stages of a run."""

DATA_CHECK = "doctor"
"""`--stage=doctor` checks the data set; no other stage needs its files."""


def find(name: str) -> Stage:
    """Return a stage by its name."""
    return {stage.name: stage for stage in STAGES}[name]


def select(
    asked: Iterable[str], experiment: config.Experiment, table: Sequence[Stage] = STAGES
) -> list[Stage]:
    """Return the stages to run, in their order.

    Args:
        asked: names; "all" stands for the usual stages of the experiment.
        experiment: stage proxy runs only where its init needs it. An ensemble has no stage that
            trains.

    Raises:
        config.ConfigError: an unknown name, or a stage that the experiment does not have.
    """
    asked, names = list(asked), [stage.name for stage in table]
    for name in asked:
        if name not in (*names, "all"):
            raise config.ConfigError(config.unknown("stage", name, (*names, "all")))
    present = of_experiment(experiment, table)
    for stage in table:
        if stage.name in asked and stage not in present:
            raise config.ConfigError(_problem(stage, experiment))
    return [
        stage for stage in present if stage.name in asked or ("all" in asked and stage.is_usual)
    ]


def of_experiment(experiment: config.Experiment, table: Sequence[Stage] = STAGES) -> list[Stage]:
    """Return the stages that an experiment has."""
    return [stage for stage in table if _problem(stage, experiment) is None]


def _problem(stage: Stage, experiment: config.Experiment) -> str | None:
    """Return the reason why the experiment does not have this stage, None if it has it."""
    if experiment.ensemble and not stage.of_ensembles:
        others = ", ".join(other.name for other in STAGES if other.of_ensembles)
        return (
            f"An ensemble has no stage {stage.name}: its members are trained in their own working "
            f"folders. It has {others}."
        )
    if stage.name in ("teacher", "pseudo") and experiment.data.pseudo_labels is None:
        return (
            f"Stage {stage.name} is for pseudo-labels. It needs data.pseudo_labels=FOLDER, or rest."
        )
    if stage.name == STAGES[0].name and config.proxy_task(experiment) is None:
        return (
            f"Stage {stage.name} trains a pretext task. It needs network.init="
            f"{' or '.join(config.PROXIES)}, and no network.init_weights."
        )
    return None
