"""Load published weights into our networks: `load(model, path)`.

| file | read by |
|---|---|
| `.caffemodel`, V1 and V2 | `mm_keras.weights.caffemodel` |
| `.h5` of Caffe, `.weights.h5` of Keras | h5py |
| `.safetensors` | safetensors |
| `.npz` | numpy |
| `.pth`, `.pt` | torch, where it is installed (extra `torch`) |

The tables of `mm_keras.weights.sources` identify a file's source. Then shapes decide: the network
determines them, so they are known before anything is read.

**Kernels.** (out, in, height, width) becomes (height, width, in, out); a fully connected layer may
be flattened to (out, in * height * width) with channels first, as in Caffe and torch.

**Pixels.** The first layer is rewritten from the pixels p of its training to the pixels q of the
network, if they differ. Both are affine in the image's RGB x: p = A x +
a and q = B x + b. Hence p = M q + m with M = A B^-1, m = a - M b, and a convolution W p + c equals
(W M) q + (c + W m): a change of order (BGR, RGB) flips the kernel's input channels, a change of
scale divides it, a change of mean moves the bias. This is exact except at the border, where the
zeros around the image represent another mean color.

A color kernel in a gray network: q is one number, and so x is taken as gray itself, v in all three
channels. Then p_c = s_c v - m_c and q = t v - n for the scales s, t and means m, n of both, so p_c
= (s_c / t) q + (s_c / t) n - m_c: the kernel is summed over its input channels, each weighted by
s_c / t (the plain sum where the scales are equal), and the means move the bias. The gray network
gives the color network's responses to the gray image. Responses to differences of colors are
lost.

**Bands.** A network of another number of bands than three gets the kernels of
`mm_keras.backbones.more_bands`: band b has the kernel of color b mod 3 times 3 / k, and a single
band the sum of the three, as a gray network above.

Lab is no affine map of RGB. There x is the pixel in Lab, so weights for Lab, or for L alone, load
only into networks with such pixels, and factors and shifts of the file are absorbed.

A gray kernel in a color network is rejected unless `gray_to_color` is True. Then M repeats it over
the channels, a third each, and the network sees the gray image.

**Batch norm.** Caffe's "BatchNorm" stores sums and a factor that divides them; its 4-blob "BN" and
torch store slope, bias, mean and variance. If the file has no batch norm at all, the batch norms
here become the identity: mean 0, variance 1, slope 1, bias 0, up to a factor of 1 / sqrt(1 +
epsilon), 5e-6 below 1. If the file has a batch norm that the network lacks (Larsson's fc6 and fc7
in VGG-16's segmenter), it is folded into the layer before it.
"""

import dataclasses
import fnmatch
import os
import pathlib
from collections.abc import Collection, Iterable
from typing import NamedTuple

import keras
import numpy as np

from mm_keras.backbones.spec import PIXELS, Pixels
from mm_keras.weights import files, layouts
from mm_keras.weights.caffemodel import open_caffemodel
from mm_keras.weights.files import FLOATS, Archive, Stored, WeightsError, reading
from mm_keras.weights.sources import FIRST, SOURCES, Source, detect

__all__ = ["READERS", "SOURCES", "Mismatch", "Report", "WeightsError", "load"]

READERS = {
    ".caffemodel": open_caffemodel,
    ".h5": files.open_hdf5,
    ".npz": files.open_npz,
    ".pt": files.open_torch,
    ".pth": files.open_torch,
    ".safetensors": files.open_safetensors,
}
"""{suffix: function(path) that yields an `Archive`}."""

SHOWN = 12  # entries of a list in messages

_LAB = {"lab", "lightness"}


class Mismatch(NamedTuple):
    """An array of the file that does not fit: its name, its shape, and the shapes that fit."""

    part: str
    shape: tuple[int, ...]
    expected: tuple[tuple[int, ...], ...]

    def __str__(self):
        expected = " or ".join(str(shape) for shape in self.expected)
        return f"{self.part} has shape {self.shape} in the file, expected {expected}"


