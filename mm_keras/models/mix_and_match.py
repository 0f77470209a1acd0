"""Mix-and-match tuning: a model that embeds patches and pulls those of one class together along a
graph.
"""

import keras
from keras import ops

from mm_keras import losses, metrics
from mm_keras import matching as matchings
from mm_keras.models import gradient_caching, trainable
from mm_keras.models.trainable import counted

GRAPHS = ("replica", "global")


class MixAndMatch(keras.Model):
    """Tunes a backbone with triplets from a class-wise connected graph over each batch of patches.

    One training step: embed the patches (unit vectors of the backbone's embedding output), match
    their labels into triplets, take Eq. 1 over Eq. 2, update. The tuned weights stay in `backbone`.

    `fit` takes what `pipelines.batches.patches` yields, {"patches": uint8 [N, S, S, 3], "labels":
    int32 [N]}, or patches as x and labels as y on any Keras backend. The batch is the graph: do not
    let `fit` cut it up.

    Args:
        backbone: `mm_keras.backbones.Backbone`, or any `keras.Model` from pixels [B, H, W, 3] to
            one feature map.
        margin: of the triplet loss; 2.1 in the M&M paper's implementation details.
        scale: "paper" or "release", see `mm_keras.losses.triplet_margin`.
        matching: function(labels, seed) -> `Triplets`; `class_connected` is the paper's graph.
        seed: int, start of the sequence of graphs.
        chunk: patches that are in the network at a time, a divisor of the batch's; None for all.
            Memory then depends on the chunk and not on the size of the graph, at the price of a
            second forward pass, and batch norm sees one chunk at a time, see
            `gradient_caching.ChunkedPass`. In TensorFlow's train step only.
        graph: under `tf.distribute` with several replicas, "replica" for one graph on each of them
            (the released code's way) and the mean of their losses, or "global" for one graph over
            the patches of all. The latter equals one device with the joint batch if batch norm does
            too (`mm_keras.layers.synchronize`, or the same chunk).

    Metrics: loss; positive_distance and negative_distance, means over the edges of valid triplets,
    in 0..4; effective_rank of the embeddings, 1 when they have collapsed to a line; collapsed_share
    of their dimensions, 0..1; gradient_norm; non_finite, the number of steps whose loss or gradient
    was not finite (on other backends than TensorFlow the first is 0, and the loss alone is
    counted). Under several replicas these are means over them, non_finite their sum;
    gradient_norm is that of a replica's own part of the gradient.

    Raises:
        ValueError: an unknown graph, or a chunk below 1 or on another backend than TensorFlow.
    """

    def __init__(
        self,
        backbone,
        margin=2.1,
        scale="paper",
        matching=matchings.class_connected,
        seed=0,
        chunk=None,
        graph="replica",
        name="mix_and_match",
    ):
        super().__init__(name=name)
        _check(chunk, graph)
        self.backbone = backbone
        self.margin = margin
        self.loss_scale = scale
        self.matching = matching
        self.chunk, self.graph = chunk, graph
        # The loss is no argument of `compile`: under tf.distribute Keras builds a compiled loss
        # from (y, y_pred) first.
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.trackers = {name: keras.metrics.Mean(name=name) for name in self._metric_names()}
        self.non_finite = trainable.NonFinite()
        self.built = True

    @staticmethod
    def _metric_names():
        return (
            "positive_distance",
            "negative_distance",
            "effective_rank",
            "collapsed_share",
            "gradient_norm",
        )

    def call(self, patches, training=False):
        """Unit embeddings, float32 [N, D], of patches [N, S, S, 3] with RGB values 0..255."""
        outputs = self.backbone(patches, training=training)
        if isinstance(outputs, dict):
            outputs = outputs[self.backbone.spec.embedding.name]
        return losses.embed(outputs)

    def train_step(self, *args):
        """One step on {"patches", "labels"} or (patches, labels) in TensorFlow's graph mode; Keras'
        own step elsewhere.
        """
        if keras.backend.backend() != "tensorflow":
            return super().train_step(*args)
        import tensorflow as tf

        patches, labels = trainable.unpack(*args, keys=("patches", "labels"))
        network = gradient_caching.passes(self, patches, self.chunk)
        with tf.GradientTape() as tape:
            embeddings, labels = self._nodes(network.embed(tape), labels)
            triplets = self.matching(labels, self.seed_generator)
            loss = self.triplet_loss(embeddings, triplets)
            scaled_loss = trainable.scaled(self, loss)
        gradients = network.gradients(tape, scaled_loss)
        gradient_norm = trainable.update_weights(self, gradients)
        trainable.track_step(self, loss, gradient_norm)
        return self.get_metrics_result()

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The same loss for Keras' own training step, `evaluate`, and other backends: y_pred are
        embeddings.
        """
        triplets = self.matching(y, self.seed_generator)
        return counted(self, self.triplet_loss(y_pred, triplets))

    def _nodes(self, embeddings, labels):
        """The nodes of the graph, from those of this replica."""
        if self.graph == "replica":
            return embeddings, labels
        return trainable.gathered(embeddings), trainable.gathered(ops.cast(labels, "int32"))

    def triplet_loss(self, embeddings, triplets):
        """Eq. 1 over the triplets; records the distances and the health of the embeddings."""
        positive, negative = losses.edge_distances(embeddings, triplets)
        weights = ops.cast(triplets.valid, "float32")
        self.trackers["positive_distance"].update_state(positive, sample_weight=weights)
        self.trackers["negative_distance"].update_state(negative, sample_weight=weights)
        self._track_health(ops.stop_gradient(embeddings))
        return losses.triplet_loss(positive, negative, triplets.valid, self.margin, self.loss_scale)

    def _track_health(self, embeddings):
        self.trackers["effective_rank"].update_state(metrics.effective_rank(embeddings))
        self.trackers["collapsed_share"].update_state(metrics.collapsed_share(embeddings))


def _check(chunk, graph):
    if graph not in GRAPHS:
        raise ValueError(f"Unknown graph {graph!r}; expected one of {GRAPHS}.")
    if chunk is None:
        return
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, or None. Received {chunk}.")
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"chunk={chunk} needs the TensorFlow backend: the training step of "
            f"{keras.backend.backend()} is Keras' own. Use chunk=None."
        )
