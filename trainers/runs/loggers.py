"""Services that follow a run beside TensorBoard: Weights & Biases and MLflow.

A logger is a class with the three methods of `Logger`. `LOGGERS` has the names for `--loggers`.
Each service keeps one run per working folder, also after an interruption: loggers.json of the
folder holds its number.
"""

import json
import pathlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Protocol

from trainers import config

FILE = "loggers.json"
"""{name of the logger: number of its run} in the working folder."""


class Logger(Protocol):
    """A service that shows the figures of runs."""

    def start(self, name: str, settings: Mapping[str, object], run_id: str | None) -> str:
        """Begin a run, or continue the run `run_id`; return the number of the run.

        Args:
            name: name of the run.
            settings: {key: value} of the settings.
            run_id: return value of an earlier start; None for a new run.

        Raises:
            ImportError: the package is not installed.
        """
        ...

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step of a stage."""
        ...

    def finish(self, results: Mapping[str, float]) -> None:
        """Add the scores of the run and close it."""
        ...


class WandbLogger:
    """Weights & Biases; `WANDB_MODE=offline` keeps the figures on this machine."""

    def start(self, name, settings, run_id):
        """Begin or continue a run of the project that WANDB_PROJECT names, else mm-keras."""
        import wandb

        run_id = run_id or uuid.uuid4().hex[:12]
        settings = dict(settings)
        self.run = wandb.init(
            project=None if wandb.Settings().project else "mm-keras",
            name=name,
            id=run_id,
            resume="allow",
            config=settings,
        )
        return run_id

    def log(self, stage, step, metrics):
        """Add metrics under STAGE/NAME, against STAGE/step: each stage counts its own steps."""
        self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        named = {f"{stage}/{name}": value for name, value in metrics.items()}
        self.run.log(named | {f"{stage}/step": step})

    def finish(self, results):
        """Set the scores as the summary of the run."""
        self.run.summary.update(dict(results))
        self.run.finish()


class MlflowLogger:
    """MLflow; MLFLOW_TRACKING_URI names its server or folder, MLFLOW_EXPERIMENT_NAME its group."""

    def start(self, name, settings, run_id):
        """Begin or continue a run, with the settings as parameters."""
        import mlflow

        self.mlflow = mlflow
        run = mlflow.start_run(run_id=run_id, run_name=None if run_id else name)
        if run_id is None:
            mlflow.log_params(dict(settings))
        return run.info.run_id

    def log(self, stage, step, metrics):
        """Add metrics under STAGE/NAME."""
        self.mlflow.log_metrics({f"{stage}/{k}": v for k, v in metrics.items()}, step=step)

    def finish(self, results):
        """Add the scores as metrics without a step."""
        self.mlflow.log_metrics(dict(results))
        self.mlflow.end_run()


LOGGERS = {"wandb": WandbLogger, "mlflow": MlflowLogger}
"""{name for `--loggers`: class}."""


def check(names: Iterable[str]) -> None:
    """Raise a ConfigError for a name that is not in `LOGGERS`."""
    for name in names:
        if name not in LOGGERS:
            raise config.ConfigError(config.unknown("logger", name, tuple(LOGGERS)))


class Loggers:
    """The loggers of a run. A logger that fails later is reported once and left out.

    Args:
        loggers: {name: logger}.
        report: function (text) that prints a line.
    """

    def __init__(self, loggers: Mapping[str, Logger] | None = None, report=print):
        self.loggers, self.report = dict(loggers or {}), report

    def start(self, workdir: pathlib.Path, settings: Mapping[str, object]) -> None:
        """Begin or continue the run of a working folder in each service.

        Raises:
            config.UserError: a package is missing, or a service refuses the run.
        """
        from trainers.runs.files import write_json  # it loads Keras, which --help need not

        path = workdir / FILE
        ids = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for name, logger in self.loggers.items():
            try:
                ids[name] = logger.start(workdir.resolve().name, settings, ids.get(name))
            except ImportError as error:
                raise config.UserError(
                    f'Logger {name} needs its package: pip install -e ".[{name}]".'
                ) from error
            except Exception as error:  # each service has errors of its own
                raise config.UserError(f"Logger {name} refused the run: {error}") from error
        if self.loggers:
            write_json(path, ids)

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step to each service."""
        self._each(lambda logger: logger.log(stage, step, metrics))

    def finish(self, results: Mapping[str, object]) -> None:
        """Add the scores of a run, the numbers of its results, and close it."""
        scores = {k: float(v) for k, v in results.items() if isinstance(v, (int, float))}
        self._each(lambda logger: logger.finish(scores))

    def _each(self, call):
        for name, logger in list(self.loggers.items()):
            try:
                call(logger)
            except Exception as error:  # training goes on without the service
                del self.loggers[name]
                self.report(f"logger {name} failed and gets no further figures: {error}")