@dataclasses.dataclass
class Report:
    """The result of `load` for each layer. `str(report)` is one short paragraph.

    Only layers that `allow` names appear in `unexpected`, `missing` and `mismatched`. Our layers
    among them keep their previous values.

    Attributes:
        path: the file.
        source: the table that translated it, a key of `SOURCES`.
        loaded: our layers with values of the file.
        identity: our batch norms that were set to the identity, since the file has none.
        folded: our layers that a batch norm of the file was multiplied into.
        skipped: known layers of the file that the network does not need.
        notes: the changes to the first layer.
        unexpected: layers or parts of the file that the table does not know.
        missing: our layers without values in the file.
        mismatched: {our layer: `Mismatch`}.
    """

    path: str
    source: str
    loaded: list[str] = dataclasses.field(default_factory=list)
    identity: list[str] = dataclasses.field(default_factory=list)
    folded: list[str] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    unexpected: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    mismatched: dict[str, Mismatch] = dataclasses.field(default_factory=dict)

    def problems(self) -> dict[str, str]:
        """Return {layer, or layer/part: its problem}."""
        return (
            {name: str(mismatch) for name, mismatch in self.mismatched.items()}
            | dict.fromkeys(self.missing, "is missing in the file")
            | dict.fromkeys(self.unexpected, "is in the file and not expected there")
        )

    def __str__(self):
        lists = {
            "batch norms set to identity": self.identity,
            "batch norms folded into": self.folded,
            "skipped": self.skipped,
            "unexpected": self.unexpected,
            "missing": self.missing,
            "mismatched": [f"{name} ({wrong})" for name, wrong in self.mismatched.items()],
        }
        parts = [f"{pathlib.Path(self.path).name} ({self.source}): loaded {_shown(self.loaded)}"]
        parts += [f"{title} {_shown(names)}" for title, names in lists.items() if names]
        return "; ".join(parts + self.notes) + "."


def _shown(names):
    names = list(names)
    if len(names) <= SHOWN:
        return ", ".join(names) or "nothing"
    return f"{len(names)} layers ({names[0]}, {names[1]}, ... {names[-1]})"


def load(
    model: keras.Model,
    path: str | os.PathLike,
    source: str | None = None,
    allow: Iterable[str] = (),
    *,
    among: Collection[str] = (),
    gray_to_color: bool = False,
) -> Report:
    """Load the weights of a file into a network, by the names of its layers.

    The network changes only if all checks pass.

    Args:
        model: a backbone, a segmenter or any built model that contains our layers. The spec of its
            backbone determines its pixels.
        path: `.caffemodel`, `.h5`, `.weights.h5`, `.safetensors`, `.npz`, `.pth` or `.pt`.
        source: a key of `mm_keras.weights.sources.SOURCES`. By default it is detected from the
            file's layers. Plain AlexNet files of several works look alike; they need it, or
            `among`.
        allow: glob patterns of layers that may be unexpected, missing or mismatched, for example
            ("fc*", "score"). These layers of the network keep their values.
        among: sources that are possible where `source` is None; empty for all of them.
        gray_to_color: whether a first layer for gray pixels may be spread over color channels.

    Returns:
        `Report`.

    Raises:
        WeightsError: if the file cannot be read or exceeds a limit, its source is ambiguous, a
            value is not finite, or something unexpected, missing or mismatched is not allowed. The
            message names the file, the layer and both shapes.

    Example:

    >>> from mm_keras import backbones
    >>> backbone = backbones.build("vgg16", pixels="gray")  # doctest: +SKIP
    >>> print(load(backbone, "vgg16_colorize.caffemodel"))  # doctest: +SKIP
    """
    path = os.fspath(path)
    allow = (allow,) if isinstance(allow, str) else tuple(allow)
    with _opened(path) as archive:
        source = source or detect(archive, path, among)
        plan = _Plan(model, archive, path, source, gray_to_color)
        plan.reject_problems(allow)
        values = plan.read()
    for variable, value in values:
        variable.assign(value)
    return plan.report


def _opened(path):
    suffix = pathlib.Path(path).suffix
    if suffix not in READERS:
        raise WeightsError(f"{path}: unknown kind of file; known: {', '.join(READERS)}.")
    return READERS[suffix](path)


