"""The settings of a run: one frozen record per stage, and each field with its bounds and source.

The text below a field describes it in one line. Its last sentence names the source of the default.
Checks, `--help`, error messages and docs/reference/configuration.md derive from these fields
(`trainers.config.keys`). pydantic checks the values, also where records are made in Python.

Sizes in pixels may also be a float: a share of the shorter side of the images. `keys.resolve`
turns shares into pixels once the data set is known.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Annotated, Literal

import pydantic
from pydantic import AfterValidator, ConfigDict, Field

from trainers.config.errors import unknown


class OneOf:
    """A validator of names that are known once this module is complete.

    Args:
        choices: function () -> the names.
    """

    def __init__(self, choices: Callable[[], tuple[str, ...]]):
        self.choices = choices

    def __call__(self, value: str) -> str:
        if value not in self.choices():
            raise ValueError(unknown("name", value, self.choices()))
        return value


class SumOf(OneOf):
    """A validator of one name, or of several different ones joined by "+".

    Args:
        choices: function () -> the names.
        alone: names that no sum may have.
    """

    def __init__(self, choices: Callable[[], tuple[str, ...]], alone: tuple[str, ...] = ()):
        super().__init__(choices)
        self.alone = alone

    def __call__(self, value: str) -> str:
        names = value.split("+")
        for name in names:
            super().__call__(name)
        if len(set(names)) < len(names):
            raise ValueError(f"A sum has each part once. Received {value!r}.")
        if len(names) > 1 and set(names) & set(self.alone):
            raise ValueError(
                f"{' and '.join(self.alone)} cannot be part of a sum. Received {value!r}."
            )
        return value


def _ascending(drops: tuple[int, ...]) -> tuple[int, ...]:
    if list(drops) != sorted(set(drops)) or min(drops, default=1) < 1:
        raise ValueError(f"must be ascending update indices, 1 or more. Received {list(drops)}")
    return drops


def _range(ends: tuple[float, ...]) -> tuple[float, ...]:
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise ValueError(f"must be two numbers, the smaller first. Received {list(ends)}")
    return ends


def _bands(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if not 1 <= len(numbers) <= MAX_BANDS or min(numbers) < 1:
        raise ValueError(f"must be 1 to {MAX_BANDS} numbers, each from 1. Received {list(numbers)}")
    return numbers


def _sizes(units: tuple[int, ...]) -> tuple[int, ...]:
    if any(not 1 <= size <= 16384 for size in units):
        raise ValueError(f"must be sizes in 1..16384. Received {list(units)}")
    return units


def _dispatcher(address: str) -> str:
    if not re.fullmatch(r"grpc://[^/\s]+:\d{1,5}", address):
        raise ValueError(f"must be the dispatcher's grpc://HOST:PORT. Received {address!r}")
    return address


def _formats(names: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [name for name in names if name not in FORMATS]
    if wrong or not names or len(set(names)) < len(names):
        raise ValueError(f"must be different ones of {', '.join(FORMATS)}. Received {list(names)}")
    return names


def _size(size: tuple[int, ...]) -> tuple[int, ...]:
    if size and (len(size) != 2 or min(size) < 1 or max(size) > 16384):
        raise ValueError(f"must be height and width, 1 to 16384. Received {list(size)}")
    return size


MAX_BANDS = 64
"""Largest number of bands of images, as in mm_keras.backbones."""

FORMATS = ("saved_model", "onnx", "litert", "litert_int8")
"""Formats of the exported model."""

AtLeastOne = Annotated[int, Field(ge=1)]
NumPoints = Annotated[int, Field(ge=1, le=2**20)]
"""Pixels of an image: more do not fit into memory with their features."""
NumImages = Annotated[int, Field(ge=1, le=2**16)]
"""Images, or patches of an image, of a step: more do not fit into memory."""
Units = Annotated[int, Field(ge=1, le=2**16)]
"""Channels of a layer, or classes of a pretext task."""
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
Side = Annotated[int, Field(ge=1, le=16384)]  # of a square; larger ones fit no memory
Pixels = Side | Annotated[float, Field(gt=0, le=4)]
Range = Annotated[tuple[float, ...], AfterValidator(_range)]
Formats = Annotated[tuple[str, ...], AfterValidator(_formats)]
Size = Annotated[tuple[int, ...], AfterValidator(_size)]
Drops = Annotated[tuple[int, ...], AfterValidator(_ascending)]

record = pydantic.dataclasses.dataclass(
    frozen=True,
    config=ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    ),
)
"""Decorator of a group of settings: an immutable dataclass whose values are checked."""


@record
class Data:
    """The images."""

    dataset: str = "texture_scenes"
    """Name of the data set. Source: ours."""
    data_dir: str | None = None
    """Folder of the data set, its parent, or an annotation file or ZIP; none: generated or
    downloaded images. Source: ours."""
    images: str | None = None
    """Folder with the pictures of an annotation export that has none, for data set folder.
    Source: ours."""
    unlabelled: Literal["background", "void"] | None = None
    """Meaning of pixels without a label in an annotation export; none: the meaning of its format.
    Source: ours."""
    unannotated: Literal["skip", "background"] = "skip"
    """Use of pictures without any annotation in an export: left out, or without an object.
    Source: ours."""
    window: Range | None = None
    """Values of the images that become 0 and 255; none: percentiles, for images of more than 8 bits
    or of other bands. Source: ours."""
    percentiles: Range = (1.0, 99.0)
    """Percentiles of each band, over a sample of images, that become 0 and 255. Source: ours."""
    bands: Annotated[tuple[int, ...], AfterValidator(_bands)] | None = None
    """Numbers of the bands to use, from 1; one band is gray; none: as many as network.channels.
    Source: ours."""
    train_split: str | None = None
    """Split to train on; none: the usual split of the data set. Source: ours."""
    eval_split: str | None = None
    """Split to evaluate and predict; none: the usual split of the data set. Source: ours."""
    unlabelled_dir: str | None = None
    """Folder with images for the pretext task; none: the training images. Source: ours."""
    shorter_side: Side | None = None
    """Shorter side in pixels to which larger images are shrunk, always; none: never.
    Source: ours."""
    void_value: Annotated[int, Field(ge=0, le=255)] = 255
    """Mask value of pixels without a class, for data set folder; with 0 the classes start at 1.
    Source: VOC."""
    num_train_images: AtLeastOne | None = None
    """Number of training images to use, chosen evenly; none: all. Source: ours."""
    holdout: Annotated[int, Field(ge=0)] = 0
    """Number of training images to evaluate on instead, to choose settings.
    Source: ours."""
    validation: str | None = None
    """Split to validate on while training: train (a held-out part), eval, or a name; none: none.
    Source: ours."""
    validation_images: AtLeastOne = 32
    """Largest number of validation images, chosen evenly; of train at most a tenth.
    Source: ours."""
    max_unreadable: Annotated[int, Field(ge=0)] = 0
    """Number of damaged images to leave out before the data set is refused. Source: ours."""
    pseudo_labels: str | None = None
    """Folder of images that a first fine-tuning labels for a second one; rest: unused training
    images; none: no images. Source: Lee 2013."""
    pseudo_threshold: Share = 0.9
    """Confidence below which a pixel of such an image is void. Source: ours; FixMatch 0.95."""
    pseudo_min_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Least share of confident pixels of such an image; others are left out. Source: ours."""
    pseudo_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Largest share of such images among the images of a step. Source: ST++ (Yang et al. 2022)."""
    service: Annotated[str, AfterValidator(_dispatcher)] | None = None
    """Address grpc://HOST:PORT of a tf.data service that makes the patches of stage mm.
    Source: ours."""


@record
class Network:
    """The network, and the origin of its first weights."""

    backbone: str = "vgg16"
    """Name of the network, as mm_keras.backbones.build takes it. Source: M&M paper."""
    init: Annotated[str, AfterValidator(OneOf(lambda: INITS))] = "random"
    """Origin of the first weights, see the table of starts. Source: M&M paper, Tables 1 and 3."""
    filters: Literal["kmeans", "pca", "random"] = "kmeans"
    """Filters of init kmeans: centers of clusters, principal directions, or Gaussian noise.
    Source: Krähenbühl et al. 2016."""
    rescale: bool = False
    """Scale the layers of the first weights until all learn at one rate, from training images.
    Source: Krähenbühl et al. 2016, option -cs of their code; release none."""
    init_weights: str | None = None
    """File with the weights of the init, or preset folder of kerashub/NAME; none: they are made or
    downloaded. Source: ours."""
    init_source: str | None = None
    """Source of the file (mm_keras.weights.sources) where neither its layers nor the init show it;
    none: detected. Source: ours."""
    init_allow: tuple[str, ...] = ()
    """Patterns of layers that may stay unused or unset when the file is loaded. Source: ours."""
    pixels: str | None = None
    """Kind of pixels that the network sees; none: the kind of the init or the backbone.
    Source: ours."""
    batch_norm: Literal["identity", "data"] = "identity"
    """Start of batch norm that the weights do not have: identity, or set from 16 training images.
    Source: ours."""
    width: Positive = 1.0
    """Factor of the number of channels. Source: ours; 1 in the M&M paper."""
    channels: Annotated[int, Field(ge=1, le=MAX_BANDS)] | None = None
    """Number of bands of the images that the network takes; none: all of images with 2, or 4 and
    more, 3 of others. Source: ours."""


@record
class Optimization:
    """The steps of a stage that trains."""

    steps: AtLeastOne = 1
    """Number of training steps. Source: ours."""
    learning_rate: NotNegative = 0.01
    """Learning rate before the first drop. Source: release, */solver.prototxt."""
    drops: Drops = ()
    """Update indices at which the learning rate is divided by ten.
    Source: release, */solver.prototxt."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum and coupled weight decay, or AdamW (mm_keras.optimizers).
    Source: release sgd."""
    schedule: Literal["drops", "cosine", "poly", "half_constant"] = "drops"
    """Learning rate over time: drops, half a cosine, a polynomial of power 0.9, or half constant
    and half exponential to 1 %. Source: release drops."""
    warmup: ShareBelowOne = 0.0
    """Share of the steps in which the learning rate rises linearly; with cosine and poly.
    Source: release 0."""
    momentum: Share = 0.9
    """Momentum of SGD. Source: release, */solver.prototxt."""
    decay: NotNegative = 5e-4
    """Weight decay; sgd couples it to the momentum, adamw does not.
    Source: release, */solver.prototxt."""
    clip: NotNegative = 0.0
    """Largest global norm of the gradients, which are scaled down to it; 0: no limit.
    Source: release 0."""
    backbone_rate: NotNegative = 1.0
    """Factor of the learning rate in the backbone; adamw only. Source: ours."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from each block of the backbone to the block before it; adamw
    only. Source: BEiT 0.65 to 0.75; 1 keeps one rate."""
    jit_compile: bool = False
    """Compile the step with XLA, on a single replica; such a run is not repeatable to the last bit.
    Source: ours."""
    log_every: AtLeastOne = 20
    """Steps between two log entries. Source: ours."""
    checkpoint_every: AtLeastOne = 500
    """Steps between two checkpoints. Source: ours."""
    statistics_steps: Annotated[int, Field(ge=0)] = 0
    """Forward passes after the last step that renew the statistics of AlexNet's batch norm.
    Source: release 0."""

    @property
    def num_batches(self) -> int:
        """Batches that the stage reads."""
        return self.steps + self.statistics_steps


@record
class ProxyTask(Optimization):
    """Stage proxy, for one pretext task. The field of `Experiment` has the name of the task."""

    num_images: NumImages = 16
    """Images of a step. Source: ours."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the images that the task is measured on, and not trained on. Source: ours."""
    num_measured: AtLeastOne = 256
    """Largest number of held-out images to measure on. Source: ours."""


