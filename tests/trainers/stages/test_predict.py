"""Stage predict: files in the form of the test servers, also scored by the Cityscapes scripts."""

import dataclasses
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.datasets.sources import cityscapes, voc_sbd
from trainers import config
from trainers.runs import files, records, runtime, stage_scope
from trainers.stages import STAGES, evaluate, find, predict
from trainers.training import networks


def _maps(num_classes, size=(12, 15), names=("a", "b")):
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, num_classes, size).astype(np.int32) for name in names}


class Recalled:
    """A predictor that returns the next map for each image."""

    def __init__(self, maps):
        self.maps = iter(maps)

    def predict(self, images):
        return types.SimpleNamespace(class_ids=tf.constant(next(self.maps)[None]))


def test_the_stage_replaces_its_folder_of_palette_files(make_runtime, tmp_path, monkeypatch):
    run = make_runtime(tmp_path)
    for seed in (0, 1):  # the second run replaces the folder of the first one
        rng = np.random.default_rng(seed)
        maps = [rng.integers(0, 3, (30, 44)) for _ in range(3)]
        monkeypatch.setattr(networks, "predictor", lambda *_, maps=maps: Recalled(maps))
        stage_scope.run_stage(find("predict"), config.Experiment(), run)
        files = sorted((tmp_path / "predict" / "results").iterdir())
        assert [file.name for file in files] == ["0.png", "1.png", "2.png"]
        for file, expected in zip(files, maps, strict=True):
            picture = Image.open(file)
            assert picture.mode == "P"
            np.testing.assert_array_equal(picture, expected)
            colors = np.array(run.dataset.spec.colors)[expected]
            np.testing.assert_array_equal(picture.convert("RGB"), colors)
    assert run.result("predict")["num_images"] == 3
    assert not list((tmp_path / "predict").glob("*.tmp"))


def test_a_failed_stage_writes_no_results(make_runtime, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "predictor", lambda *_: Recalled([np.zeros((30, 44), int)]))
    run = make_runtime(tmp_path)
    with pytest.raises(RuntimeError):
        stage_scope.run_stage(find("predict"), config.Experiment(), run)
    assert not (tmp_path / "predict" / "results").exists() and run.result("predict") is None


def test_voc_files_have_the_folder_that_the_server_expects(make_runtime, tmp_path, monkeypatch):
    run = make_runtime(tmp_path)
    dataset = dataclasses.replace(run.dataset, spec=voc_sbd.SPEC)
    maps = list(_maps(21, (30, 44), "abc").values())
    monkeypatch.setattr(networks, "predictor", lambda *_: Recalled(maps))
    predict.run(config.Experiment(), dataclasses.replace(run, dataset=dataset))
    folder = tmp_path / "predict" / "results" / "VOC2012" / "Segmentation" / "comp6_val_cls"
    assert len(list(folder.iterdir())) == 3
    np.testing.assert_array_equal(Image.open(folder / "1.png"), maps[1])


def test_the_palette_of_voc_equals_the_palette_of_its_masks(real_data, tmp_path):
    predict.write(tmp_path, _maps(21).items(), voc_sbd.SPEC)
    folder = real_data / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    theirs = Image.open(next(iter(sorted(folder.iterdir()))))
    assert Image.open(tmp_path / "a.png").getpalette() == theirs.getpalette()


def test_the_cityscapes_scripts_give_the_files_the_same_scores(tmp_path):
    labels = pytest.importorskip("cityscapesscripts.helpers.labels")
    script = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    spec, classes = cityscapes.SPEC, [labels.trainId2label[k] for k in range(19)]
    assert spec.class_names == tuple(label.name for label in classes)
    assert spec.label_ids == tuple(label.id for label in classes)
    names = ("frankfurt_000000_000294", "lindau_000007_000019")
    truths = _maps(34, (40, 60), names)  # label ids, including ignored ones
    truths[names[0]][truths[names[0]] == 33] = 0  # a class that only the other image contains
    predictions = _maps(19, (40, 60), names[::-1])
    train_ids = np.array([labels.id2label[k].trainId for k in range(34)])
    train_ids = np.where(train_ids < 0, 255, train_ids)
    for name in names:
        hits = np.random.default_rng(1).random((40, 60)) < 0.6
        is_right = hits & (train_ids[truths[name]] < 19)
        predictions[name] = np.where(is_right, train_ids[truths[name]], predictions[name])
        ground_truth = Image.fromarray(truths[name].astype("uint8"))
        ground_truth.save(tmp_path / f"{name}_gtFine_labelIds.png")
    # Ids may contain the folder of the city and the suffix of the camera.
    stored = {f"{name.split('_')[0]}/{name}_leftImg8bit": ids for name, ids in predictions.items()}
    predict.write(tmp_path / "results", stored.items(), spec)

    arguments = script.args
    arguments.evalInstLevelScore = arguments.JSONOutput = False
    arguments.quiet = True
    arguments.predictionPath, arguments.predictionWalk = str(tmp_path / "results"), None
    files = [str(tmp_path / f"{name}_gtFine_labelIds.png") for name in names]
    found = [script.getPrediction(arguments, file) for file in files]
    theirs = script.evaluateImgLists(found, files, arguments)

    pairs = [(train_ids[truths[name]], predictions[name]) for name in names]
    ours = evaluate.figures(pairs, spec.class_names)
    for name, iou in ours["per_class_iou"].items():
        assert iou == pytest.approx(theirs["classScores"][name], abs=1e-12)
    assert ours["miou"] == pytest.approx(theirs["averageScoreClasses"], abs=1e-12)
    matrix = np.array(theirs["confMatrix"])[np.ix_(spec.label_ids, spec.label_ids)]
    np.testing.assert_array_equal(ours["confusion_matrix"], matrix)


def test_other_images_can_be_predicted_later(make_runtime, tmp_path):
    run, experiment = make_runtime(tmp_path), config.Experiment()
    for stage in ("segment", "evaluate", "export"):
        run.folder(stage).mkdir(parents=True)
        flat = records.record(experiment, find(stage), run.dataset)
        files.write_json(run.folder(stage) / "config.json", flat)
    other = config.replace(experiment, "data.eval_split", "test")
    records.check_workdir(run, other, STAGES, ["predict"])
    records.check_workdir(run, other, STAGES, ["export"])
    with pytest.raises(runtime.WorkdirError, match="data.eval_split: None there, test asked for"):
        records.check_workdir(run, other, STAGES, ["evaluate", "predict"])
