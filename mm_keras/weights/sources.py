"""Tables of the published weight files and of their layers' names here.

A `Source` translates the layers of one kind of file. To read another kind, add its table to
`SOURCES`. `mm_keras.weights.loading` needs no other change; it works from shapes alone.
"""

import dataclasses
import fnmatch
from collections.abc import Collection

from mm_keras.backbones.spec import PIXELS, Pixels
from mm_keras.weights.files import Archive, WeightsError


@dataclasses.dataclass(frozen=True)
class Source:
    """One kind of weight file.

    Attributes:
        about: a description for error messages.
        kind: kind of the `Archive`: "blobs", "tensors" or "variables".
        names: {the file's layer: our layer}. A layer that the network lacks is skipped.
        pixels: {the file's first layer: {its input channels: the pixels that its weights expect}}.
        ignored: glob patterns of known layers that are never read.
        pixel_layer: layer of 1 x 1 before the first one, one factor and one shift for each channel.
            The weights then expect the pixels of `pixels`, without their scale and mean, times the
            factor plus the shift. Empty if the file has none.
        variant: the pixels that select the variant of the network which the weights need, None if
            every variant fits.
        signs: alternatives, each of which identifies the source: (patterns that must match,
            patterns that must not match), on "<layer>:<number of parts>".
    """

    about: str
    kind: str
    names: dict[str, str]
    pixels: dict[str, dict[int, Pixels]] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    pixel_layer: str = ""
    variant: Pixels | None = None
    signs: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()


VGG16 = tuple(f"conv{k}_{i}" for k, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1))
ALEXNET = tuple(f"conv{k}" for k in range(1, 6))
FULLY_CONNECTED = ("fc6", "fc7")
FIRST = ("conv1", "conv1_1")
"""Our names of the layers that read pixels."""


def _same(*names: str) -> dict[str, str]:
    """Return the names of layers, and of their batch norms, that are equal here."""
    return {name: name for layer in names for name in (layer, f"batch_{layer}")}


def _torchvision(features: dict[str, tuple[int, ...]], classifier: tuple[int, int]):
    """Return the names of features.<k> and classifier.<k>, by their place in torchvision."""
    names = {
        f"features.{k}": f"{prefix}{layer}"
        for prefix, places in features.items()
        for k, layer in zip(places, VGG16 if len(places) == 13 else ALEXNET, strict=True)
    }
    return names | {
        f"classifier.{k}": name for k, name in zip(classifier, FULLY_CONNECTED, strict=True)
    }


_VGG16_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_VGG16_BN_PLACES = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)

# Larsson et al. center the gray pixel as the M&M release does (its train_graph.prototxt); their
# color variants are stored BGR (gustavla/self-supervision, selfsup/caffe.py).
_LARSSON_BGR = dataclasses.replace(PIXELS["gray"], color="bgr")

# Layers of files that are no plain AlexNet: batch norm, jigsaw branches, heads, and the scaled Lab
# pixels of Zhang et al.
_NOT_PLAIN = ("batch_*", "*_s[1-9]:*", "h_fc1:*", "ip_column:*", "data_l:*", "data_lab:*")
_PLAIN_ALEXNET = ((("conv1:2", "conv5:2"), _NOT_PLAIN),)
"""No mark distinguishes these files, so that several sources show this sign."""

_GRAY_OR_BGR = {1: PIXELS["gray"], 3: PIXELS["bgr"]}