@record
class Colorization(ProxyTask):
    """Colorization (Larsson et al. 2017); the authors did not publish their schedule."""

    steps: AtLeastOne = 100000
    """Number of training steps. Source: ours."""
    drops: Drops = (70000, 90000)
    """Update indices at which the learning rate is divided by ten. Source: ours."""
    formulation: Literal["2017", "2016"] = "2017"
    """Form of the loss. Source: Larsson et al. 2017 and 2016."""
    targets: Literal["pixel", "histogram"] = "pixel"
    """Targets of a point: its own color, or a histogram around it.
    Source: Larsson et al. 2017 and 2016."""
    num_bins: Units = 32
    """Bins of hue and of chroma. Source: Larsson et al. 2016."""
    crop: Side = 224
    """Side of the training crops in pixels. Source: Larsson et al. 2017."""
    num_points: NumPoints = 256
    """Points per image and step. Source: ours."""
    shorter_side: Side | None = None
    """Shorter side in pixels to which larger images are shrunk; none: never. Source: ours."""
    enlarge: bool = False
    """Enlarge images that are smaller than the crop, instead of padding them. Source: ours."""
    mirror: bool = True
    """Mirror images with probability 1/2. Source: ours."""
    dropout: ShareBelowOne = 0.5
    """Dropout of fc6 and fc7. Source: Larsson et al. 2017."""
    stddev: Positive = 1e-4
    """Standard deviation of the first weights of the hidden layer. Source: ours."""
    head_decay: NotNegative = 1e-6
    """Weight decay of the layers above the backbone. Source: Larsson et al. 2017."""
    input_tap: bool = False
    """Include the pixels in the hypercolumn.
    Source: release, colorize_hypercolumn.py for AlexNet."""
    fc6_size: Side = 7
    """Side of the kernel of fc6; 6 for AlexNet. Source: the networks' own first dense layer."""


