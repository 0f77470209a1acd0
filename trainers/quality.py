"""Train one of our presets for some CPU seconds, for the benchmark of quality.

python -m trainers.quality TASK.json RESULT.json
"""

import json
import pathlib
import sys
import tempfile
import time

from trainers.config import resolved

STAGES = ["mm", "segment", "evaluate"]


def main(task_file: str, result_file: str) -> None:
    """Train and score one preset.

    Args:
        task_file: JSON with preset, changes ({key: value}), cpu_seconds and seed.
        result_file: JSON to write, with steps, cpu_seconds and the confusion matrix.
    """
    from trainers import experiment

    task = json.loads(pathlib.Path(task_file).read_text(encoding="utf-8"))
    changes = task["changes"] | {"seed": task["seed"]}
    settings = resolved.of_preset(task["preset"], changes).changed(changes, "flag")
    minutes = task["cpu_seconds"] / 60
    plan = experiment.within_minutes(settings, minutes, STAGES, clock=time.process_time)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        experiment.run_experiment(plan.experiment, STAGES[:-1], folder)
        seconds = time.process_time() - started
        scores = experiment.run_experiment(plan.experiment, STAGES[-1:], folder)
    steps = {stage: getattr(plan.experiment, stage).steps for stage in STAGES[:-1]}
    result = {"steps": steps, "cpu_seconds": seconds, "confusion": scores["confusion_matrix"]}
    pathlib.Path(result_file).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
