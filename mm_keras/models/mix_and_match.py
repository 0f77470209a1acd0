"""Mix-and-match tuning: embed patches, and pull the patches of one class together along a graph."""

import keras
from keras import ops

from mm_keras import losses
from mm_keras import matching as matchings
from mm_keras.models import embedding_health
from mm_keras.models.gradient_caching import ChunkedPass
from mm_keras.models.trainable import Trainable, gather_from_replicas

GRAPHS = ("replica", "global")


class MixAndMatch(Trainable):
    """Tune a backbone with triplets from a class-wise connected graph over each batch of patches.

    One training step embeds the patches (unit vectors of the backbone's embedding output), matches
    their labels into triplets, computes the triplet loss (Eq. 1 over the distances of Eq. 2) and
    updates the weights. The tuned weights stay in `backbone`. An `objective` replaces the triplets
    by another loss on the same patches.

    `fit` takes the batches of `pipelines.batches.patches`: {"patches": uint8 [N, S, S, 3],
    "labels": int32 [N]}. On any Keras backend it also takes patches as x and labels as y. One batch
    is one graph, so set `batch_size` to N.

    Metrics: loss; positive_distance and negative_distance, means over the edges of valid triplets,
    in 0..4 (with an `objective` over all pairs, see `mm_keras.losses.expected_distances`);
    effective_rank of the embeddings, 1 when they have collapsed to a line; collapsed_share, the
    share of collapsed dimensions, 0..1; gradient_norm; non_finite, the number of steps whose loss
    or gradient is not finite; label_share, the mean of the batches' entry "label_share", 0 if they
    have none. On other backends than TensorFlow, gradient_norm and label_share are 0 and non_finite
    counts the loss alone. With several replicas, metrics are means over the replicas, and
    non_finite is their sum. There, gradient_norm is the norm of each replica's own contribution to
    the gradient.

    Args:
        backbone: `mm_keras.backbones.Backbone`, or any `keras.Model` from pixels [B, H, W, 3] to
            one feature map.
        margin: margin of the triplet loss; 2.1 in the M&M paper's implementation details.
        scale: "paper" or "release", see `mm_keras.losses.triplet_margin`.
        matching: function(labels, seed) -> `Triplets`. `class_connected` is the paper's graph.
        seed: int, start of the sequence of graphs.
        chunk: number of patches that are in the network at a time, a divisor of N; None for all.
            With a chunk, memory does not depend on the size of the graph, a second forward pass is
            computed, and batch norm sees one chunk at a time, see `gradient_caching.ChunkedPass`.
            TensorFlow only.
        graph: mode under `tf.distribute` with several replicas. "replica" uses one graph per
            replica, as the released code does, and averages their losses. "global" uses one graph
            over the patches of all replicas. It equals one device with the joint batch if batch
            norm does too (`mm_keras.layers.synchronize`, or the same chunk).
        objective: `mm_keras.models.objective.Objective`, the loss; None for the triplets of the
            arguments above. Its weights are trained too.
        embedding: for an objective, a name of `mm_keras.losses.EMBEDDINGS`: how a feature map
            becomes one vector. The triplets always take the flattened map.
        num_classes: number of classes; only an objective needs it.

    Raises:
        ValueError: if the graph or the embedding is unknown, or an objective has no num_classes.
            The chunk is below 1 or used on another backend.

    Example:

    >>> import numpy as np
    >>> from mm_keras import backbones
    >>> model = MixAndMatch(backbones.build("testing"))
    >>> model.compile(optimizer="sgd")
    >>> patches, labels = np.zeros((4, 32, 32, 3), "uint8"), np.array([0, 0, 1, 1])
    >>> history = model.fit(patches, labels, batch_size=4, verbose=0)
    >>> model(patches).shape == (4, 16 * 4 * 4)
    True
    """

    batch_keys = ("patches", "labels")
    tracked_keys = ("label_share",)

    def __init__(
        self,
        backbone,
        margin=2.1,
        scale="paper",
        matching=matchings.class_connected,
        seed=0,
        chunk=None,
        graph="replica",
        objective=None,
        embedding="pool",
        num_classes=None,
        name="mix_and_match",
    ):
        _check(chunk, graph)
        _check_objective(objective, embedding, num_classes)
        trackers = (*embedding_health.TRACKERS, "gradient_norm", *self.tracked_keys)
        super().__init__(name, trackers)
        self.backbone = backbone
        self.margin = margin
        self.loss_scale = scale
        self.matching = matching
        self.chunk, self.graph = chunk, graph
        # The loss is no argument of `compile`: under tf.distribute Keras builds a compiled loss
        # from (y, y_pred) first.
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.objective, self.num_classes = objective, num_classes
        self.embed = losses.embed if objective is None else losses.EMBEDDINGS[embedding]
        self.built = objective is None

    @property
    def graph_seeds(self) -> list:
        """The states of the generators that draw the graphs."""
        terms = [] if self.objective is None else self.objective.terms
        generators = [getattr(term, "seed_generator", None) for term in terms]
        return [generator.state for generator in [self.seed_generator, *generators] if generator]

    def build(self, patches_shape):
        """Make the weights of the objective for patches [N, S, S, 3]."""
        if self.objective is not None and not self.objective.built:
            features = self.call(keras.KerasTensor((1, *patches_shape[1:])))
            self.objective.build(features.shape)
        self.built = True

    def call(self, patches, training=False):
        """Return the vectors that the loss takes.

        Args:
            patches: [N, S, S, 3] with RGB 0..255.

        Returns:
            float32 [N, D]: embeddings of unit length, or, with an objective, features.
        """
        outputs = self.backbone(patches, training=training)
        if isinstance(outputs, dict):
            outputs = outputs[self.backbone.spec.embedding.name]
        return self.embed(outputs)

    def forward_pass(self, inputs):
        """Return the pass over all patches, or the one over chunks."""
        if self.chunk is None:
            return super().forward_pass(inputs)
        return ChunkedPass(self, inputs, self.chunk)

    def joint_batch(self, outputs, targets):
        """Return embeddings and labels of the graph's nodes."""
        adds_up = self.objective is not None and self.objective.adds_over_replicas
        if self.graph == "replica" or adds_up:
            return outputs, targets
        return gather_from_replicas(outputs), gather_from_replicas(ops.cast(targets, "int32"))

    def batch_loss(self, inputs, targets, outputs):
        """Return the objective, or match the labels and return the triplet loss."""
        if self.objective is not None:
            return self.objective_loss(outputs, targets)
        triplets = self.matching(targets, self.seed_generator)
        return self.triplet_loss(outputs, triplets)

    def triplet_loss(self, embeddings, triplets):
        """Return Eq. 1 over the triplets. Record the distances and the health of the embeddings."""
        positive, negative = losses.edge_distances(embeddings, triplets)
        weights = ops.cast(triplets.valid, "float32")
        self.trackers["positive_distance"].update_state(positive, sample_weight=weights)
        self.trackers["negative_distance"].update_state(negative, sample_weight=weights)
        embedding_health.track_health(self.trackers, ops.stop_gradient(embeddings))
        return losses.triplet_loss(positive, negative, triplets.valid, self.margin, self.loss_scale)

    def objective_loss(self, features, labels):
        """Return the objective. Record the distances and the health of its embeddings."""
        loss, embeddings = self.objective(features, labels)
        embedding_health.track_pairs(
            self.trackers, ops.stop_gradient(embeddings), labels, self.num_classes
        )
        return loss


def _check_objective(objective, embedding, num_classes):
    if embedding not in losses.EMBEDDINGS:
        known = ", ".join(losses.EMBEDDINGS)
        raise ValueError(f"Unknown embedding {embedding!r}; expected one of {known}.")
    if objective is not None and num_classes is None:
        raise ValueError("An objective needs num_classes, the number of classes. Received None.")


def _check(chunk, graph):
    if graph not in GRAPHS:
        raise ValueError(f"Unknown graph {graph!r}; expected one of {GRAPHS}.")
    if chunk is None:
        return
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, or None. Received {chunk}.")
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"chunk={chunk} needs the TensorFlow backend, since {keras.backend.backend()} uses "
            "Keras' own training step. Use chunk=None."
        )