@record
class Jigsaw(ProxyTask):
    """Jigsaw puzzles (Noroozi and Favaro 2016)."""

    steps: AtLeastOne = 350000
    """Number of training steps. Source: Noroozi and Favaro, solver_cfn_jps.prototxt."""
    drops: Drops = (100000, 200000, 300000)
    """Update indices at which the learning rate is divided by ten.
    Source: solver_cfn_jps.prototxt."""
    num_images: NumImages = 256
    """Images of a step. Source: Noroozi and Favaro, train_val_cfn_jps.prototxt."""
    num_permutations: AtLeastOne = 100
    """Size of the set of permutations. Source: Noroozi and Favaro 2016."""
    rule: Literal["mean", "minimum"] = "mean"
    """Distance by which the set of permutations is chosen. Source: Noroozi and Favaro 2016."""
    shorter_side: Side | None = 256
    """Shorter side in pixels to which images are scaled; none: never.
    Source: Noroozi and Favaro 2016."""
    cell: Side = 75
    """Side of a cell of the 3 x 3 grid in pixels. Source: Noroozi and Favaro 2016."""
    tile: Side = 64
    """Side of a tile in pixels. Source: Noroozi and Favaro 2016."""
    placement: Literal["random", "center"] = "random"
    """Place of a tile in its cell. Source: paper random, release center."""
    channel_jitter: Annotated[int, Field(ge=0)] = 0
    """Largest shift in pixels of each color channel. Source: Noroozi and Favaro 2016."""
    gray_share: Share = 0.3
    """Share of the puzzles that are gray. Source: Noroozi and Favaro 2016."""
    normalization: Literal["mean_and_std", "mean", "joint", "none"] = "mean_and_std"
    """Normalization of a tile. Source: paper mean_and_std, release mean."""
    spread: Positive = 50.0
    """Standard deviation of a normalized tile in gray levels. Source: ours."""
    dropout: ShareBelowOne = 0.5
    """Dropout of fc6 and fc7. Source: Noroozi and Favaro 2016."""
    initialization: Literal["release", "he"] = "release"
    """First weights of fc6 and fc7; he learns from the first step on. Source: release."""


