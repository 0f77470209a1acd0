"""The entry point: flags -> experiment -> stages.

python -m trainers.mm --backbone=vgg16 --init=random --preset=quick --dataset=camvid --data_dir=DIR
"""

import importlib
import pathlib
import sys
import tempfile

import rich.console
import rich.table
from absl import app, flags, logging

from trainers import config, presets

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "preset",
    "quick",
    "quick, paper, release or a cell of the paper; python -m trainers.report --presets lists them.",
)
flags.DEFINE_string(
    "backbone",
    None,
    "vgg16 (default), alexnet, applications/NAME, kerascv/NAME, kerashub/NAME; see the README.",
)
flags.DEFINE_string("init", None, "random (default), imagenet, colorization or jigsaw.")
flags.DEFINE_string("init_weights", None, "File with the weights of the init.")
flags.DEFINE_string(
    "dataset", None, "texture_scenes (default), camvid, voc_sbd, cityscapes, folder."
)
flags.DEFINE_string("data_dir", None, "Folder of the data set, or its parent.")
flags.DEFINE_string("unlabelled_dir", None, "Images for the proxy task; default: the data set's.")
flags.DEFINE_string("train_split", None, "Split to train on; each data set has its default.")
flags.DEFINE_string("eval_split", None, "Split to evaluate on; each data set has its default.")
flags.DEFINE_string("workdir", None, "Default: runs/DATASET-BACKBONE-INIT-PRESET.")
flags.DEFINE_list(
    "stage", ["all"], "all, or some of proxy, mm, segment, evaluate, export, predict; or doctor."
)
flags.DEFINE_list("ensemble", [], "Working folders of finished runs to average: A,B.")
flags.DEFINE_bool("compare", False, "Also fine-tune, evaluate without M&M ('naive').")
flags.DEFINE_bool("overwrite", False, "Start the stages anew instead of continuing.")
flags.DEFINE_string("precision", None, "float32 (default), mixed_float16 or mixed_bfloat16.")
flags.DEFINE_string(
    "strategy", None, "none (default), mirrored (all devices here) or multi_worker (TF_CONFIG)."
)
flags.DEFINE_string("data_service", None, "grpc://HOST:PORT of a tf.data service, for stage mm.")
flags.DEFINE_integer("seed", None, "Decides everything random. Default 0.")
flags.DEFINE_multi_string("set", [], "Any key of the configuration: --set mm.margin=2.1.")

_KEYS_OF_FLAGS = {
    "backbone": "network.backbone",
    "dataset": "data.dataset",
    "init": "network.init",
    "init_weights": "network.init_weights",
    "data_dir": "data.data_dir",
    "unlabelled_dir": "data.unlabelled_dir",
    "train_split": "data.train_split",
    "eval_split": "data.eval_split",
    "precision": "precision",
    "strategy": "strategy",
    "data_service": "data.service",
    "seed": "seed",
}
_TRAINING_STAGES = ("proxy", "mm", "segment")
_PREDICTING_STAGES = ("evaluate", "export", "predict")


def main(argv):
    if argv[1:]:
        sys.exit(f"Unexpected arguments: {' '.join(argv[1:])}. All options begin with --.")
    logging.set_verbosity(logging.WARNING)
    console = rich.console.Console(soft_wrap=True)
    try:
        experiment = experiment_of_flags()
        if "doctor" in FLAGS.stage:
            _audit(experiment, console)
            return
        stages = _stages(FLAGS.stage, config.proxy_task(experiment))
        console.print(_headline(), highlight=False)
        _run(experiment, stages, console)
    except config.UserError as error:
        sys.exit(f"error: {error}")


def _audit(experiment, console):
    """Audits the data set; no part of "all", and no stage that others build on."""
    if FLAGS.stage != ["doctor"]:
        raise config.ConfigError("--stage=doctor runs alone, before the other stages.")
    importlib.import_module("trainers.doctor").run(experiment, _workdir(experiment), console)


