"""The configuration of a run: one frozen dataclass per stage, `--set stage.field=value`, and its
check against files.

Sizes in pixels may also be given as a float: a share of the images' shorter side, fixed to pixels
by `resolve` once the data set is known.
"""

import dataclasses
import difflib
import math
import re
import types
import typing


class UserError(ValueError):
    """Something that the user can mend; the entry point shows its message without a traceback."""


class ConfigError(UserError):
    """A value or key of the configuration that cannot be used."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images.

    shorter_side: larger images are shrunk to it, in training and in prediction; None never.
    unlabelled_dir: images for the proxy task; None takes the data set's own training images.
    num_train_images: train on so many images, chosen evenly over the train split; None for all.
    holdout: measure on so many other images of the train split in place of the eval split, to
        choose settings without a look at it; 0 for none (pipelines.datasets.select).
    """

    dataset: str = "texture_scenes"
    data_dir: str | None = None
    train_split: str | None = None
    eval_split: str | None = None
    unlabelled_dir: str | None = None
    shorter_side: int | None = None
    void_value: int = 255  # in the masks of a folder: pixels without a class; 0: classes from 1 on
    num_train_images: int | None = None
    holdout: int = 0
    max_unreadable: int = 0  # images that may be broken before the data set is refused
    service: str | None = None  # grpc://HOST:PORT that makes the patches of stage mm


@dataclasses.dataclass(frozen=True)
class Network:
    """Which network, and where its weights come from.

    backbone, pixels, width: as for mm_keras.backbones.build; None of `pixels` follows the init.
    init: "random", "imagenet" or a proxy task.
    init_weights: file with the weights of the init; None makes or fetches them.
    init_allow: layers of that file or of the network that may stay unused or unset, as patterns.
    """

    backbone: str = "vgg16"
    init: str = "random"
    init_weights: str | None = None
    init_allow: tuple[str, ...] = ()
    pixels: str | None = None
    width: float = 1.0


@dataclasses.dataclass(frozen=True)
class Optimization:
    """What both training stages have: SGD as in the released solver files (momentum and decay in
    both of them).

    jit_compile: whether XLA compiles the training step, of a single replica. A run with it cannot
        be repeated to the last bit: TensorFlow has no deterministic max-pooling under XLA.
    """

    steps: int = 0
    learning_rate: float = 0.01
    drops: tuple[int, ...] = ()  # update indices at which the rate is divided by ten
    momentum: float = 0.9
    decay: float = 5e-4
    jit_compile: bool = False
    log_every: int = 20
    checkpoint_every: int = 500


@dataclasses.dataclass(frozen=True)
class ProxyTask(Optimization):
    """Stage proxy, for one pretext task; the field of `Experiment` that holds these settings has
    the name of the init.
    """

    num_images: int = 16
    held_out: float = 0.1  # share of the images that the task is measured on
    num_measured: int = 256  # of the held-out images, at most


@dataclasses.dataclass(frozen=True)
class Colorization(ProxyTask):
    """Colorization, by Larsson et al. 2017 for VGG-16. Their schedule is not published: this one is
    ours.
    """

    steps: int = 100000
    drops: tuple[int, ...] = (70000, 90000)
    formulation: str = "2017"  # of the loss; or "2016"
    targets: str = "pixel"  # 2017; or "histogram", 2016
    num_bins: int = 32
    crop: int = 224
    num_points: int = 256
    shorter_side: int | None = None  # larger images are scaled down to it
    enlarge: bool = False  # smaller images are scaled up to the crop, not padded
    mirror: bool = True
    dropout: float = 0.5
    stddev: float = 1e-4  # of the initial hidden layer
    head_decay: float = 1e-6
    input_tap: bool = False
    fc6_size: int = 7  # 6 for AlexNet


@dataclasses.dataclass(frozen=True)
class Jigsaw(ProxyTask):
    """Jigsaw, by Noroozi & Favaro 2016; schedule and batch of their solver_cfn_jps.prototxt."""

    steps: int = 350000
    drops: tuple[int, ...] = (100000, 200000, 300000)
    num_images: int = 256
    num_permutations: int = 100
    rule: str = "mean"  # how the set of permutations is chosen; or "minimum"
    shorter_side: int | None = 256
    cell: int = 75
    tile: int = 64
    placement: str = "random"
    channel_jitter: int = 0
    grey_share: float = 0.3
    normalization: str = "mean_and_std"
    spread: float = 50.0
    dropout: float = 0.5
    initialization: str = "release"  # of fc6 and fc7; or "he", which learns from the first step on