@record
class ColorTask(ProxyTask):
    """The schedule and the images of Zhang et al. 2016a."""

    steps: AtLeastOne = 450000
    """Number of training steps. Source: train_alexnet/solver.prototxt."""
    learning_rate: NotNegative = 3e-5
    """Learning rate before the first drop. Source: train_alexnet/solver.prototxt."""
    drops: Drops = (300000,)
    """Update indices at which the learning rate is divided by ten.
    Source: train_alexnet divides by about three at 240k, 300k and 400k."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    """SGD with momentum and coupled weight decay, or AdamW (mm_keras.optimizers).
    Source: Zhang et al. 2016a, Adam."""
    decay: NotNegative = 1e-3
    """Weight decay; sgd couples it to the momentum, adamw does not.
    Source: train_alexnet/solver.prototxt."""
    num_images: NumImages = 80
    """Images of a step. Source: train_alexnet."""
    crop: Side = 180
    """Side of the training crops in pixels. Source: train_alexnet."""
    shorter_side: Side | None = 256
    """Shorter side in pixels to which larger images are shrunk; none: never.
    Source: train_alexnet, both sides."""
    mirror: bool = True
    """Mirror images with probability 1/2. Source: train_alexnet."""


@record
class ColorClasses(ColorTask):
    """Color classes of an image from its lightness (Zhang et al. 2016a)."""

    num_neighbors: Annotated[int, Field(ge=1, le=313)] = 10
    """Color bins of the soft encoding of a target. Source: code 10, paper 5."""
    uniform_share: Share = 0.5
    """Share of equal weights in the rebalancing of rare colors; 1: no rebalancing.
    Source: Zhang et al. 2016a."""
    fc6_size: Side = 3
    """Side of the kernel of fc6, with dilation 2; 6 for AlexNet. Source: train_alexnet 6."""
    start: Literal["kmeans", "random"] = "kmeans"
    """First weights of the backbone, see init kmeans. Source: train_alexnet kmeans."""


@record
class SplitBrain(ColorTask):
    """Split brain: half of AlexNet predicts colors, and half lightness (Zhang et al. 2016b)."""


@record
class ContextEncoder(ProxyTask):
    """Context encoder: fill a hole in an image (Pathak et al. 2016), without adversarial loss."""

    steps: AtLeastOne = 100000
    """Number of training steps. Source: Pathak et al. 2016."""
    learning_rate: NotNegative = 1e-3
    """Learning rate before the first drop. Source: ours."""
    drops: Drops = (70000, 90000)
    """Update indices at which the learning rate is divided by ten. Source: ours."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    """SGD with momentum and coupled weight decay, or AdamW (mm_keras.optimizers).
    Source: ours; the released inpainting network uses Adam."""
    num_images: NumImages = 64
    """Images of a step. Source: the released inpainting network."""
    crop: Annotated[int, Field(ge=8, le=16384)] = 227
    """Side of the training crops in pixels. Source: Pathak et al. 2016."""
    shorter_side: Side | None = 256
    """Shorter side in pixels to which larger images are shrunk; none: never. Source: ours."""
    mirror: bool = True
    """Mirror images with probability 1/2. Source: the released inpainting network."""
    hole: Literal["region", "block", "central"] = "region"
    """Shape of the holes (pipelines.batches.holes). Source: Pathak et al. 2016."""
    loss: Literal["l2", "l1"] = "l2"
    """Error of a pixel in the hole. Source: paper l2; the authors' features used l1."""
    center: Literal["gray", "mean"] = "gray"
    """Color that zeros of the decoder stand for: mid-gray, or the mean color of the image.
    Source: ours mean; the released inpainting network gray."""
    decoder: Annotated[tuple[int, ...], AfterValidator(_sizes)] = (128, 64, 64, 32)
    """Channels of the layers that enlarge the map, before the last one of 3.
    Source: a port of Pathak et al. 2016."""


