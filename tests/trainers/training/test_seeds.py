"""The seeds of the stages' data."""

from pipelines import batches
from pipelines.batches import views
from trainers import config
from trainers.training import fine_tuning, patch_batches, seeds

SMALL = {"network.backbone": "testing", "segment.crop": 24, "segment.num_images": 2}


def test_each_stage_and_each_seed_has_its_own_data_seed():
    pairs = {
        tuple(views.as_seed(seeds.data_seed(seed, stage)).numpy())
        for seed in (0, 1, 2**31, 2**32 - 1)
        for stage in ("proxy", "mm", "segment")
    }
    assert len(pairs) == 12
    assert seeds.data_seed(7, "mm") == seeds.data_seed(7, "mm") < 2**62


def test_stages_mm_and_segment_show_other_images_and_crops(make_runtime, tmp_path, monkeypatch):
    """With one seed, step k of both stages had the same images, crops and mirrors."""
    monkeypatch.setattr(batches, "patches", lambda split, sampling, view, order, changes: order)
    monkeypatch.setattr(batches, "crops", lambda split, view, order, changes: order)
    orders = {}

    class Loop:
        def __init__(self, runtime, schedule, model, data, **_):
            orders["segment"] = data(0, batches.Share())

        def run(self):
            return 0.0

    monkeypatch.setattr(fine_tuning, "Loop", Loop)
    monkeypatch.setattr(fine_tuning, "save_weights", lambda model, path: None)
    monkeypatch.setattr(fine_tuning.augmentation, "show_first_crops", lambda loop, spec: None)
    experiment = config.Experiment()
    for key, value in SMALL.items():
        experiment = config.replace(experiment, key, value)
    run = make_runtime(tmp_path).naive()
    fine_tuning.run(experiment, run, "segment", run.dataset.train)
    patches = patch_batches.Batches(experiment, run, (0, 0, 0))
    orders["mm"] = patches.made_here(0, batches.Share())
    assert orders["mm"].seed != orders["segment"].seed