@dataclasses.dataclass(frozen=True)
class Tune(Optimization):
    """Stage mm. Defaults are the paper's; where it is silent, the released code's for VGG-16."""

    steps: int = 8000
    drops: tuple[int, ...] = (6000,)
    num_images: int = 16
    patches_per_image: int = 10
    patch_size: int = 128  # patches are resized to it
    min_size: int | float = 64  # side of a patch in the image
    max_size: int | float = 256
    crop: int | float = 512  # patches are drawn inside a crop of each image
    mirror: bool = True
    background: str = (
        "dataset"  # which class is background: the data set's own, or "class_zero" (release)
    )
    rule: str = "paper"  # overlaps: "paper" or "release" (pipelines.patches)
    background_share: float = 0.1
    class_balanced: bool = False
    matching: str = "class_connected"  # or "random_triplets"
    margin: float = 2.1
    scale: str = "paper"  # of the loss: "paper" or "release" (mm_keras.losses)
    chunk: int | None = None  # patches that are in the network at a time (mm_keras.MixAndMatch)
    graph: str = "replica"  # one for each of several replicas (release), or one "global" one


@dataclasses.dataclass(frozen=True)
class Segment(Optimization):
    """Stage segment. Schedule: the paper's 40,000 iterations; batch: the released 6 x 2 x 4 images
    for VGG-16.
    """

    steps: int = 40000
    drops: tuple[int, ...] = (24000, 36000)
    num_images: int = 48
    crop: int | float = 512
    mirror: bool = True
    num_points: int = 256  # pixels per image and step of the hypercolumn segmenter
    dropout: float = 0.5
    stddev: float = 1e-4  # of the initial hidden layer over the hypercolumn
    input_scale: float = 1.0  # factor of the pixels themselves in the hypercolumn


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Stages evaluate, export and predict: how whole images are predicted, and what is measured.

    `output_stride`: pixels per cell of the hypercolumn segmenter; the fully convolutional one
    always gives every pixel.
    """

    protocol: str = "native"  # "native", "pascal" or "cityscapes" (mm_keras.protocols)
    output_stride: int = 2
    flip: bool = False  # also look at the mirrored image
    scales: tuple[float, ...] = (1.0,)  # look at each image at these factors of its size
    boundary: bool = True  # also score contours and thin regions (mm_keras.contours)
    num_pictures: int = 8  # predictions shown in TensorBoard


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides the result of a run, and the devices that it runs on.

    strategy: "none" for one device, "mirrored" for all of this machine, "multi_worker" for several
        machines. They share the images of a step.
    timeout: seconds to wait for what does not answer: another worker, a data service.
    """

    data: Data = Data()
    network: Network = Network()
    colorization: Colorization = Colorization()
    jigsaw: Jigsaw = Jigsaw()
    mm: Tune = Tune()
    segment: Segment = Segment()
    evaluate: Evaluate = Evaluate()
    precision: str = "float32"
    seed: int = 0
    ensemble: tuple[str, ...] = ()  # workdirs to average instead of a network of one's own
    strategy: str = "none"
    timeout: int = 600


def replace(experiment: Experiment, path: str, value) -> Experiment:
    """A copy with the field at `path` ("mm.margin" or "seed") set.

    Args:
        value: of the field's type, or a string to be read as one: 2.1, none, true, 100,200.

    Raises:
        ConfigError: unknown key (with the closest known ones), or a value of another type.
    """
    owner, _, name = path.rpartition(".")
    section = getattr(experiment, owner) if owner in _sections(experiment) else experiment
    known = keys(experiment)
    if path not in known:
        close = difflib.get_close_matches(path, known, n=3)
        inside = [key for key in known if key.startswith(f"{path}.")] or known
        hint = f" Did you mean {' or '.join(close)}?" if close else f" Known: {', '.join(inside)}."
        raise ConfigError(f"Unknown config key {path!r}.{hint}")
    annotation = typing.get_type_hints(type(section))[name]
    changed = dataclasses.replace(section, **{name: _parsed(path, value, annotation)})
    return dataclasses.replace(experiment, **{owner: changed}) if owner else changed