@record
class ContextPrediction(ProxyTask):
    """Context prediction: the place of a patch beside another one (Doersch et al. 2015)."""

    steps: AtLeastOne = 1000000
    """Number of training steps. Source: deepcontext, 1 to 1.7 million."""
    learning_rate: NotNegative = 2.5e-3
    """Learning rate before the first drop.
    Source: deepcontext, 1e-5 on the sum over 256 pairs."""
    decay: NotNegative = 0.0
    """Weight decay; sgd couples it to the momentum, adamw does not. Source: deepcontext."""
    num_images: NumImages = 256
    """Images of a step, one pair of patches each. Source: deepcontext, 512 patches."""
    shorter_side: Side | None = None
    """Shorter side in pixels to which larger images are shrunk; none: never.
    Source: ours; deepcontext scales to 150 to 450 thousand pixels."""
    patch: Side = 96
    """Side of a patch in pixels. Source: Doersch et al. 2015."""
    gap: Annotated[int, Field(ge=0, le=16384)] = 48
    """Pixels between two patches on average. Source: Doersch et al. 2015."""
    jitter: Annotated[int, Field(ge=0, le=16384)] = 7
    """Largest shift of a patch along each axis; at most half of the gap.
    Source: Doersch et al. 2015."""
    color: Literal["drop", "project", "keep"] = "drop"
    """Change of colors against chromatic aberration (pipelines.batches.neighbors).
    Source: deepcontext drop; Doersch et al. 2015 both."""
    spread: Positive = 50.0
    """Standard deviation of a normalized patch in gray levels. Source: deepcontext."""
    dropout: ShareBelowOne = 0.0
    """Dropout of fc6 and fc7. Source: deepcontext."""
    initialization: Literal["release", "he"] = "he"
    """First weights of fc6 and fc7, as for jigsaw. Source: ours; deepcontext Xavier."""


def _multiple_of_16(side: int) -> int:
    if side % 16:
        raise ValueError(f"must be a multiple of 16. Received {side}")
    return side


@record
class Bigan(ProxyTask):
    """BiGAN: an encoder and a generator against a discriminator of pairs (Donahue et al. 2016)."""

    steps: AtLeastOne = 1000000
    """Number of training steps. Source: Donahue et al., 100 epochs of ImageNet."""
    learning_rate: NotNegative = 2e-4
    """Learning rate before the first drop. Source: train_gan.py."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    """SGD with momentum and coupled weight decay, or AdamW (mm_keras.optimizers).
    Source: train_gan.py, Adam."""
    schedule: Literal["drops", "cosine", "poly", "half_constant"] = "half_constant"
    """Learning rate over time: drops, half a cosine, a polynomial of power 0.9, or half constant
    and half exponential to 1 %. Source: train_gan.py."""
    beta_1: ShareBelowOne = 0.5
    """Decay of the mean of the gradients in AdamW. Source: train_gan.py."""
    decay: NotNegative = 2.5e-5
    """Weight decay; sgd couples it to the momentum, adamw does not. Source: train_gan.py."""
    statistics_steps: Annotated[int, Field(ge=0)] = 1000
    """Forward passes after the last step that renew the statistics of AlexNet's batch norm.
    Source: Donahue et al."""
    num_images: Annotated[int, Field(ge=2, le=2**16)] = 128
    """Images of a step. Source: train_gan.py."""
    num_measured: Annotated[int, Field(ge=2)] = 256
    """Largest number of held-out images to measure on, at least two. Source: ours."""
    crop: Side = 112
    """Side of the crops that the encoder sees, in pixels. Source: Donahue et al., 64 and 112."""
    shorter_side: Side | None = 128
    """Shorter side in pixels to which larger images are shrunk; none: never.
    Source: Donahue et al., 72 for crops of 64."""
    mirror: bool = False
    """Mirror images with probability 1/2. Source: Donahue et al."""
    side: Annotated[int, Field(ge=16, le=1024), AfterValidator(_multiple_of_16)] = 64
    """Side of generated images in pixels, a multiple of 16. Source: Donahue et al."""
    num_codes: Units = 200
    """Values of a code. Source: Donahue et al."""
    channels: Units = 64
    """Channels of the first layer of the discriminator. Source: net.py."""


Factor = Annotated[float, Field(ge=1, le=16)]


@record
class Augment:
    """Amounts of the random changes of images; none: the amount of the stage's `augmentation`."""

    scale: Factor | None = None
    """Factor f of the size, drawn in 1 / f..f. Source: mmsegmentation 2, strength strong."""
    aspect: Annotated[float, Field(ge=1, le=4)] | None = None
    """Factor f of width / height, drawn in 1 / f..f. Source: ours."""
    rotation: Annotated[float, Field(ge=0, le=180)] | None = None
    """Largest angle in degrees; 180 for images without an upright direction.
    Source: EfficientSeg 10, strength strong."""
    rotation_share: Share | None = None
    """Probability of a rotation. Source: ours."""
    quarter_turns: bool | None = None
    """Add 0, 90, 180 or 270 degrees, for images without an upright direction. Source: ours."""
    color_share: Share | None = None
    """Probability of the changes of brightness, contrast, saturation and hue.
    Source: UniMatch V2 0.8, strength strong."""
    brightness: Share | None = None
    """Amount a: the pixels are multiplied by 1 - a..1 + a. Source: ours."""
    contrast: Share | None = None
    """Amount a: the distance from the mean gray level is multiplied by 1 - a..1 + a.
    Source: ours."""
    saturation: Share | None = None
    """Amount a: the distance from the pixel's gray level is multiplied by 1 - a..1 + a.
    Source: ours."""
    hue: Annotated[float, Field(ge=0, le=0.5)] | None = None
    """Largest turn of the color circle; 0.5 is half of it. Source: ours."""
    gray_share: Share | None = None
    """Probability of a gray image. Source: ours."""
    blur: Annotated[float, Field(ge=0, le=8)] | None = None
    """Largest standard deviation of a Gaussian blur in pixels of the crop. Source: ours."""
    blur_share: Share | None = None
    """Probability of a blur. Source: ours."""
    noise: Annotated[float, Field(ge=0, le=255)] | None = None
    """Largest standard deviation of Gaussian noise in gray levels. Source: ours."""
    noise_share: Share | None = None
    """Probability of noise. Source: ours."""
    cutout: Share | None = None
    """Largest share of the crop that a box erases; its labels become void.
    Source: French et al. 2020."""
    cutout_share: Share | None = None
    """Probability of an erased box. Source: ours."""


