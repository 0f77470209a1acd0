"""Stage doctor: its page, its results, its messages and its exit status."""

import io
import json
import re
import types

import numpy as np
import pytest
import rich.console
from absl.testing import flagsaver
from PIL import Image

from pipelines import datasets
from pipelines.datasets import audit
from trainers import config, experiment, mm
from trainers.config import presets
from trainers.runs.dataset import shrinking_notice
from trainers.stages import doctor, doctor_page


@pytest.fixture
def root(tmp_path):
    """A valid data set. The name of one class contains HTML characters."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for split, names in (("train", "abc"), ("val", "de")):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for name in names:
            pixels = rng.integers(0, 256, (40, 48, 3), np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{name}.jpg")
            labels = rng.choice(np.array([0, 1, 255], np.uint8), (40, 48))
            Image.fromarray(labels).save(root / "masks" / split / f"{name}.png")
    (root / "classes.txt").write_text("ground\n<b>&thing\n")
    return root


@pytest.fixture
def run(root, tmp_path):
    """Function() -> (text of the console with the error, page, results)."""

    def run(**changes):
        experiment = config.replace(config.Experiment(), "data.dataset", "folder")
        for key, value in (changes | {"data_dir": str(root)}).items():
            experiment = config.replace(experiment, f"data.{key}", value)
        console = rich.console.Console(file=io.StringIO(), width=200, soft_wrap=True)
        try:
            doctor.run(experiment, tmp_path / "work", console)
        except config.UserError as error:
            console.print(f"error: {error}")
        folder = tmp_path / "work" / "doctor"
        results = json.loads((folder / "results.json").read_text())
        return console.file.getvalue(), (folder / "index.html").read_text(), results

    return run


def test_a_valid_data_set_has_no_findings(run, tmp_path):
    text, page, results = run()
    assert "doctor: 0 errors and 0 warnings; page with pictures: " in text
    assert "No faults were found in this data set" in page
    assert results["findings"] == []
    assert results["splits"]["train"]["images_with"] == {"ground": 3, "<b>&thing": 3}
    assert results["splits"]["train"]["num_images"] == 3


def test_the_page_needs_no_other_file_and_escapes_names(run):
    _, page, _ = run()
    assert "&lt;b&gt;&amp;thing" in page and "<b>&thing" not in page
    assert "<script" not in page and "http" not in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 5 and all(s.startswith("data:image/jpeg;base64,") for s in sources)
    assert page.count("<table>") == page.count("</table>") == 2


def test_errors_and_warnings_are_counted_and_named(run, root):
    (root / "masks" / "train" / "b.png").unlink()
    Image.new("L", (48, 40), 255).save(root / "masks" / "val" / "d.png")
    text, page, results = run()
    assert "error: 1 x image without a mask" in text and "b.jpg" in text
    assert "warning: 1 x mask that is void everywhere" in text
    assert "error: the doctor found 1 error and 2 warnings; page with pictures" in text
    assert [f["severity"] for f in results["findings"]] == ["error", "warning", "warning"]
    assert results["findings"][0]["names"] == [str(root / "images" / "train" / "b.jpg")]
    for finding in results["findings"]:
        assert finding["problem"].replace("'", "&#x27;") in page
    assert page.count('class="finding error"') == 1


def test_settings_reach_the_audit(run, root):
    (root / "images" / "train" / "a.jpg").write_bytes(b"no")
    assert "the doctor found 1 error" in run()[0]
    assert "doctor: 0 errors and 1 warning;" in run(max_unreadable=1)[0]
    for file in root.glob("masks/*/*.png"):
        values = np.asarray(Image.open(file))
        Image.fromarray(np.where(values < 2, values + 1, 255).astype(np.uint8)).save(file)
    assert "the doctor found" in run(max_unreadable=1)[0]
    assert "doctor: 0 errors" in run(max_unreadable=1, void_value=0)[0]


@pytest.fixture
def thin(root):
    """The data set with lines of one pixel, and with a class without pixels."""
    (root / "classes.txt").write_text("ground\nwire\nnothing\n")
    label = np.zeros((40, 48), np.uint8)
    label[13] = 1
    for file in root.glob("masks/*/*.png"):
        Image.fromarray(label).save(file)
    return root


def test_classes_that_shrinking_removes_are_shown(run, thin):
    text, page, results = run(shorter_side=8)
    assert "warning: 1 x class that loses its shape" in text and "wire (its masks" in text
    assert "shrunk to 8: IoU" in text and "class that loses its shape" in page
    shrunk = results["shrunk"]
    assert shrunk["shorter_side"] == 8 and shrunk["mask_iou"]["nothing"] is None
    assert shrunk["mask_iou"]["wire"] < 0.5 < shrunk["mask_iou"]["ground"]


def test_the_advice_for_shrunk_images_is_right(run, thin):
    """The doctor names the class, and preset detail has no such warning."""
    assert shrinking_notice(config.Data(shorter_side=20), 40) is None
    notice = shrinking_notice(config.Data(shorter_side=8), 40)
    assert "40 pixels becomes 8" in notice and "--preset=detail" in notice
    assert "loses its shape" in run(shorter_side=8)[0]
    side = presets.PRESETS["detail"].keys["data.shorter_side"]
    assert shrinking_notice(config.Data(shorter_side=side), 40) is None
    assert "loses its shape" not in run(shorter_side=side)[0]


def test_names_of_classes_are_printed_as_they_are(run, root):
    (root / "classes.txt").write_text("[red]ground\nsign [/stop]\n")
    text, _, _ = run()
    assert "[red]ground" in text and "sign [/stop]" in text


def test_messages_of_the_loader_reach_the_console_and_the_page(run, root):
    for file in root.glob("masks/*/*.png"):
        Image.fromarray(np.where(np.asarray(Image.open(file)) > 0, 255, 0).astype(np.uint8)).save(
            file
        )
    text, page, results = run()
    for shown in (text, page, *results["messages"]):
        assert "All masks hold 0 and 255 only" in shown
    assert results["splits"]["train"]["void_pixels"] == 0


def test_long_lists_of_names_are_shortened():
    names = tuple(f"f{k}.png" for k in range(2000))
    finding = audit.Finding(True, audit.faults.Kind("mask <that>", "mend & go on"), names)
    page = doctor_page._finding(finding)
    assert "2,000 &times; mask &lt;that&gt;" in page and "mend &amp; go on" in page
    assert "f499.png" in page and "f500.png" not in page and "and 1,500 more" in page


def test_an_overlay_is_half_image_half_mask():
    pixels = np.full((500, 250, 3), 100, np.uint8)
    labels = np.zeros((500, 250), np.uint8)
    labels[250:] = 1
    picture = audit.Picture("a", pixels, labels)
    image, overlay = doctor_page._overlay(picture, ((200, 0, 0), (0, 0, 50)))
    assert image.shape == overlay.shape == (260, 130, 3)
    assert overlay[0, 0].tolist() == [150, 50, 50] and overlay[-1, -1].tolist() == [50, 50, 75]


def test_a_missing_data_set_is_a_config_error(tmp_path):
    experiment = config.replace(config.Experiment(), "data.dataset", "folder")
    with pytest.raises(config.ConfigError, match="needs data_dir"):
        doctor.run(experiment, tmp_path, rich.console.Console(file=io.StringIO()))


def test_the_command_exits_with_status_1_on_errors(root, tmp_path, parsed_flags, capsys):
    with flagsaver.flagsaver(
        stage=["doctor"], dataset="folder", data_dir=str(root), workdir=str(tmp_path / "work")
    ):
        assert mm.main(["mm"]) is None
        assert "0 errors" in capsys.readouterr().out
        (root / "masks" / "train" / "b.png").unlink()
        with pytest.raises(SystemExit) as caught:
            mm.main(["mm"])
        # Python prints a status that is a text, and exits with 1.
        assert caught.value.code.startswith("error: the doctor found 1 error and 0 warnings")
    with (
        flagsaver.flagsaver(stage=["doctor", "mm"], dataset="texture_scenes"),
        pytest.raises(SystemExit, match="runs alone"),
    ):
        mm.main(["mm"])


def test_measuring_without_labels_is_refused_before_training():
    split = datasets.Split("test", ("a",), ("a.jpg",), ("a.png",), (False,), 10)
    dataset = types.SimpleNamespace(eval=split, spec=types.SimpleNamespace(name="voc_sbd"))
    with pytest.raises(config.ConfigError, match=r"'test' of voc_sbd has no labels.*=mm,export"):
        experiment._check_labels(dataset, ["mm", "evaluate", "export"])
    experiment._check_labels(dataset, ["mm", "export"])
