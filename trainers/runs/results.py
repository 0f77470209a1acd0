"""The results of a run, collected from its stages."""

from collections.abc import Sequence

from trainers.runs import files, provenance
from trainers.runs.runtime import Runtime
from trainers.runs.stage import Stage


def gather(runtime: Runtime, table: Sequence[Stage]) -> dict:
    """Collect the results of the stages that are done in `workdir/results.json`.

    Returns:
        The content of that file: the scores of stage evaluate, "stages" with the cost of each
        stage, "proxy" with the scores of the pretext task, "probe" with the scores of the tuned
        features, and "pseudo_labels" with the figures of stage pseudo. "naive" has the same for the
        variant without M&M, and "run" the last command, commit, versions and settings.
    """
    results = _gathered(runtime, table)
    naive = _gathered(runtime.naive(), table)
    if naive["stages"]:
        results["naive"] = naive
    results["run"] = (provenance.read(runtime.workdir) or [None])[-1]
    files.write_json(runtime.workdir / "results.json", results)
    return results


def _gathered(runtime: Runtime, table: Sequence[Stage]) -> dict:
    stages = {stage.name: runtime.result(stage.name) for stage in table}
    stages = {name: result for name, result in stages.items() if result is not None}
    figures = {key: value for key, value in stages.get("evaluate", {}).items() if key not in _COST}
    if "proxy" in stages:
        figures["proxy"] = stages["proxy"]["figures"]
    if "pseudo" in stages:
        figures["pseudo_labels"] = stages["pseudo"]["figures"]
    if "probe" in stages.get("mm", {}):
        figures["probe"] = stages["mm"]["probe"]
    costs = {name: {key: result[key] for key in _COST} for name, result in stages.items()}
    return figures | {"stages": costs}


_COST = ("seconds", "peak_bytes")