@record
class MixedAugment(Augment):
    """Amounts of the random changes of images; none: the amount of the stage's `augmentation`."""

    mix: Share | None = None
    """Largest share of the crop that a box of another image covers, with its labels (CutMix).
    Source: UniMatch V2."""
    mix_share: Share | None = None
    """Probability that two images of a step exchange a box. Source: UniMatch V2."""


@record
class LabelledStage(Optimization):
    """A stage that trains on labelled images."""

    augmentation: Literal["none", "light", "strong"] = "none"
    """Strength of the random changes of images (pipelines.batches.augmentation).
    Source: release none."""
    augment: Augment = Augment()
    """Amounts in place of the amounts of the strength."""
    rare_share: Share = 0.0
    """Share of the crops that hold a class drawn uniformly among the classes of the image.
    Source: release 0; a third in nnU-Net."""


@record
class Tune(LabelledStage):
    """Stage mm: mix-and-match tuning."""

    steps: Annotated[int, Field(ge=0)] = 8000
    """Number of tuning steps; 0: the weights of the init are passed on. Source: M&M paper."""
    drops: Drops = (6000,)
    """Update indices at which the learning rate is divided by ten.
    Source: release, VGG/*/solver.prototxt."""
    num_images: NumImages = 16
    """Images of a step, over all replicas. Source: M&M paper."""
    patches_per_image: NumImages = 10
    """Patches of an image. Source: M&M paper."""
    patch_size: Side = 128
    """Side in pixels to which patches are resized. Source: M&M paper."""
    min_size: Pixels = 64
    """Smallest side of a patch in the image. Source: release, sampling_layers.py."""
    max_size: Pixels = 256
    """Largest side of a patch in the image. Source: release, sampling_layers.py."""
    crop: Pixels = 512
    """Side of the crop of an image in which patches are drawn.
    Source: release, train_graph.prototxt."""
    mirror: bool = True
    """Mirror images with probability 1/2. Source: release, train_graph.prototxt."""
    background: Literal["dataset", "class_zero"] = "dataset"
    """Class that counts as background. Source: paper dataset, release class_zero."""
    rule: Literal["paper", "release"] = "paper"
    """Rule that rejects overlapping patches (pipelines.batches.mix).
    Source: paper and release differ."""
    background_share: Share = 0.1
    """Share of the patches that are centered on background. Source: release, sampling_layers.py."""
    class_balanced: bool = False
    """Draw the class of a patch first, uniformly. Source: ours."""
    min_share: Share = 0.0
    """Share of a patch's labelled pixels that must have its label; 0: no minimum. Source: ours."""
    loss: Annotated[str, AfterValidator(SumOf(lambda: LOSSES, alone=("pixel_contrast",)))] = (
        "triplet"
    )
    """Loss on the patches (mm_keras.losses), or several joined by +. Source: M&M paper, triplet."""
    embedding: Literal["flatten", "pool", "grid"] | None = None
    """Form in which the loss takes a feature map; none: flatten for triplet losses, else pool.
    Source: M&M paper, flatten."""
    projection: Annotated[tuple[int, ...], AfterValidator(_sizes)] | None = None
    """Sizes of the dense layers before the loss; none: 256,128 for supcon and pixel_contrast, else
    no layer. Source: Khosla et al. 2020, smaller."""
    temperature: Annotated[float, Field(gt=0, le=10)] | None = None
    """Temperature of the similarities; none: the value of the loss (mm_keras.models.objective).
    Source: their publications."""
    loss_margin: Annotated[float, Field(gt=0, le=4)] | None = None
    """Margin of further losses; none: 0.2 for triplet_semihard, 0.35 for cosface, 0.1 for
    proxy_anchor. Source: their publications."""
    num_points: NumPoints = 256
    """Pixels of a crop and step for pixel_contrast, which takes whole crops. Source: ours."""
    matching: Literal["class_connected", "random_triplets"] = "class_connected"
    """Rule that turns labels into triplets (mm_keras.matching). Source: M&M paper, Table 1."""
    margin: Positive = 2.1
    """Margin of the losses triplet and triplet_all. Source: M&M paper, implementation details."""
    scale: Literal["paper", "release"] = "paper"
    """Scale of the triplet loss (mm_keras.losses). Source: paper and release differ."""
    chunk: AtLeastOne | None = None
    """Patches that are in the network at a time, to bound memory; none: all. Source: ours."""
    graph: Literal["replica", "global"] = "replica"
    """One graph per replica, or one over all replicas. Source: release replica."""
    probe_every: Annotated[int, Field(ge=0)] = 500
    """Steps between two probes of the features; none with 0 or with fewer steps. Source: ours."""
    probe_patches: Annotated[int, Field(ge=32, le=16384)] = 512
    """Patches that a probe learns from, and as many that it is scored on. Source: ours."""


