"""The step loop: exact resume at any step, a stop at NaN, the same weights as `fit`."""

import dataclasses
import functools
import io
import itertools
import json

import keras
import numpy as np
import pytest
import rich.console
import tensorflow as tf

import mm_keras
from mm_keras import backbones
from mm_keras.models import objective
from trainers import config
from trainers.runs import runtime
from trainers.training import loop

SETTINGS = config.Optimization(steps=7, log_every=2, checkpoint_every=3)


def _runtime(folder):
    console = rich.console.Console(file=io.StringIO())
    return runtime.Runtime(folder, dataset=None, console=console)


def _model():
    keras.utils.set_random_seed(0)
    model = mm_keras.MixAndMatch(backbones.build("testing"), seed=1)
    model.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01), jit_compile=False)
    return model


def _data(start_step, share=None, num_steps=7):
    def batches():
        for step in range(start_step, num_steps):
            rng = np.random.default_rng(step)
            labels = np.arange(12, dtype="int32") % 3
            yield {
                "patches": rng.integers(0, 256, (12, 16, 16, 3)).astype("uint8"),
                "labels": labels,
            }

    signature = {
        "patches": tf.TensorSpec([12, 16, 16, 3], tf.uint8),
        "labels": tf.TensorSpec([12], tf.int32),
    }
    return tf.data.Dataset.from_generator(batches, output_signature=signature)


def _loop(run, model, data=_data, **arguments):
    return loop.Loop(run, loop.Schedule("mm", SETTINGS), model, data, **arguments)


def _run(folder, model=None, data=_data):
    model = model or _model()
    _loop(_runtime(folder), model, data).run()
    return model


def _lines(folder):
    return [json.loads(line) for line in (folder / "mm" / "metrics.jsonl").read_text().splitlines()]


def _cut_at(step):
    """Return data that ends before `step`, which stops the loop like a crash."""
    return lambda start_step, share: _data(start_step, num_steps=step)