class _Plan:
    """Which array is read for which layer, planned from shapes alone.

    Attributes:
        steps: {our layer: (its slot, {role: Stored})}.
        report: `Report` of the plan.
    """

    def __init__(self, model, archive: Archive, path, source, gray_to_color):
        self.model, self.path, self.kind = model, path, archive.kind
        self.report, self.steps = Report(path, source), {}
        self.network = dict(_layers_with_weights(model))
        table = _table(source, archive, path)
        self.found = self._translated(archive, table)
        self.change = self._pixel_change(archive, table, gray_to_color)
        self.has_norms = any(name.startswith("batch_") for name in self.found)
        for name, layer in self.network.items():
            self._plan(name, layer)
        self.report.skipped += self._left_over()

    def _translated(self, archive, table: Source) -> dict[str, dict[str, Stored]]:
        """Return {our layer: {role: Stored}} of known layers. Add the others to the report."""
        found, origin = {}, {}
        for layer, parts in archive.layers.items():
            name = table.names.get(layer, None if table.names else layer)
            if layer == table.pixel_layer:
                continue  # `_expected_pixels` reads it
            if any(fnmatch.fnmatchcase(layer, pattern) for pattern in table.ignored):
                self.report.skipped.append(layer)
            elif name is None or not (table.names or name in self.network):
                self.report.unexpected.append(layer)
            elif origin.setdefault(name, layer) != layer:
                raise WeightsError(
                    f"{self.path}: {origin[name]} and {layer} both stand for {name}."
                )
            else:
                found[name] = _roles(archive.kind, parts)
        return found

    def _pixel_change(self, archive, table: Source, gray_to_color):
        """Return the change from the file's pixels to the network's.

        It is None if they are equal, or one of them is unknown.
        """
        spec = _spec(self.model)
        if archive.kind == "variables":
            return self._change_of_own(spec)
        first = next((layer for layer in archive.layers if layer in table.pixels), None)
        stored = self.found.get(table.names.get(first), {}).get("weight")
        if spec is None or stored is None or len(stored.shape) != 4:
            return None
        expected = _expected_pixels(self.path, archive, table, first, stored.shape[1])
        if expected is None or _same_pixels(expected, spec.pixels):
            return None
        if table.variant is not None:
            raise WeightsError(
                f"{self.path} ({self.report.source}) needs the variant of the network that "
                f"pixels={_described(table.variant)!r} select. Received {self.model.name} with "
                f"pixels {_described(spec.pixels)}."
            )
        if expected.color != spec.pixels.color and _LAB & {expected.color, spec.pixels.color}:
            raise WeightsError(
                f"{self.path}: {stored.name} expects {_described(expected)} pixels; "
                f"{self.model.name} gives it {_described(spec.pixels)} pixels. No change of the "
                "kernel can replace Lab, which is no linear map of RGB. Build the network with "
                f"pixels={expected.color!r}."
            )
        color = (spec.pixels.of_color or spec.pixels).color
        is_spread = expected.color == "gray" and color != "gray"
        if is_spread and not gray_to_color:
            raise WeightsError(
                f"{self.path}: {stored.name} has shape {stored.shape}, for one gray channel; "
                f"{self.model.name} gives it three. Build the network with pixels='gray', or ask "
                "for gray_to_color."
            )
        self.report.notes.append(
            f"{table.names[first]} rewritten from {_described(expected)} to "
            f"{_described(spec.pixels)} pixels"
        )
        return layouts.PixelChange.between(expected, spec.pixels)

    def _change_of_own(self, spec):
        """Return the change from color or gray pixels for a network of bands, else None.

        Keras' own file has the shapes of the kernels. Its pixels are assumed to be of the network's
        kind.
        """
        name = next((name for name in FIRST if name in self.found), None)
        if spec is None or spec.pixels.of_color is None or name is None:
            return None
        stored, color = self.found[name].get("0"), spec.pixels.of_color
        num_channels = 1 if color.color == "gray" else 3
        if stored is None or len(stored.shape) != 4 or stored.shape[2] != num_channels:
            return None
        if num_channels == spec.num_bands:
            return None
        self.report.notes.append(
            f"{name} rewritten from {_described(color)} pixels to {spec.num_bands} bands"
        )
        return layouts.PixelChange.between(color, spec.pixels)

    def _plan(self, name, layer):
        """Add the step for one layer of the network, or its problem to the report."""
        stored = self.found.get(name)
        if stored is None and self._is_identity(name, layer):
            self.report.identity.append(name)
            self.steps[name] = layouts.slot(layer), {}
            return
        slot = self._slot(name, layer) if stored is not None else None
        if slot is None:
            self.report.missing.append(name)
            return
        norm = self.found.get(f"batch_{name}")
        if norm and f"batch_{name}" not in self.network:
            slot = layouts.folding(slot, layer)
            stored = stored | {f"norm_{role}": array for role, array in norm.items()}
        if self._fits(name, slot, stored):
            self.report.loaded.append(name)
            self.report.folded += [name] if "norm_mean" in stored else []
            self.steps[name] = slot, {r: a for r, a in stored.items() if r in slot.shapes}

    def _slot(self, name, layer):
        if self.kind == "variables":
            return layouts.keras_slot(layer, self.change if name in FIRST else None)
        reads_pixels = name in (*FIRST, "hypercolumn")
        return layouts.slot(layer, self.change if reads_pixels else None)

    def _is_identity(self, name, layer):
        """Return whether a batch norm becomes the identity: the file has only the layer before."""
        return (
            layouts.is_batch_norm(layer)
            and self.kind != "variables"
            and not self.has_norms
            and name.removeprefix("batch_") in self.found
        )

    def _fits(self, name, slot, stored):
        """Return whether a layer's parts fit its slot, in presence and shape."""
        missing = slot.shapes.keys() - stored.keys() - slot.optional
        extra = [array.name for role, array in stored.items() if role not in slot.shapes]
        wrong = [
            Mismatch(array.name, array.shape, slot.shapes[role])
            for role, array in stored.items()
            if role in slot.shapes and array.shape not in slot.shapes[role]
        ]
        self.report.missing += sorted(f"{name}/{role}" for role in missing)
        self.report.unexpected += extra
        if wrong:
            self.report.mismatched[name] = wrong[0]
        return not (missing or wrong)

    def _left_over(self):
        """Return the known layers of the file that the network lacks."""
        folded = {f"batch_{name}" for name in self.report.folded}
        return [name for name in self.found if name not in self.network and name not in folded]

    def reject_problems(self, allow):
        """Raise a `WeightsError` for anything unexpected, missing or mismatched, unless allowed."""
        wrong = [
            f"{name} {problem}"
            for name, problem in self.report.problems().items()
            if not any(
                fnmatch.fnmatchcase(candidate, pattern)
                for pattern in allow
                for candidate in (name, name.rpartition("/")[0])
            )
        ]
        if not wrong:
            return
        more = f"\n  ... and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise WeightsError(
            f"{self.path} ({self.report.source}) does not fit {self.model.name}; allow by name "
            "the layers to leave out:" + "".join(f"\n  {line}" for line in wrong[:SHOWN]) + more
        )

    def read(self) -> list:
        """Return [(variable, its new value)] of all steps."""
        values = []
        for name, (slot, stored) in self.steps.items():
            arrays = {role: _finite(self.path, array) for role, array in stored.items()}
            try:
                values += slot.convert(arrays)
            except WeightsError as error:
                raise WeightsError(f"{self.path}: layer {name}: {error}.") from error
        return values