@record
class Segment(LabelledStage):
    """Stage segment: fine-tuning for semantic segmentation."""

    augment: MixedAugment = MixedAugment()
    """Amounts in place of the amounts of the strength."""

    steps: AtLeastOne = 40000
    """Number of fine-tuning steps. Source: M&M paper."""
    drops: Drops = (24000, 36000)
    """Update indices at which the learning rate is divided by ten. Source: M&M paper."""
    num_images: NumImages = 48
    """Images of a step, over all replicas. Source: release, VGG/*/solver.prototxt, 6 x 2 x 4."""
    crop: Pixels = 512
    """Side of the training crops. Source: release, finetune_seg.prototxt."""
    mirror: bool = True
    """Mirror images with probability 1/2. Source: release, finetune_seg.prototxt."""
    num_points: NumPoints = 256
    """Pixels per image and step of the hypercolumn segmenter.
    Source: release, VGG/*/finetune_seg.prototxt."""
    dropout: ShareBelowOne = 0.5
    """Dropout of fc6 and fc7. Source: release, finetune_seg.prototxt."""
    stddev: Positive = 1e-4
    """Standard deviation of the first weights of the hidden layer.
    Source: release, finetune_seg.prototxt."""
    point_border: Annotated[float, Field(ge=0, lt=0.5)] = 3 / 16
    """Share of the crop at each border without points of the hypercolumn segmenter.
    Source: release, VGG/*/finetune_seg.prototxt, 96 of 512."""
    balanced_points: bool = False
    """Draw the class of a point of the hypercolumn segmenter first, uniformly over the image's.
    Source: ours."""
    input_scale: Positive = 1.0
    """Factor of the pixels in the hypercolumn. Source: release 1."""
    validate_every: Annotated[int, Field(ge=0)] = 0
    """Steps between two validations on data.validation; 0: none. Source: ours."""
    keep: Literal["best", "last"] = "best"
    """Weights that are passed on after a training with validation. Source: ours."""
    monitor: Literal["val_miou", "val_pixel_accuracy", "val_loss"] = "val_miou"
    """Score by which the best weights are chosen. Source: ours."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Validations without improvement after which training stops; 0: it runs to the last step.
    Source: ours."""
    ema: ShareBelowOne = 0.0
    """Momentum of the moving average of the weights, which then takes their place; 0: none.
    Source: release 0."""
    loss: Literal["cross_entropy", "focal", "cross_entropy+dice", "cross_entropy+lovasz"] = (
        "cross_entropy"
    )
    """Loss over the pixels (mm_keras.losses.PIXEL_LOSSES). Source: release cross_entropy."""
    class_weights: Literal[
        "none", "auto", "inverse_frequency", "inverse_root", "effective_number", "enet", "median"
    ] = "none"
    """Rule of the weights of the classes in the loss (mm_keras.losses.class_weights).
    Source: release none."""
    head: Literal["hypercolumn", "fcn", "unet"] | None = None
    """Kind of the segmenter; none: the kind that the paper puts on the backbone.
    Source: M&M paper."""
    decoder_width: Positive = 0.5
    """Channels of a stage of the unet decoder as a share of the channels of its tap.
    Source: ours."""
    deep_supervision: NotNegative = 0.0
    """Weight of the loss of each coarse map of the unet decoder; 0: none.
    Source: nnU-Net, Lee et al. 2015."""
    start_from_hubs: bool = False
    """Start the scores of the coarsest map of the unet from the hubs of mm.loss=softmax.
    Source: ours."""
    contrast: NotNegative = 0.0
    """Weight of the contrast of labelled pixels beside the loss (mm_keras.losses.pixel_contrast).
    Source: ours; 0.1 by Wang et al. 2021."""
    frozen: bool = False
    """Train only the layers above the backbone. Source: ours."""


