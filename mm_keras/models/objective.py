"""Losses on the features of labelled patches, with the layers that only the loss needs.

`Objective` is the sum of one or more terms. Its layers (the projection, and the hubs: one vector
per class) belong to the training step alone. The tuned backbone does not contain them.
"""

import functools
from collections.abc import Callable, Sequence

import keras

from mm_keras import losses
from mm_keras import matching as matchings

TEMPERATURES = {"supcon": 0.1}
"""{term: its temperature in its publication}."""


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
    seed: int = 0,
    **graph,
) -> Objective:
    """Build the objective of one or several losses.

    Args:
        loss: names of `TERMS`, joined by "+".
        num_classes: number of classes.
        projection: see `Objective`.
        temperature: of the losses that have one; None for the value of each publication.
        seed: of the first weights and of the graphs.
        **graph: `matching`, `margin` and `scale` of the triplet losses, see
            `mm_keras.MixAndMatch`.

    Raises:
        ValueError: if a name is unknown.
    """
    names = loss.split("+")
    unknown = [name for name in names if name not in TERMS]
    if unknown:
        raise ValueError(f"Unknown loss {unknown[0]!r}; expected one of {', '.join(TERMS)}.")
    arguments = {"num_classes": num_classes, "temperature": temperature, "seed": seed, **graph}
    return Objective([TERMS[name](name, arguments) for name in names], projection, seed)


def _triplet(name, given):
    return GraphTriplets(
        given.get("matching", matchings.class_connected),
        keras.random.SeedGenerator(given["seed"]),
        given.get("margin", 2.1),
        given.get("scale", "paper"),
        name=name,
    )


def _temperature(name, given):
    return TEMPERATURES[name] if given["temperature"] is None else given["temperature"]


def _supcon(name, given):
    function = functools.partial(losses.supcon, temperature=_temperature(name, given))
    return OfPairs(function, name=name)


def _softmax(name, given):
    return Softmax(given["num_classes"], given["seed"], name=name)


TERMS = {"triplet": _triplet, "supcon": _supcon, "softmax": _softmax}
"""{name: function(name, arguments of `build`) -> layer}."""
