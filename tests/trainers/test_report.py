"""The command trainers.report on made-up runs."""

import csv
import sys

import pytest
from absl.testing import flagsaver

from trainers import report, reporting


@pytest.fixture
def run_report(parsed_flags, tmp_path, capsys):
    """Function(folders, **flags) -> printed text."""

    def run(*folders, **changes):
        with flagsaver.flagsaver(output=str(tmp_path / "report"), **changes):
            report.main(["report", *map(str, folders)])
        return capsys.readouterr().out

    return run


def test_a_report_is_printed_and_written(run_report, make_preset_run, tmp_path):
    folder = make_preset_run("a", "table3/voc-vgg16-random", 0.5)
    text = run_report(folder, figures=False)
    assert "Table 3:" in text and f"report: {tmp_path / 'report' / 'report.md'}" in text
    assert (tmp_path / "report" / "report.md").read_text() in text
    with (tmp_path / "report" / "tables.csv").open() as file:
        ours = {line["preset"]: line["ours"] for line in csv.DictReader(file) if line["ours"]}
    assert ours == {"table3/voc-vgg16-random": "50.00"}


def test_presets_are_listed_without_runs(run_report):
    assert "table3/voc-vgg16-random" in run_report(presets=True)


def test_a_report_without_folders_is_refused(run_report):
    with pytest.raises(SystemExit, match="error: Expected folders of finished runs"):
        run_report()


def test_a_folder_without_finished_runs_is_refused(run_report, tmp_path):
    with pytest.raises(SystemExit, match="holds no finished run"):
        run_report(tmp_path)


def test_a_missing_package_of_the_figures_is_named(run_report, make_preset_run, monkeypatch):
    folder = make_preset_run("a", "quick", 0.5)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "trainers.reporting.report_figures", raising=False)
    monkeypatch.delattr(reporting, "report_figures", raising=False)
    with pytest.raises(SystemExit, match="Figures need sklearn: pip install .*--nofigures"):
        run_report(folder)