@pytest.mark.slow
def test_a_step_compiled_with_xla_has_the_same_loss(tmp_path):
    compiled = _model()
    compiled.jit_compile = True
    _run(tmp_path / "a", compiled)
    _run(tmp_path / "b")
    for ours, theirs in zip(_lines(tmp_path / "a"), _lines(tmp_path / "b"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


SLOW_CRASHES = [pytest.param(step, marks=pytest.mark.slow) for step in (1, 5, 6)]


@pytest.mark.parametrize("crash", [4, *SLOW_CRASHES])
def test_a_run_cut_at_any_step_continues_bit_for_bit(tmp_path, crash):
    """Checkpoints are at 3, 6, 7 and logs at 2, 4, 6, 7; cuts are before, between and on both."""
    unbroken = _run(tmp_path / "a")
    with pytest.raises(StopIteration):
        _run(tmp_path / "b", data=_cut_at(crash))
    continued = _run(tmp_path / "b")
    assert _lines(tmp_path / "a") == _lines(tmp_path / "b")
    assert [line["step"] for line in _lines(tmp_path / "b")] == [2, 4, 6, 7]
    for ours, theirs in zip(unbroken.variables, continued.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.slow
def test_the_heads_of_a_loss_continue_bit_for_bit(tmp_path):
    def model():
        keras.utils.set_random_seed(0)
        heads = objective.build("softmax+supcon+triplet", 3, projection=(8, 4))
        result = mm_keras.MixAndMatch(backbones.build("testing"), objective=heads, num_classes=3)
        result.build((None, 16, 16, 3))
        result.compile(optimizer=mm_keras.optimizers.CoupledSGD(0.01), jit_compile=False)
        return result

    unbroken = _run(tmp_path / "a", model())
    with pytest.raises(StopIteration):
        _run(tmp_path / "b", model(), _cut_at(5))
    continued = _run(tmp_path / "b", model())
    assert _lines(tmp_path / "a") == _lines(tmp_path / "b")
    for ours, theirs in zip(unbroken.variables, continued.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)


@pytest.mark.slow
def test_a_half_written_line_of_the_metrics_is_removed(tmp_path):
    _run(tmp_path / "a")
    with pytest.raises(StopIteration):
        _run(tmp_path / "b", data=_cut_at(5))
    with (tmp_path / "b" / "mm" / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 5, "lo')
    _run(tmp_path / "b")
    assert _lines(tmp_path / "a") == _lines(tmp_path / "b")


def test_gradients_that_are_not_finite_stop_the_run_at_the_last_good_checkpoint(tmp_path):
    model = _model()

    def poison(step, metrics):
        if step == 4:
            model.backbone.get_layer("conv1_1").bias.assign(np.full(4, np.nan))

    with pytest.raises(loop.TrainingError, match=r"state is step 3 .*mm.learning_rate=0.001$"):
        _loop(_runtime(tmp_path), model, on_log=poison).run()
    assert (tmp_path / "mm" / "checkpoints" / "ckpt-3.index").exists()
    assert np.isfinite(_run(tmp_path).backbone.get_layer("conv1_1").kernel.numpy()).all()


def test_fit_gives_the_weights_of_the_loop(tmp_path):
    looped, fitted = _run(tmp_path), _model()
    fitted.fit(_data(0), verbose=0)
    for ours, theirs in zip(looped.trainable_variables, fitted.trainable_variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)


def _float16_model(scale):
    """Return a model as `optimization.compile_model` compiles it under mixed_float16."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = _model()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    inner = mm_keras.optimizers.CoupledSGD(0.01)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=scale)
    model.compile(optimizer=optimizer, jit_compile=False)
    return model


def _looped(folder, model, **arguments):
    """Return the log of a loop over all steps."""
    run = _runtime(folder)
    _loop(run, model, **arguments).run()
    return " ".join(run.console.file.getvalue().split())


def test_skipped_steps_are_counted_and_logged(tmp_path):
    text = _looped(tmp_path, _float16_model(scale=2.0**21))
    last = _lines(tmp_path)[-1]
    number = last["skipped_steps"]
    assert 1 <= number <= 6 and last["loss_scale"] == 2.0 ** (21 - number)
    assert last["non_finite"] == 0
    assert np.isfinite([line["gradient_norm"] for line in _lines(tmp_path)]).all()
    assert f"mm: {number:g} of 7 steps were skipped because their gradients overflowed" in text


@pytest.mark.slow
def test_nothing_is_logged_if_no_step_was_skipped(tmp_path):
    assert "skipped" not in _looped(tmp_path / "a", _float16_model(scale=1.0))
    assert _lines(tmp_path / "a")[-1]["skipped_steps"] == 0
    assert "skipped" not in _looped(tmp_path / "b", _model())
    assert "skipped_steps" not in _lines(tmp_path / "b")[-1]


def test_a_loss_scale_below_one_stops_the_run(tmp_path):
    """Every overflow halves the scale; below 1 float16 cannot hold the gradients."""
    model = _float16_model(scale=1.0)

    def overflow_often(step, metrics):
        model.optimizer.dynamic_scale.assign(0.25)

    with pytest.raises(loop.TrainingError, match="overflow at step 3 .*mixed_bfloat16"):
        _looped(tmp_path, model, on_log=overflow_often)
    assert not list((tmp_path / "mm" / "checkpoints").glob("*.index"))


def test_data_may_be_any_iterable(tmp_path):
    """The feed of a data service is not a tf.data.Dataset."""
    model = _run(tmp_path / "a", data=lambda start_step, share: list(_data(start_step)))
    for ours, theirs in zip(model.variables, _run(tmp_path / "b").variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_progress_is_printed_where_no_bar_can_be_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_REPORT_EVERY", 0.0)
    run = _runtime(tmp_path)
    _loop(run, _model()).run()
    assert "mm: step 4 of 7, loss" in run.console.file.getvalue()


def test_a_stage_announces_its_time_after_a_few_steps(tmp_path):
    run = dataclasses.replace(_runtime(tmp_path), clock=itertools.count(0, 20).__next__)
    settings = dataclasses.replace(SETTINGS, steps=13, log_every=13, checkpoint_every=13)
    data = functools.partial(_data, num_steps=13)
    loop.Loop(run, loop.Schedule("mm", settings), _model(), lambda s, _: data(s)).run()
    assert "mm: 3 steps left, about 1.0 minutes" in run.console.file.getvalue()


def test_errors_name_the_section_of_the_settings(tmp_path):
    model = _model()
    schedule = loop.Schedule("mm", SETTINGS, section="colorization")

    def poison(step, metrics):
        model.backbone.get_layer("conv1_1").bias.assign(np.full(4, np.nan))

    with pytest.raises(loop.TrainingError, match="Stage mm.*colorization.learning_rate=0.001"):
        loop.Loop(_runtime(tmp_path), schedule, model, _data, on_log=poison).run()
