"""Losses on the features of labelled patches, with the layers that only the loss needs.

`Objective` is the sum of one or more terms. Its layers (the projection, and the hubs: one vector
per class) belong to the training step alone. The tuned backbone does not contain them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras

from mm_keras import losses
from mm_keras import matching as matchings

TEMPERATURES = {
    "supcon": 0.1,
    "normalized_softmax": 0.05,
    "cosface": 1 / 64,
    "proxy_anchor": 1 / 32,
}
"""{loss: its temperature in its publication}; see `mm_keras.losses`."""

MARGINS = {"triplet_semihard": 0.2, "cosface": 0.35, "proxy_anchor": 0.1}
"""{loss: its margin in its publication}, of squared distances or of cosines."""


class TripletSettings(NamedTuple):
    """The arguments of the losses `triplet` and `triplet_all`.

    Attributes:
        matching: function(labels, seed) -> `mm_keras.matching.Triplets`.
        margin: margin of the squared distances.
        scale: "paper" or "release", see `mm_keras.losses.triplet_margin`.
        reduce: see `AllTriplets`. It applies to `triplet_all` alone: in a sum of losses, the
            training step joins the nodes.
    """

    matching: Callable = matchings.class_connected
    margin: float = 2.1
    scale: str = "paper"
    reduce: Callable | None = None


class GraphTriplets(keras.layers.Layer):
    """The triplet loss over one class-wise connected graph (Eq. 1 of the M&M paper).

    Args:
        matching: function(labels, seed) -> `mm_keras.matching.Triplets`.
        seed: `keras.random.SeedGenerator` of the graphs.
        margin, scale: see `mm_keras.losses.triplet_margin`.
    """

    def __init__(self, matching, seed, margin, scale, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.matching, self.seed_generator = matching, seed
        self.margin, self.loss_scale = margin, scale

    def call(self, features, embeddings, labels):
        """Return the loss, float32 scalar; see `Objective`."""
        triplets = self.matching(labels, self.seed_generator)
        return losses.triplet_margin(embeddings, triplets, self.margin, self.loss_scale)


class AllTriplets(keras.layers.Layer):
    """The triplet loss in expectation over all graphs, see `mm_keras.losses.all_triplets`.

    Args:
        num_classes: number of classes.
        margin, scale: see `mm_keras.losses.triplet_margin`.
        reduce: function(`mm_keras.losses.ClassSums`) -> `ClassSums`, for example the sum over
            replicas.
    """

    def __init__(self, num_classes: int, margin: float, scale: str, reduce=None, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.num_classes, self.margin, self.loss_scale = num_classes, margin, scale
        self.reduce = reduce or (lambda sums: sums)

    def call(self, features, embeddings, labels):
        """Return the loss, float32 scalar; see `Objective`."""
        sums = losses.class_sums(embeddings, labels, self.num_classes)
        return losses.all_triplets(self.reduce(sums), self.margin, self.loss_scale)


class OfPairs(keras.layers.Layer):
    """A loss of unit vectors and their labels, without weights.

    Args:
        function: function(embeddings, labels) -> float32 scalar.
    """

    def __init__(self, function: Callable, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.function = function

    def call(self, features, embeddings, labels):
        """Return the loss, float32 scalar; see `Objective`."""
        return self.function(embeddings, labels)


class Softmax(keras.layers.Layer):
    """The cross-entropy of one linear layer on the features.

    The row of a class in the layer's kernel is a hub: a node to which all patches of its class are
    connected.

    Args:
        num_classes: number of classes.
        seed: of the first weights.
    """

    def __init__(self, num_classes: int, seed: int, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.hubs = keras.layers.Dense(
            num_classes,
            kernel_initializer=keras.initializers.GlorotUniform(seed),
            dtype="float32",
            name="hubs",
        )

    def build(self, shape):
        self.hubs.build(shape)
        self.built = True

    def call(self, features, embeddings, labels):
        """Return the loss, float32 scalar; see `Objective`."""
        return losses.pixel_cross_entropy(labels, self.hubs(features))


class CosineHubs(keras.layers.Layer):
    """A loss of unit vectors and one vector of unit length per class, its hub.

    Args:
        function: function(embeddings, hubs, labels) -> float32 scalar.
        num_classes: number of classes.
        seed: of the first hubs, which are uniform on the sphere.
    """

    def __init__(self, function: Callable, num_classes: int, seed: int, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.function, self.num_classes, self.seed = function, num_classes, seed

    def build(self, shape):
        # Of a length near 1, so that a step turns a hub as far as it turns an embedding.
        initializer = keras.initializers.RandomNormal(stddev=shape[-1] ** -0.5, seed=self.seed)
        self.hubs = self.add_weight(
            shape=(self.num_classes, shape[-1]), initializer=initializer, name="hubs"
        )
        self.built = True

    def call(self, features, embeddings, labels):
        """Return the loss, float32 scalar; see `Objective`."""
        return self.function(embeddings, losses.unit(self.hubs), labels)


class Objective(keras.layers.Layer):
    """The sum of losses on the features of labelled patches.

    Features pass through the projection first. Pair losses then take vectors of unit length, while
    `softmax` takes the output of the projection as it is. Everything is computed in float32. Nodes
    with label 255 are left out.

    Args:
        terms: layers that are called with (features [N, D], embeddings [N, D] of unit length,
            labels [N]) and return a float32 scalar.
        projection: sizes of dense layers with a ReLU between them, the last one without. Empty for
            no projection.
        seed: of the first weights.

    Example:

    >>> import numpy as np
    >>> objective = build("softmax+supcon", num_classes=3, projection=(8, 4))
    >>> loss, embeddings = objective(np.ones((5, 16), "float32"), np.array([0, 0, 1, 2, 255]))
    >>> embeddings.shape == (5, 4)
    True
    """

    def __init__(
        self,
        terms: Sequence[keras.layers.Layer],
        projection: Sequence[int] = (),
        seed: int = 0,
        name="objective",
    ):
        super().__init__(name=name, dtype="float32")
        self.terms = list(terms)
        self.projection = [
            keras.layers.Dense(
                units,
                activation="relu" if k < len(projection) else None,
                kernel_initializer=keras.initializers.HeNormal(seed + k),
                dtype="float32",
                name=f"projection_{k}",
            )
            for k, units in enumerate(projection, start=1)
        ]

    @property
    def hubs(self) -> keras.layers.Dense | None:
        """The linear layer of the term `softmax`, on the projected features; None without it."""
        layers = [term.hubs for term in self.terms if isinstance(term, Softmax)]
        return layers[0] if layers else None

    @property
    def adds_over_replicas(self) -> bool:
        """Whether the terms reduce sums over replicas and need no joint batch."""
        return all(isinstance(term, AllTriplets) for term in self.terms)

    def build(self, features_shape, labels_shape=None):
        """Make the weights for features [N, D].

        Raises:
            ValueError: if D is not known, or 0.
        """
        num_features = features_shape[-1]
        if not num_features:
            raise ValueError(
                f"The loss needs features of a known size above 0. Received {features_shape}. Use "
                "larger patches, or another embedding."
            )
        shape = (None, num_features)
        for layer in self.projection:
            layer.build(shape)
            shape = (None, layer.units)
        for term in self.terms:
            term.build(shape)
        self.built = True

    def call(self, features, labels):
        """Return the sum of the terms, and the embeddings.

        Args:
            features: float32 [N, D].
            labels: integer tensor [N].

        Returns:
            (float32 scalar, float32 [N, D'] of unit vectors).
        """
        for layer in self.projection:
            features = layer(features)
        embeddings = losses.unit(features)
        return sum(term(features, embeddings, labels) for term in self.terms), embeddings


def build(
    loss: str,
    num_classes: int,
    projection: Sequence[int] = (),
    temperature: float | None = None,
    margin: float | None = None,
    triplets: TripletSettings | None = None,
    seed: int = 0,
) -> Objective:
    """Build the objective of one or several losses.

    Args:
        loss: names of `TERMS`, joined by "+".
        num_classes: number of classes.
        projection: see `Objective`.
        temperature: of the losses in `TEMPERATURES`; None for their own.
        margin: of the losses in `MARGINS`; None for their own.
        triplets: of the losses `triplet` and `triplet_all`; None for the defaults.
        seed: of the first weights and of the graphs.

    Raises:
        ValueError: if a name is unknown.
    """
    names = loss.split("+")
    unknown = [name for name in names if name not in TERMS]
    if unknown:
        raise ValueError(f"Unknown loss {unknown[0]!r}; expected one of {', '.join(TERMS)}.")
    triplets = triplets or TripletSettings()
    if len(names) > 1:
        triplets = triplets._replace(reduce=None)
    given = _Given(num_classes, tuple(projection), temperature, margin, triplets, seed)
    return Objective([TERMS[name](name, given) for name in names], projection, seed)


class _Given(NamedTuple):
    """The arguments of `build` that its terms use."""

    num_classes: int
    projection: tuple[int, ...]
    temperature: float | None
    margin: float | None
    triplets: TripletSettings
    seed: int

    def function(self, name, function, temperature=False, margin=False):
        """Return a function of `mm_keras.losses` with temperature and margin, where it has them."""
        arguments = {}
        if temperature:
            own = TEMPERATURES[name]
            arguments["temperature"] = own if self.temperature is None else self.temperature
        if margin:
            arguments["margin"] = MARGINS[name] if self.margin is None else self.margin
        return functools.partial(function, **arguments)


def _triplet(name, given):
    matching, margin, scale, _ = given.triplets
    seed = keras.random.SeedGenerator(given.seed)
    return GraphTriplets(matching, seed, margin, scale, name=name)


def _triplet_all(name, given):
    _, margin, scale, reduce = given.triplets
    if has_linear_hinge(margin, given.projection):
        return AllTriplets(given.num_classes, margin, scale, reduce, name=name)
    function = functools.partial(losses.all_triplets_hinge, margin=margin, scale=scale)
    return OfPairs(function, name=name)


def has_linear_hinge(margin: float, projection: Sequence[int]) -> bool:
    """Return whether the hinge of no triplet is zero at this margin.

    Squared distances of unit vectors are at most 2 after a ReLU, and at most 4 after a projection.
    """
    return margin >= (4 if projection else 2)


def _triplet_semihard(name, given):
    return OfPairs(given.function(name, losses.triplet_semihard, margin=True), name=name)


def _supcon(name, given):
    return OfPairs(given.function(name, losses.supcon, temperature=True), name=name)


def _multi_similarity(name, given):
    return OfPairs(losses.multi_similarity, name=name)


def _softmax(name, given):
    return Softmax(given.num_classes, given.seed, name=name)


def _normalized_softmax(name, given):
    function = given.function(name, losses.normalized_softmax, temperature=True)
    return CosineHubs(function, given.num_classes, given.seed, name=name)


def _cosface(name, given):
    function = given.function(name, losses.normalized_softmax, temperature=True, margin=True)
    return CosineHubs(function, given.num_classes, given.seed, name=name)


def _proxy_anchor(name, given):
    function = given.function(name, losses.proxy_anchor, temperature=True, margin=True)
    return CosineHubs(function, given.num_classes, given.seed, name=name)


TERMS = {
    "triplet": _triplet,
    "triplet_all": _triplet_all,
    "triplet_semihard": _triplet_semihard,
    "supcon": _supcon,
    "multi_similarity": _multi_similarity,
    "softmax": _softmax,
    "normalized_softmax": _normalized_softmax,
    "cosface": _cosface,
    "proxy_anchor": _proxy_anchor,
}
"""{name: function(name, arguments) -> layer}."""
