"""The text of a report, and the list of presets."""

from trainers.config import presets
from trainers.reporting import report_text
from trainers.runs import finished


def test_a_report_has_the_papers_tables_only_for_runs_of_the_paper(make_preset_run, tmp_path):
    make_preset_run("a", "table3/voc-vgg16-random", 0.5)
    make_preset_run("b", "table3/voc-vgg16-random", 0.5, mm__steps=4000)
    text = report_text.write_up(finished.find([tmp_path]))
    assert "Table 3:" in text and "| 56.7      | 50.0     |" in text
    assert "mm.steps 4000 instead of 8000" in text
    quick = make_preset_run("c", "quick", 0.3)
    assert "Table" not in report_text.write_up(finished.find([quick]))


def test_the_list_of_presets_has_every_claim():
    text = report_text.list_presets()
    for name in presets.PRESETS:
        assert f"\n{name}\n" in f"\n{text}"
    assert "expected: naive 60.2, M&M 64.5" in text and "expected: ensemble 67.4" in text
    assert "3.5 h of M&M on one TITAN-X" in text and "a curve without stated values" in text