SOURCES = {
    "larsson": Source(
        about="colorization of Larsson et al. (gustavla/self-supervision and autocolorize), VGG-16 "
        "or AlexNet, Caffe .h5",
        kind="blobs",
        names=_same(*VGG16, *ALEXNET, *FULLY_CONNECTED),
        pixels=dict.fromkeys(FIRST, {1: PIXELS["gray"], 3: _LARSSON_BGR}),
        ignored=("h_fc1", "prediction_*"),
        signs=(
            (("batch_conv1_*:3",), ("ip_column:*",)),
            (("batch_conv?:3", "fc6:*"), ("fc8*", "*_s1:*")),
            (("h_fc1:*", "prediction_*"), ()),
        ),
    ),
    "noroozi": Source(
        about="jigsaw puzzles of Noroozi and Favaro (MehdiNoroozi/JigsawPuzzleSolver), nine equal "
        "branches of which the first is read",
        kind="blobs",
        names={f"{layer}_s1": layer for layer in ALEXNET},
        pixels={"conv1_s1": {3: PIXELS["jigsaw"]}},
        # fc6 reads a tile and fc7 nine of them: neither is the fc6 or fc7 of a segmenter.
        ignored=("conv?_s[2-9]", "fc6_s?", "fc7", "fc8"),
        signs=((("conv?_s1:*",), ("batch_*",)),),
    ),
    "mm_release": Source(
        about="the M&M authors' graph_iter_* and seg_iter_* snapshots "
        "(XiaohangZhan/mix-and-match), VGG-16 or AlexNet",
        kind="blobs",
        names=_same(*VGG16, *ALEXNET, *FULLY_CONNECTED)
        | {f"{layer}_s1": layer for layer in ALEXNET}
        | {"conv_add1": "conv_add1", "conv_add2": "conv_add2", "ip_column": "hypercolumn"}
        | {"score_column": "score", "fc8-voc": "score"},
        pixels=dict.fromkeys(FIRST, _GRAY_OR_BGR) | {"conv1_s1": {3: PIXELS["jigsaw"]}},
        signs=(
            (("batch_conv*:4",), ()),
            (("ip_column:*",), ()),
            (("batch_conv?:3", "fc8-voc:*"), ()),
            (("batch_conv?:3", "conv?_s1:*"), ()),
            (("batch_conv?:3",), ("fc6:*", "fc8*", "*_s1:*", "batch_conv?_?:*")),
        ),
    ),
    "caffe": Source(
        about="plain Caffe networks without batch norm (BVLC's AlexNet and CaffeNet, VGG-16)",
        kind="blobs",
        names=_same(*VGG16, *ALEXNET, *FULLY_CONNECTED),
        pixels=dict.fromkeys(FIRST, _GRAY_OR_BGR),
        ignored=("fc8*",),
        signs=((("conv[1-5]*:2",), _NOT_PLAIN),),
    ),
    "zhang_color": Source(
        about="color classes of Zhang et al. 2016a (richzhang/colorization, "
        "alexnet_release_*_nobn_rs), AlexNet on lightness",
        kind="blobs",
        names=_same(*ALEXNET, *FULLY_CONNECTED),
        pixels={"conv1": {1: PIXELS["lightness"]}},
        ignored=("fc8*",),
        pixel_layer="data_l",
        signs=((("data_l:2", "conv1:2"), ("data_lab:*", "batch_*")),),
    ),
    "zhang_split_brain": Source(
        about="split-brain autoencoder of Zhang et al. 2016b (richzhang/splitbrainauto, "
        "model_splitbrainauto_clcl*), AlexNet on Lab",
        kind="blobs",
        names=_same(*ALEXNET, *FULLY_CONNECTED),
        pixels={"conv1": {3: PIXELS["lab"]}},
        ignored=("fc8*",),
        pixel_layer="data_lab",
        signs=((("data_lab:2", "conv1:2"), ("data_l:*", "batch_*")),),
    ),
    "pathak_context_encoder": Source(
        about="context encoder of Pathak et al. 2016 (pathak22/context-encoder, ce_features), "
        "AlexNet",
        kind="blobs",
        names=_same(*ALEXNET),
        pixels={"conv1": {3: PIXELS["bgr"]}},
        signs=_PLAIN_ALEXNET,
    ),
    "donahue_bigan": Source(
        about="BiGAN of Donahue et al. 2017 (jeffdonahue/bigan, *_encode_params), AlexNet with "
        "LeakyReLU",
        kind="blobs",
        names=_same(*ALEXNET, *FULLY_CONNECTED),
        pixels={"conv1": {3: PIXELS["bigan"]}},
        ignored=("fc8*",),
        variant=PIXELS["bigan"],
        signs=_PLAIN_ALEXNET,
    ),
    "pathak_video": Source(
        about="moving objects of Pathak et al. 2017 (pathak22/unsupervised-video), AlexNet",
        kind="blobs",
        names=_same(*ALEXNET, *FULLY_CONNECTED),
        pixels={"conv1": {3: PIXELS["torch"]}},
        ignored=("fc8*",),
        signs=_PLAIN_ALEXNET,
    ),
    "torchvision_vgg16": Source(
        about="torchvision's vgg16",
        kind="tensors",
        names=_torchvision({"": _VGG16_PLACES}, classifier=(0, 3)),
        pixels={"features.0": {3: PIXELS["torch"]}},
        ignored=("classifier.6",),
        signs=((("features.2:*", "features.28:*"), ("features.1:*", "features.3?:*")),),
    ),
    "torchvision_vgg16_bn": Source(
        about="torchvision's vgg16_bn",
        kind="tensors",
        names=_torchvision(
            {"": _VGG16_BN_PLACES, "batch_": tuple(k + 1 for k in _VGG16_BN_PLACES)},
            classifier=(0, 3),
        ),
        pixels={"features.0": {3: PIXELS["torch"]}},
        ignored=("classifier.6",),
        signs=((("features.1:*", "features.41:*"), ("features.4[3-9]:*",)),),
    ),
    "torchvision_alexnet": Source(
        about="torchvision's alexnet, of one column",
        kind="tensors",
        names=_torchvision({"": (0, 3, 6, 8, 10)}, classifier=(1, 4)),
        pixels={"features.0": {3: PIXELS["torch"]}},
        ignored=("classifier.6",),
        signs=((("features.6:*", "features.8:*"), ("features.[25]:*", "features.1[1-9]:*")),),
    ),
    "keras": Source(
        about="a .weights.h5 that Keras wrote of these networks, layers called as here",
        kind="variables",
        names={},
    ),
}
"""{name: `Source`}. The table of "keras" is empty: its layers have the names of the network."""