PROXIES = tuple(
    field.name for field in dataclasses.fields(Experiment) if isinstance(field.default, ProxyTask)
)
"""The inits that stage proxy makes."""


def proxy_task(experiment: Experiment) -> str | None:
    """The pretext task whose weights the run starts from; None where they come from elsewhere."""
    network = experiment.network
    is_needed = network.init in PROXIES and network.init_weights is None
    return network.init if is_needed else None


def uses_xla(experiment: Experiment) -> bool:
    """Whether any stage that trains asks for XLA."""
    stages = (proxy_task(experiment), "mm", "segment")
    return any(getattr(experiment, stage).jit_compile for stage in stages if stage)


FREE_KEYS = {"data.data_dir", "data.service", "evaluate.num_pictures"} | {
    f"{stage}.{key}"
    for stage in (*PROXIES, "mm", "segment")
    for key in ("log_every", "checkpoint_every")
}
"""Keys that change neither weights nor figures, or (data_dir) only say where the same files lie."""


CHOICES = {
    "network.init": ("random", "imagenet", *PROXIES),
    "colorization.formulation": ("2017", "2016"),
    "colorization.targets": ("pixel", "histogram"),
    "jigsaw.rule": ("mean", "minimum"),
    "jigsaw.placement": ("random", "centre"),
    "jigsaw.normalization": ("mean_and_std", "mean", "joint", "none"),
    "jigsaw.initialization": ("release", "he"),
    "mm.background": ("dataset", "class_zero"),
    "mm.rule": ("paper", "release"),
    "mm.matching": ("class_connected", "random_triplets"),
    "mm.scale": ("paper", "release"),
    "mm.graph": ("replica", "global"),
    "evaluate.protocol": ("native", "pascal", "cityscapes"),
    "evaluate.output_stride": (1, 2),
    "precision": ("float32", "mixed_float16", "mixed_bfloat16"),
    "strategy": ("none", "mirrored", "multi_worker"),
}
AT_LEAST_ONE = (  # or none, where a key takes it
    *(
        f"{task}.{key}"
        for task in PROXIES
        for key in ("steps", "num_images", "num_measured", "log_every", "checkpoint_every")
    ),
    "data.num_train_images",
    "data.shorter_side",
    "mm.log_every",
    "mm.checkpoint_every",
    "mm.num_images",
    "mm.patches_per_image",
    "mm.patch_size",
    "mm.chunk",
    "segment.steps",
    "segment.log_every",
    "segment.checkpoint_every",
    "segment.num_images",
    "segment.num_points",
    "timeout",
)
NOT_NEGATIVE = (
    "data.holdout",
    "data.max_unreadable",
    "mm.steps",
    *(
        f"{stage}.{key}"
        for stage in (*PROXIES, "mm", "segment")
        for key in ("learning_rate", "decay")
    ),
)
POSITIVE = ("mm.crop", "mm.min_size", "mm.max_size", "segment.crop", "segment.input_scale")
SHARES = (
    "mm.background_share",
    "jigsaw.grey_share",
    *(f"{stage}.dropout" for stage in (*PROXIES, "segment")),
)


def check(experiment: Experiment):
    """Refuses values that could only fail later, hours into a run.

    Raises:
        ConfigError: naming key, value and what is possible.
    """
    flat = flatten(experiment)
    for key, choices in CHOICES.items():
        if flat[key] not in choices:
            raise ConfigError(unknown(key, flat[key], choices))
    for bound, names in ((1, AT_LEAST_ONE), (0, NOT_NEGATIVE)):
        for key in names:
            if flat[key] is not None and flat[key] < bound:
                raise ConfigError(f"{key} must be at least {bound}. Received {flat[key]}.")
    _check_numbers(flat)
    for stage in (*PROXIES, "mm", "segment"):
        drops = flat[f"{stage}.drops"]
        if drops != sorted(set(drops)):
            raise ConfigError(f"{stage}.drops must be ascending update indices. Received {drops}.")
    service = experiment.data.service
    if service is not None and not re.fullmatch(r"grpc://[^/\s]+:\d{1,5}", service):
        raise ConfigError(
            f"--data_service must be the dispatcher's grpc://HOST:PORT. Received {service!r}."
        )