@record
class Evaluate:
    """Stages evaluate, export and predict: prediction of whole images, and the scores."""

    protocol: Literal["native", "pascal", "cityscapes"] = "native"
    """Test protocol (mm_keras.inference.protocols). Source: release, resources/test_*.py."""
    output_stride: Literal[1, 2] = 2
    """Pixels per cell of the hypercolumn segmenter; the fcn segmenter gives every pixel.
    Source: M&M paper."""
    flip: bool = False
    """Average the prediction with the prediction of the mirrored image. Source: ours."""
    scales: tuple[float, ...] = (1.0,)
    """Factors of the image's size whose predictions are averaged. Source: ours."""
    window: Side | None = None
    """Side in pixels of blended windows of the network's input, for large images; none: no windows.
    Source: ours."""
    overlap: Annotated[int, Field(ge=0, le=16384)] = 128
    """Pixels that neighboring windows share at least. Source: ours."""
    boundary: bool = True
    """Score contours and thin regions as well. Source: Cheng et al. 2021."""
    num_pictures: Annotated[int, Field(ge=0, le=1000)] = 8
    """Predictions shown in TensorBoard. Source: ours."""


@record
class Export:
    """Stage export: the files of the model."""

    format: Formats = ("saved_model",)
    """Formats of the model: saved_model, onnx (needs the extra onnx), litert, litert_int8.
    Source: ours."""
    size: Size = ()
    """Height and width of the input of LiteRT models; empty: as the first evaluation image.
    Source: ours."""


@record
class Suggest:
    """Stage suggest: the images to label next, and the masks to look at again."""

    images: str | None = None
    """Folder, file or pattern of images without masks to choose from; none: no such images.
    Source: ours."""
    number: Annotated[int, Field(ge=1, le=1000)] = 20
    """Images to choose, and masks to name. Source: ours."""


@record
class Experiment:
    """Everything that decides the result of a run, and the devices that it runs on."""

    data: Data = Data()
    network: Network = Network()
    colorization: Colorization = Colorization()
    jigsaw: Jigsaw = Jigsaw()
    color_classes: ColorClasses = ColorClasses()
    split_brain: SplitBrain = SplitBrain()
    context_encoder: ContextEncoder = ContextEncoder()
    context_prediction: ContextPrediction = ContextPrediction()
    bigan: Bigan = Bigan()
    mm: Tune = Tune()
    segment: Segment = Segment()
    evaluate: Evaluate = Evaluate()
    export: Export = Export()
    suggest: Suggest = Suggest()
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """Precision policy of Keras. Source: ours."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of everything that is random. Source: ours."""
    ensemble: tuple[str, ...] = ()
    """Working folders of finished runs whose class probabilities are averaged.
    Source: M&M paper, Table 2."""
    strategy: Literal["none", "mirrored", "multi_worker"] = "none"
    """Devices: one, all of this machine, or the workers of TF_CONFIG. Source: ours."""
    timeout: AtLeastOne = 600
    """Seconds to wait for another worker or a data service. Source: ours."""


PROXIES = tuple(
    field.name for field in dataclasses.fields(Experiment) if isinstance(field.default, ProxyTask)
)
"""The pretext tasks: the inits that stage proxy makes."""

TRAINING = tuple(
    field.name
    for field in dataclasses.fields(Experiment)
    if isinstance(field.default, Optimization)
)
"""The sections of the stages that train."""

LOSSES = (
    "triplet",
    "triplet_all",
    "triplet_semihard",
    "supcon",
    "multi_similarity",
    "softmax",
    "normalized_softmax",
    "cosface",
    "proxy_anchor",
    "pixel_contrast",
)
"""The names in `mm.loss`."""

STARTS = {
    "random": "Random weights, as the layers of the network define them.",
    "imagenet": "ImageNet labels: weights that Keras publishes, or a file.",
    "pretrained": "Published weights of a library, or of a preset folder.",
    "kmeans": "Filters from the training images without labels (Krähenbühl et al. 2016).",
    **{name: inspect.getdoc(getattr(Experiment(), name)).splitlines()[0] for name in PROXIES},
}
"""{init: one line}. A pretext task has the first line of its settings."""

INITS = tuple(STARTS)
"""The values of `network.init`."""


def proxy_task(experiment: Experiment) -> str | None:
    """Return the pretext task that the run trains; None where its weights come from elsewhere."""
    network = experiment.network
    is_needed = network.init in PROXIES and network.init_weights is None
    return network.init if is_needed else None


def uses_xla(experiment: Experiment) -> bool:
    """Return whether any stage that trains asks for XLA."""
    stages = (proxy_task(experiment), "mm", "segment")
    return any(getattr(experiment, stage).jit_compile for stage in stages if stage)


PSEUDO_LABELS = "pseudo_labels"
"""The section of a record with the keys of pseudo-labels, on which few stages depend."""

REST = "rest"
"""The value of `data.pseudo_labels` for the training images that are left out."""

PSEUDO_KEYS = {
    f"data.{name}"
    for name in ("pseudo_labels", "pseudo_threshold", "pseudo_min_share", "pseudo_share")
}
"""The keys of that section."""

FREE_KEYS = {
    "data.data_dir",
    "data.service",
    "mm.probe_every",
    "mm.probe_patches",
    "evaluate.num_pictures",
} | {f"{section}.{key}" for section in TRAINING for key in ("log_every", "checkpoint_every")}
"""Keys that change neither weights nor figures; data_dir gives the place of the same files."""