def _table(source, archive, path) -> Source:
    if source not in SOURCES:
        raise WeightsError(f"{path}: unknown source {source!r}; known: {', '.join(SOURCES)}.")
    table = SOURCES[source]
    if table.kind != archive.kind:
        raise WeightsError(
            f"{path}: source {source!r} names {table.kind}; the file holds {archive.kind}."
        )
    return table


def _layers_with_weights(model):
    """Yield (name, layer) of the innermost layers that have weights.

    Raises:
        ValueError: if two layers have one name, so that a file cannot distinguish them.
    """
    seen = {}
    stack = [model]
    while stack:
        layer = stack.pop()
        inner = getattr(layer, "layers", None)
        if inner:
            stack += reversed(inner)
        elif layer.weights:
            if seen.setdefault(layer.name, layer) is not layer:
                raise ValueError(f"Two layers of {model.name} are called {layer.name!r}.")
            yield layer.name, layer


def _spec(model):
    """Return the `BackboneSpec` of a backbone, or of the backbone of a model."""
    return getattr(model, "spec", None) or getattr(getattr(model, "backbone", None), "spec", None)


def _roles(kind, parts: dict[str, Stored]) -> dict[str, Stored]:
    """Return the parts of a layer by role. Parts without a role keep their name."""
    if kind == "variables":
        return parts
    if kind == "tensors":
        return {
            layouts.TENSOR_ROLES.get(part, part): stored
            for part, stored in parts.items()
            if part != "num_batches_tracked"  # a counter of torch's training
        }
    roles = layouts.BLOB_ROLES.get(len(parts), ())
    return {
        roles[int(part)] if int(part) < len(roles) else part: stored
        for part, stored in parts.items()
    }