def experiment_of_flags() -> config.Experiment:
    """The preset (or what the first member of an ensemble was run with), changed by the flags and
    then by each --set.

    Raises:
        config.ConfigError: an unknown preset, key or value, or one that an ensemble cannot have.
    """
    changes = _changes()
    if FLAGS.ensemble:
        _check_ensemble(changes)
        experiment = importlib.import_module("trainers.ensemble").of_workdirs(FLAGS.ensemble)
    else:
        final = dict(changes)
        experiment = presets.experiment(
            FLAGS.preset,
            *map(final.get, ("data.dataset", "network.backbone", "network.init")),
        )
    for key, value in changes:
        experiment = config.replace(experiment, key, value)
    config.check(experiment)
    return experiment


def _changes() -> list[tuple[str, object]]:
    """Keys and values that flags and then each --set give."""
    given = {key: FLAGS[flag].value for flag, key in _KEYS_OF_FLAGS.items()}
    changes = [(key, value) for key, value in given.items() if value is not None]
    for assignment in FLAGS["set"].value:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise config.ConfigError(f"--set takes KEY=VALUE. Received {assignment!r}.")
        changes.append((key, value))
    return changes


def _check_ensemble(changes):
    """Refuses all but data and ways of predicting: the members are trained already."""
    for key, _ in changes:
        if key == "data.shorter_side" or not key.startswith(("data.", "evaluate.")):
            raise config.ConfigError(
                f"{key} is fixed by the members of an ensemble; leave it out, or train a member "
                "with it."
            )
    for flag in ("preset", "compare"):
        if FLAGS[flag].present:
            raise config.ConfigError(f"--{flag} has no meaning for an ensemble; leave it out.")


def _stages(asked: list[str], proxy_task: str | None) -> list[str]:
    """The stages to run, in their order; stage proxy only where an init needs it, predict only if
    it is named.
    """
    known = (*_TRAINING_STAGES, *_PREDICTING_STAGES)
    for name in asked:
        if name not in (*known, "all"):
            raise config.ConfigError(config.unknown("stage", name, (*known, "all")))
        if FLAGS.ensemble and name in _TRAINING_STAGES:
            raise config.ConfigError(
                f"An ensemble has no stage {name}: its members are trained in their own working "
                f"folders. It has {', '.join(_PREDICTING_STAGES)}."
            )
    if proxy_task is None and "proxy" in asked:
        raise config.ConfigError(
            "--stage=proxy trains a pretext task: it needs --init="
            f"{' or --init='.join(config.PROXIES)}, and no --init_weights."
        )
    left_out = {"predict"} if proxy_task else {"predict", "proxy"}
    left_out |= set(_TRAINING_STAGES) if FLAGS.ensemble else set()
    return [name for name in known if name in asked or ("all" in asked and name not in left_out)]


def _headline() -> str:
    if FLAGS.ensemble:
        return f"ensemble of {', '.join(FLAGS.ensemble)}"
    return f"preset {FLAGS.preset}: {presets.PRESETS[FLAGS.preset].summary}"


def _run(experiment, stages, console):
    # TensorFlow is imported from here on: a wrong flag is told at once.
    replicas = importlib.import_module("trainers.strategy").create(experiment, console)
    runtime_module = importlib.import_module("trainers.runtime")
    console.quiet = not replicas.is_chief
    experiment = with_possible_width(experiment, console)
    networks = importlib.import_module("trainers.networks")
    networks.check(experiment)
    dataset = runtime_module.load_dataset(experiment.data)
    for message in dataset.messages:
        console.print(message, highlight=False)
    importlib.import_module("trainers.ensemble").check_classes(
        experiment, dataset.spec.name, dataset.spec.class_names
    )
    experiment = config.resolve(experiment, dataset.train.shorter_side)
    background_label = networks.background_label(experiment, dataset.spec)
    importlib.import_module("trainers.mix").check(experiment.mm, background_label)
    _check_labels(dataset, stages)
    if config.uses_xla(experiment):
        console.print("XLA compiles the steps: this run cannot be repeated to the last bit")
    scratch = None if replicas.is_chief else tempfile.TemporaryDirectory()
    runtime = runtime_module.Runtime(
        _workdir(experiment), dataset, console, replicas=replicas, scratch=scratch
    )
    runtime_module.check_workers(runtime, experiment)
    for arm in (runtime, runtime.naive()):
        if FLAGS.overwrite:
            runtime_module.clear(arm, stages)
        runtime_module.check_workdir(arm, experiment, stages)
    for arm in (runtime, runtime.naive()) if FLAGS.compare else (runtime,):
        for stage in stages:
            if arm is runtime or stage in ("segment", "evaluate"):
                _run_stage(stage, experiment, arm)
    if replicas.is_chief:
        _report(runtime_module.gather(runtime), runtime, stages)
    replicas.barrier()  # a worker that left early would be taken for lost