def detect(archive: Archive, path, among: Collection[str] = ()) -> str:
    """Return the name of the one source whose signs match an archive.

    Args:
        archive: the layers of the file.
        path: the file, for messages.
        among: the sources that are possible; empty for all of them.

    Raises:
        WeightsError: if no source matches, several do, or the only one is not among the possible
            ones. The message lists the known sources.
    """
    found = _matching(archive)
    fitting = [name for name in found if not among or name in among]
    if len(fitting) == 1:
        return fitting[0]
    if fitting or not found:
        listed = "".join(f"\n  {name}: {SOURCES[name].about}" for name in fitting or SOURCES)
        reason = f"could be any of {', '.join(fitting)}" if fitting else "is of no known source"
        shown = ", ".join(list(archive.layers)[:8])
        raise WeightsError(f"{path}: {reason} ({shown}, ...). Give `source`, one of:{listed}")
    raise WeightsError(
        f"{path}: is of source {' or '.join(found)}, expected {' or '.join(among)}. Use a file of "
        "the right work, or give `source`."
    )


def _matching(archive):
    """Return the names of all sources whose signs match."""
    if archive.kind == "variables":
        return ["keras"]
    marks = [f"{layer}:{len(parts)}" for layer, parts in archive.layers.items()]
    return [
        name
        for name, source in SOURCES.items()
        if source.kind == archive.kind and any(_shows(marks, *sign) for sign in source.signs)
    ]


def _shows(marks, present, absent):
    return all(fnmatch.filter(marks, pattern) for pattern in present) and not any(
        fnmatch.filter(marks, pattern) for pattern in absent
    )
