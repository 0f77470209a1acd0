"""Stage proxy: train the backbone on a pretext task without labels.

It writes proxy/backbone.weights.h5. `trainers.training.proxy_tasks` holds the table of tasks.
"""

import tensorflow as tf

from pipelines import datasets
from pipelines.batches import Order, unlabelled
from trainers import config
from trainers.runs.files import save_weights
from trainers.runs.runtime import Runtime
from trainers.training import networks, optimization, proxy_tasks, seeds
from trainers.training.loop import Loop, Schedule

NUM_PICTURES = 6
"""Held-out images in the picture of TensorBoard."""

BASELINES = {
    "hue_cross_entropy": ("hue_mean_cross_entropy", -1),
    "chroma_cross_entropy": ("chroma_mean_cross_entropy", -1),
    "accuracy": ("chance", 1),
    "color_cross_entropy": ("color_prior_cross_entropy", -1),
    "lightness_cross_entropy": ("lightness_prior_cross_entropy", -1),
    "hole_error": ("fill_error", -1),
    "reconstruction_ratio": ("other_image_ratio", -1),
    "sample_deviation": ("collapsed_deviation", 1),
}
"""{score: (score of a guess that ignores the image, 1 if larger values are better, else -1)}."""


def run(experiment: config.Experiment, runtime: Runtime) -> dict:
    """Train on the task of the init, or continue an interrupted run; then measure the result.

    Returns:
        "seconds" of training, and on the chief "figures", the scores on held-out images. The
        figures are empty if nothing on these images can be scored; the weights are written before.
    """
    task_class = proxy_tasks.TASKS[config.proxy_task(experiment)]
    settings = getattr(experiment, task_class.section)
    train, held_out = _files(experiment, runtime, task_class)
    with runtime.replicas.scope():
        task = _task(task_class, experiment)
        task.prepare(train)

    def data(start_step, share):
        order = Order(
            num_images=settings.num_images,
            share=share,
            seed=seeds.data_seed(experiment.seed, "proxy"),
            start_step=start_step,
            num_steps=settings.num_batches,
        )
        return task.batches(train, order)

    schedule = Schedule("proxy", settings, section=task_class.section)
    loop = Loop(runtime, schedule, task.model, data)
    results = {"seconds": loop.run()}
    save_weights(task.model.backbone, runtime.folder("proxy") / "backbone.weights.h5")
    if not runtime.replicas.is_chief:
        return results
    if runtime.replicas.count > 1:  # a model of several replicas predicts on all of them together
        trained, task = task.model, _task(task_class, experiment)
        task.model.set_weights(trained.get_weights())
    measured = held_out[: settings.num_measured]
    try:
        results["figures"] = task.measure(train, measured)
    except ValueError as error:
        runtime.log(f"proxy: warning: the weights were not scored: {error}")
        return results | {"figures": {}}
    _show(loop, task, measured, results["figures"])
    return results


def _task(task_class, experiment):
    backbone = networks.backbone(experiment)
    try:
        task = task_class(experiment, backbone)
    except ValueError as error:
        raise config.ConfigError(f"{error} (section {task_class.section})") from error
    optimization.compile_model(task.model, getattr(experiment, task_class.section))
    return task


def _files(experiment, runtime, task_class):
    """Return (images to train on, images to measure on), and log how many cannot be used."""
    folder, needs_color = experiment.data.unlabelled_dir, task_class.needs_color
    share = getattr(experiment, task_class.section).held_out
    try:
        if folder is None:
            files = unlabelled.check(runtime.dataset.train.image_files, needs_color)
        else:
            files = unlabelled.find(folder, needs_color)
        train, held_out = unlabelled.divide(files.image_files, share, task_class.least_measured)
    except datasets.DatasetError as error:
        raise config.ConfigError(str(error)) from error
    where = f"images of {folder}" if folder else f"training images of {experiment.data.dataset}"
    runtime.log(
        f"proxy: {experiment.network.init} on {len(train)} {where}; measured on "
        f"{len(held_out)} others. {' '.join(files.messages)}"
    )
    return train, held_out


def _show(loop, task, held_out, figures):
    """Log the scores, and write them and a picture to TensorBoard."""
    text = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
    loop.runtime.log(f"proxy: on held-out images, {text}")
    if problems := not_better(figures):
        loop.runtime.log(
            f"proxy: warning: the task was not learned: {'; '.join(problems)}. These weights need "
            "not be better than random ones. Train for more steps, or at another learning rate."
        )
    with loop.writer.as_default(step=loop.schedule.settings.steps):
        for name, value in figures.items():
            tf.summary.scalar(f"proxy/held_out/{name}", value)
        tf.summary.image("proxy/held_out", task.picture(held_out[:NUM_PICTURES])[None])
    loop.writer.flush()


def not_better(figures: dict[str, float]) -> list[str]:
    """Return a text for each score on held-out images that a guess reaches as well.

    Args:
        figures: scores of a pretext task.

    >>> not_better({"accuracy": 0.04, "chance": 0.04})
    ['accuracy 0.040, and 0.040 for a guess']
    """
    return [
        f"{name.replace('_', ' ')} {figures[name]:.3f}, and {figures[guess]:.3f} for a guess"
        for name, (guess, sign) in BASELINES.items()
        if name in figures and not sign * figures[name] > sign * figures[guess]
    ]