def _check_numbers(flat):
    for key in POSITIVE:
        if flat[key] <= 0:
            raise ConfigError(f"{key} must be more than 0. Received {flat[key]}.")
    for key in SHARES:
        if not 0 <= flat[key] <= 1:
            raise ConfigError(f"{key} must lie in 0..1. Received {flat[key]}.")
    for key, value in flat.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key} must be a number. Received {value}.")


def unknown(kind: str, value, known) -> str:
    """The message for a value that is not among the known ones, with the closest of these."""
    known = [str(item) for item in known]
    close = difflib.get_close_matches(str(value), known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"Unknown {kind} {value!r}; known: {', '.join(known)}.{hint}"


def keys(experiment: Experiment) -> list[str]:
    """All keys that `replace` takes."""
    return list(flatten(experiment))


def flatten(experiment: Experiment) -> dict[str, object]:
    """{"mm.margin": 2.1, ...} in the order of definition, tuples as lists, ready for JSON."""
    flat = {}
    for field in dataclasses.fields(experiment):
        value = getattr(experiment, field.name)
        if dataclasses.is_dataclass(value):
            flat |= {f"{field.name}.{key}": inner for key, inner in flatten(value).items()}
        else:
            flat[field.name] = list(value) if isinstance(value, tuple) else value
    return flat


def from_flat(flat: dict[str, object], source: str) -> Experiment:
    """The experiment of which `flatten` wrote all or a part; keys that are missing have their
    defaults.

    Args:
        flat: {"mm.margin": 2.1, ...}, as read from JSON.
        source: the file, for messages.

    Raises:
        ConfigError: an unknown key or a value that cannot be used; names the file.
    """
    experiment = Experiment()
    try:
        for key, value in flat.items():
            experiment = replace(experiment, key, value)
        check(experiment)
    except ConfigError as error:
        raise ConfigError(
            f"{source} was written by another version of this program: {error} "
            "Run its stages anew with --overwrite, or use the version that wrote it."
        ) from error
    return experiment


def resolve(experiment: Experiment, shorter_side: int) -> Experiment:
    """Fixes sizes that are shares of the images' shorter side (pixels, after `data.shorter_side`).

    Patch sizes become even, since a patch is centred on a pixel of a known label.
    """
    if experiment.data.shorter_side is not None:
        shorter_side = min(shorter_side, experiment.data.shorter_side)
    for path, multiple in (
        ("mm.min_size", 2),
        ("mm.max_size", 2),
        ("mm.crop", 1),
        ("segment.crop", 1),
    ):
        value = flatten(experiment)[path]
        if isinstance(value, float):
            pixels = max(multiple, round(value * shorter_side / multiple) * multiple)
            experiment = replace(experiment, path, pixels)
    return experiment


def _sections(experiment):
    return {
        field.name
        for field in dataclasses.fields(experiment)
        if dataclasses.is_dataclass(getattr(experiment, field.name))
    }


def _parsed(path, value, annotation):
    """`value` as the annotated type; strings are read."""
    options = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    options = sorted(options, key=lambda option: option is not type(None))  # "none" is no string
    for option in options:
        try:
            return _read(value, option)
        except (TypeError, ValueError):
            continue
    wanted = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise ConfigError(f"{path} must be {wanted.replace('NoneType', 'none')}. Received {value!r}.")


def _is_union(annotation):
    return isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union


def _read(value, kind):
    if typing.get_origin(kind) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        return tuple(_read(item, typing.get_args(kind)[0]) for item in items if item != "")
    if kind is type(None):
        return _choice(value, {"none": None, None: None})
    if kind is bool:
        return _choice(value, {"true": True, "false": False, True: True, False: False})
    if kind in (int, float) and isinstance(value, str):
        return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(value)
    return value


def _choice(value, table):
    key = value.lower() if isinstance(value, str) else value
    if key not in table:
        raise ValueError(value)
    return table[key]
