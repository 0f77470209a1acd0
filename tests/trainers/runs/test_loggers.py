"""Services beside TensorBoard: one run per folder, errors in one line, training goes on."""

import json

import pytest

from trainers import config
from trainers.runs import loggers


class Recorder:
    """A logger that keeps its calls, and fails where it is asked to."""

    def __init__(self, failing=()):
        self.calls, self.failing = [], failing

    def start(self, name, settings, run_id):
        return self._call("start", name, settings, run_id) or run_id or "new"

    def log(self, stage, step, metrics):
        self._call("log", stage, step, metrics)

    def finish(self, results):
        self._call("finish", results)

    def _call(self, name, *arguments):
        if name in self.failing:
            raise self.failing[name]
        self.calls.append((name, *arguments))


def test_a_run_reports_settings_metrics_and_scores(tmp_path):
    recorder = Recorder()
    group = loggers.Loggers({"mine": recorder})
    group.start(tmp_path, {"seed": 3})
    group.log("naive/segment", 20, {"loss": 0.5})
    group.finish({"miou": 0.25, "stages": {}, "per_class_iou": {"a": 1.0}})
    assert recorder.calls == [
        ("start", tmp_path.name, {"seed": 3}, None),
        ("log", "naive/segment", 20, {"loss": 0.5}),
        ("finish", {"miou": 0.25}),
    ]


def test_a_resumed_run_continues_in_the_service(tmp_path):
    for expected in (None, "new"):
        recorder = Recorder()
        loggers.Loggers({"mine": recorder}).start(tmp_path, {})
        assert recorder.calls[0][-1] == expected
    assert json.loads((tmp_path / loggers.FILE).read_text()) == {"mine": "new"}


def test_a_service_that_fails_while_training_is_reported_once(tmp_path):
    lines, sound = [], Recorder()
    broken = Recorder({"log": OSError("no route")})
    group = loggers.Loggers({"broken": broken, "sound": sound}, lines.append)
    group.start(tmp_path, {})
    for step in (1, 2):
        group.log("mm", step, {"loss": 1.0})
    assert len(lines) == 1 and "broken" in lines[0] and "no route" in lines[0]
    assert [call[0] for call in sound.calls] == ["start", "log", "log"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("no module"), r"pip install -e \"\.\[wandb\]\""),
        (OSError("refused"), "refused"),
    ],
)
def test_a_service_that_cannot_start_is_one_sentence(tmp_path, error, message):
    with pytest.raises(config.UserError, match=message):
        loggers.Loggers({"wandb": Recorder({"start": error})}).start(tmp_path, {})
    assert not (tmp_path / loggers.FILE).exists()


def test_an_unknown_logger_is_refused_with_the_nearest_name():
    with pytest.raises(config.ConfigError, match="wandb"):
        loggers.check(["wanbd"])


def test_mlflow_keeps_the_figures_of_one_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    run_ids = []
    for step in (1, 2):
        logger = loggers.MlflowLogger()
        run_ids.append(logger.start("run", {"seed": 0}, run_ids[0] if run_ids else None))
        logger.log("mm", step, {"loss": 1.0 / step})
        logger.finish({"miou": 0.5})
    assert run_ids[0] == run_ids[1]
    history = mlflow.MlflowClient().get_metric_history(run_ids[0], "mm/loss")
    assert [(entry.step, entry.value) for entry in history] == [(1, 1.0), (2, 0.5)]
    run = mlflow.get_run(run_ids[0])
    assert run.data.metrics["miou"] == 0.5 and run.data.params == {"seed": "0"}


def test_wandb_takes_the_figures_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = loggers.WandbLogger()
    run_id = logger.start("run", {"seed": 0}, None)
    logger.log("mm", 1, {"loss": 1.0})
    logger.finish({"miou": 0.5})
    assert len(run_id) == 12 and any(run_id in p.name for p in tmp_path.glob("wandb/offline-run-*"))
