"""Validation while training: the best weights are passed on, and resume is exact."""

import io
import json

import keras
import numpy as np
import pytest
import rich.console
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from mm_keras.models import segmenter
from pipelines.datasets.spec import DatasetSpec, Split, voc_colors
from trainers import config
from trainers.config import keys
from trainers.runs import runtime
from trainers.training import loop, validation

SPEC = DatasetSpec("ours", ("dark", "bright"), voc_colors(2), None, "ours")
NAMES = ("val_loss", "val_miou", "val_pixel_accuracy", "val_iou/dark", "val_iou/bright")


def _experiment(**values):
    values = {"steps": 8, "validate_every": 2, "log_every": 4, "checkpoint_every": 3} | values
    return keys.changed(config.Experiment(), {f"segment.{k}": v for k, v in values.items()})


class _Pointwise(segmenter.Segmenter):
    """One convolution of a pixel; it compiles in an instant."""

    def __init__(self):
        super().__init__(backbones.build("testing", width=0.1), 2, 1, "pointwise")
        self.backbone.trainable = False
        self.score = keras.layers.Conv2D(2, 1)
        self.score.build((None, None, None, 3))
        self.built = True

    def call(self, images, training=False):
        return self.score(keras.ops.cast(images, "float32") / 128 - 1)


def _model(ema=0.0, rate=0.3):
    keras.utils.set_random_seed(0)
    model = _Pointwise()
    ema = {"use_ema": True, "ema_momentum": ema} if ema else {}
    model.compile(optimizer=mm_keras.optimizers.LayerwiseAdamW(rate, **ema), jit_compile=False)
    return model


def _image(seed):
    image = np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype("uint8")
    return image, (image[..., 0] > 127).astype("uint8")


def _data(spoiled_from=99):
    """Return data whose labels are wrong from a step on, which makes the weights worse."""

    def batches(start_step, share=None, end=20):
        def steps():
            for step in range(start_step, end):
                image, label = _image(step)
                label = 1 - label if step >= spoiled_from else label
                yield {"image": image[None], "label": label[None]}

        signature = {
            "image": tf.TensorSpec([1, 16, 16, 3], tf.uint8),
            "label": tf.TensorSpec([1, 16, 16], tf.uint8),
        }
        return tf.data.Dataset.from_generator(steps, output_signature=signature)

    return batches


@pytest.fixture
def examples(monkeypatch):
    images = [_image(seed) for seed in (100, 101)]
    example = [{"image": tf.constant(i), "label": tf.constant(label)} for i, label in images]
    monkeypatch.setattr(validation.datasets, "examples", lambda split: example)
    return Split("val", ("a", "b"), ("a", "b"), ("a", "b"), (True, True), 16)


def _run(folder, split, data=None, model=None, **values):
    experiment, model = _experiment(**values), model or _model()
    checks = validation.Validation(model, split, experiment, SPEC)
    run = runtime.Runtime(folder, None, rich.console.Console(file=io.StringIO()))
    schedule = loop.Schedule("segment", experiment.segment)
    loop.Loop(run, schedule, model, data or _data(), validation=checks).run()
    return model, checks


def _lines(folder):
    text = (folder / "segment" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def _weights(model):
    return [weight.numpy() for weight in model.weights]


def test_scores_are_logged_at_intervals_and_after_the_last_step(tmp_path, examples):
    _, checks = _run(tmp_path, examples, steps=7)
    scored = [line for line in _lines(tmp_path) if "val_miou" in line]
    assert [line["step"] for line in scored] == [2, 4, 6, 7]
    assert set(NAMES) <= set(scored[0])
    assert checks.summary()["num_images"] == 2


def test_the_best_weights_are_passed_on_where_later_steps_make_them_worse(tmp_path, examples):
    spoiled, checks = _run(tmp_path / "a", examples, _data(spoiled_from=4), steps=8)
    scores = {x["step"]: x["val_miou"] for x in _lines(tmp_path / "a") if "val_miou" in x}
    best = max(scores, key=scores.get)
    assert checks.summary()["best_step"] == best and best < 8 and scores[8] < scores[best]
    stopped, _ = _run(tmp_path / "b", examples, steps=best)
    for ours, theirs in zip(_weights(spoiled), _weights(stopped), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("crash", [pytest.param(3, marks=pytest.mark.slow), 5])
def test_a_run_cut_at_any_step_keeps_the_same_best_weights(tmp_path, examples, crash):
    data = _data(spoiled_from=4)
    unbroken, first = _run(tmp_path / "a", examples, data)
    with pytest.raises(StopIteration):
        _run(tmp_path / "b", examples, lambda start, share: data(start, end=crash))
    continued, second = _run(tmp_path / "b", examples, data)
    assert _lines(tmp_path / "a") == _lines(tmp_path / "b")
    assert first.summary() | {"seconds": 0} == second.summary() | {"seconds": 0}
    for ours, theirs in zip(_weights(unbroken), _weights(continued), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_cut_in_the_middle_of_validation_is_exact(tmp_path, examples, monkeypatch):
    unbroken, _ = _run(tmp_path / "a", examples)
    scores, calls = validation.Validation._scores, []

    def cut(self):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return scores(self)

    with monkeypatch.context() as patch:
        patch.setattr(validation.Validation, "_scores", cut)
        with pytest.raises(KeyboardInterrupt):
            _run(tmp_path / "b", examples)
    continued, _ = _run(tmp_path / "b", examples)
    assert _lines(tmp_path / "a") == _lines(tmp_path / "b")
    for ours, theirs in zip(_weights(unbroken), _weights(continued), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_training_stops_when_the_score_does_not_improve(tmp_path, examples):
    data = _data(spoiled_from=2)
    _, checks = _run(tmp_path, examples, data, steps=18, patience=2)
    last = _lines(tmp_path)[-1]["step"]
    assert last == checks.summary()["best_step"] + 4 < 18
    again, _ = _run(tmp_path, examples, data, steps=18, patience=2)
    assert _lines(tmp_path)[-1]["step"] == last


def test_the_moving_average_is_scored_and_passed_on(tmp_path, examples):
    plain, _ = _run(tmp_path / "a", examples, model=_model(), validate_every=8)
    model, _ = _run(tmp_path / "b", examples, model=_model(ema=0.5), validate_every=8)
    averages = model.optimizer._model_variables_moving_average
    for average, weight in zip(averages, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(average.numpy(), weight.numpy())
    assert any((a != b).any() for a, b in zip(_weights(plain), _weights(model), strict=True))


def test_a_loss_is_better_where_it_is_smaller(tmp_path, examples):
    _, checks = _run(tmp_path, examples, monitor="val_loss")
    losses = [line["val_loss"] for line in _lines(tmp_path) if "val_loss" in line]
    assert checks.summary()["best"] == pytest.approx(min(losses))


def test_the_last_weights_are_passed_on_where_the_settings_ask_for_them(tmp_path, examples):
    data = _data(spoiled_from=4)
    shown, _ = _run(tmp_path / "a", examples, data, keep="last")
    best, _ = _run(tmp_path / "b", examples, data, keep="best")
    assert any((a != b).any() for a, b in zip(_weights(shown), _weights(best), strict=True))
    assert _lines(tmp_path / "a") == _lines(tmp_path / "b")