def with_possible_width(experiment, console):
    """Leaves out the preset's `network.width` where a network, or its weights, have one width."""
    network = experiment.network
    is_asked_for = any(item.partition("=")[0] == "network.width" for item in FLAGS["set"].value)
    is_published = network.init == "imagenet" and network.init_weights is None
    backbones = importlib.import_module("mm_keras.backbones")
    has_width = backbones.has_width(network.backbone) and not is_published
    if network.width == 1 or is_asked_for or has_width:
        return experiment
    what = f"{network.backbone} with {network.init} weights comes in one width"
    console.print(f"{what}: network.width={network.width} is left out", highlight=False)
    return config.replace(experiment, "network.width", 1.0)


def _run_stage(name, experiment, runtime):
    title = f"{runtime.arm} {name}".strip()
    if runtime.is_done(name):
        runtime.say(f"{title}: done already in {runtime.folder(name)}; --overwrite runs it anew")
        return
    runtime.say(f"{title}: writing to {runtime.folder(name)}")
    module = {"mm": "tune"}.get(name, name)
    if runtime.replicas.is_chief or name in _TRAINING_STAGES:
        importlib.import_module(f"trainers.{module}").run(experiment, runtime)


def _workdir(experiment) -> pathlib.Path:
    if FLAGS.workdir:
        return pathlib.Path(FLAGS.workdir)
    if experiment.ensemble:
        return importlib.import_module("trainers.ensemble").default_workdir(experiment)
    network = experiment.network
    parts = (experiment.data.dataset, network.backbone, network.init, FLAGS.preset)
    return pathlib.Path("runs") / "-".join(parts).replace("/", "_")


def _report(results, runtime, stages):
    """Prints the figures, if they are of the split that is asked for, beside those of naive
    fine-tuning, and where to go from here.
    """
    main = "ensemble" if FLAGS.ensemble else "M&M"
    columns = {main: results, "naive": results.get("naive", {})}
    columns = {name: column for name, column in columns.items() if "miou" in column}
    if columns and "evaluate" in stages:
        runtime.console.print(_table(columns, runtime.dataset))
    runtime.say(f"results: {runtime.workdir / 'results.json'}")
    runtime.say(f"curves and pictures: tensorboard --logdir {runtime.workdir}")
    for title, path in (("SavedModel", "export/saved_model"), ("predictions", "predict/results")):
        if (runtime.workdir / path).exists():
            runtime.say(f"{title}: {runtime.workdir / path}")


def _table(columns, dataset):
    table = rich.table.Table(title=f"{dataset.spec.name} {dataset.eval.title}, percent")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for key in ("miou", "pixel_accuracy", "mean_accuracy", "boundary_iou", "thin_iou"):
        table.add_row(key, *(_percent(column.get(key)) for column in columns.values()))
    table.add_section()
    for class_name in dataset.spec.class_names:
        figures = (column["per_class_iou"][class_name] for column in columns.values())
        table.add_row(f"IoU {class_name}", *map(_percent, figures))
    return table


def _check_labels(dataset, stages):
    """Refuses to measure where there are no labels, before hours are spent on training."""
    if "evaluate" in stages and not dataset.eval.is_labelled:
        others = ",".join(name for name in stages if name not in ("evaluate", "predict"))
        raise config.ConfigError(
            f"Split '{dataset.eval.name}' of {dataset.spec.name} has no labels, so there is nothing"
            " to measure. Choose another --eval_split, or predict it instead: "
            f"--stage={f'{others},' if others else ''}predict."
        )


def _percent(share):
    return "-" if share is None else f"{100 * share:.1f}"


if __name__ == "__main__":
    app.run(main)