def _expected_pixels(path, archive, table: Source, first, num_channels) -> Pixels | None:
    """Return the pixels that the first layer of a file expects, None if they are unknown."""
    known = table.pixels[first]
    if not table.pixel_layer:
        return known.get(num_channels)
    if num_channels not in known:
        raise WeightsError(
            f"{path}: {first} has {num_channels} input channels, expected {min(known)} in a file "
            f"with {table.pixel_layer}."
        )
    parts = archive.layers.get(table.pixel_layer, {})
    shapes = ((num_channels, 1, 1, 1), (num_channels,), (1, 1, 1, num_channels))
    if set(parts) != {"0", "1"} or not all(part.shape in shapes for part in parts.values()):
        found = {name: part.shape for name, part in parts.items()} or "no such layer"
        raise WeightsError(
            f"{path}: {table.pixel_layer} must hold {num_channels} factors and {num_channels} "
            f"shifts of the pixels. Received {found}."
        )
    factors, shifts = (_finite(path, parts[part]).reshape(-1) for part in ("0", "1"))
    if not factors.all():
        raise WeightsError(f"{path}: {table.pixel_layer} multiplies the pixels by zero.")
    # One channel for "lightness": `Pixels` has three values or one.
    scale, mean = (tuple(map(float, np.broadcast_to(v, 3))) for v in (factors, -shifts))
    return dataclasses.replace(known[num_channels], scale=scale, mean=mean)


def _same_pixels(one, other):
    if other.of_color is not None:
        return False
    return one.color == other.color and all(
        np.array_equal(np.broadcast_to(a, 3), np.broadcast_to(b, 3))
        for a, b in ((one.scale, other.scale), (one.mean, other.mean))
    )


def _described(pixels):
    """Return the name of pixels in `PIXELS`, or a description."""
    if pixels.of_color is not None:
        return f"{pixels.num_bands} bands, as {_described(pixels.of_color)},"
    names = [name for name, known in PIXELS.items() if known == pixels]
    return names[0] if names else f"{pixels.color} x {pixels.scale} - {pixels.mean}"


def _finite(path, stored: Stored) -> np.ndarray:
    """Return an array of the file as float32.

    Raises:
        WeightsError: if it is no array of floats, cannot be read, or has a value that is not
            finite.
    """
    if stored.dtype not in FLOATS:
        raise WeightsError(f"{path}: {stored.name} has dtype {stored.dtype}, expected floats.")
    with reading(path, stored.name), np.errstate(over="ignore"):
        values = np.asarray(stored.read(), dtype="float32")
    if values.shape != stored.shape:
        raise WeightsError(f"{path}: {stored.name} has shape {values.shape}, not {stored.shape}.")
    if not np.isfinite(values).all():
        raise WeightsError(f"{path}: {stored.name} has values that are not finite in float32.")
    return values
