"""The jigsaw proxy (Noroozi & Favaro, ECCV 2016): tell which permutation shuffled the tiles."""

import keras
import numpy as np
from keras import ops

from mm_keras.backbones.spec import Backbone, Pixels, scaled
from mm_keras.models import trainable
from mm_keras.models.trainable import counted

NUM_TILES = 9

NORMALIZATIONS = ("mean_and_std", "mean", "joint", "none")
INITIALIZATIONS = ("release", "he")


class Jigsaw(keras.Model):
    """Nine tiles, one shared branch, and three dense layers that tell their permutation apart.

    All tiles of a batch go through the backbone in one pass, so its batch norm sees them all. Per
    tile, the flattened embedding output -> fc6 (1024) -> ReLU, dropout; the nine of a puzzle joined
    -> fc7 (4096) -> ReLU, dropout -> fc8, a logit per permutation. Widths are scaled by the
    backbone's width.

    Unlike the authors' network (train_val_cfn_jps.prototxt), whose branch is an AlexNet with conv1
    at stride 2 without padding and without batch norm, the branch is the backbone just as M&M runs
    it: for AlexNet that is conv1 at stride 4 with padding 5, and batch norm everywhere.

    `fit` takes what `pipelines.proxies.jigsaw.batches` yields, {"tiles": uint8 [B, 9, T, T, 3],
    "permutation": int32 [B]}, or tiles as x and permutations as y on any Keras backend.

    Args:
        backbone: `mm_keras.backbones.Backbone`; M&M takes it over.
        num_permutations: size of the set of permutations.
        tile: side of the tiles in pixels, T.
        normalization: of each tile, see `normalize_tiles`; "mean_and_std" in the paper.
        spread: standard deviation of a normalized tile in gray levels, see `normalize_tiles`.
        dropout: after fc6 and fc7, 0.5 in the authors' network.
        initialization: of fc6 and fc7. "release", Gaussian of standard deviation 0.005 with biases
            1 (train_val_cfn_jps.prototxt), hardly moves for hundreds of steps; "he", He's Gaussian
            with biases 0, learns at once. fc8 is Gaussian of 0.01 with biases 0 in both.

    Metrics: loss; accuracy, share of puzzles whose permutation has the largest logit;
    gradient_norm; non_finite, the number of steps whose loss or gradient was not finite.

    Raises:
        ValueError: an argument is out of range, or the tile is too small for the backbone.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_permutations: int,
        tile: int = 64,
        normalization: str = "mean_and_std",
        spread: float = 50.0,
        dropout: float = 0.5,
        initialization: str = "release",
        name: str = "jigsaw",
    ):
        super().__init__(name=name)
        _check(num_permutations, tile, normalization, spread, initialization)
        self.backbone = backbone
        self.num_permutations, self.tile = num_permutations, tile
        self.normalization, self.spread = normalization, spread
        fc6_units, fc7_units = (scaled(units, backbone.spec.width) for units in (1024, 4096))
        maps = _embedding_shape(backbone, tile)
        self.branch = _block("fc6", maps, fc6_units, dropout, initialization)
        self.joint = _block("fc7", (NUM_TILES, fc6_units), fc7_units, dropout, initialization)
        self.fc8 = keras.layers.Dense(
            num_permutations,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name="fc8",
        )
        self.fc8.build((None, fc7_units))
        self.trackers = {name: keras.metrics.Mean(name=name) for name in ("gradient_norm",)}
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self.non_finite = trainable.NonFinite()
        self.built = True

    def call(self, tiles, training=False):
        """Logits, float32 [B, num_permutations], of tiles [B, 9, T, T, 3] with RGB values 0..255.

        Slot i of a puzzle is tiles[:, i].
        """
        maps = self.backbone(self.network_tiles(tiles), training=training)
        features = self.branch(maps[self.backbone.spec.embedding.name], training=training)
        puzzles = ops.reshape(features, (-1, NUM_TILES, features.shape[-1]))
        return ops.cast(self.fc8(self.joint(puzzles, training=training)), "float32")

    def network_tiles(self, tiles):
        """The tiles as the backbone gets them, float32 [B * 9, T, T, 3].

        Normalized tiles are shifted to the mean color of the backbone's pixels, which its input
        layer subtracts again: the network sees tiles of mean zero.
        """
        pixels = self.backbone.spec.pixels
        tiles = ops.reshape(tiles, (-1, self.tile, self.tile, 3))
        if self.normalization == "none":
            return ops.cast(tiles, "float32")
        if pixels.color == "gray":  # first, so that the gray tile has the stated spread
            tiles = ops.broadcast_to(_gray(tiles), ops.shape(tiles))
        normalized = normalize_tiles(tiles, self.normalization, self.spread)
        return normalized + ops.convert_to_tensor(mean_color(pixels), "float32")

    def train_step(self, *args):
        """One step on {"tiles", "permutation"} or (tiles, permutations) in TensorFlow's graph mode;
        Keras' own step elsewhere.
        """
        if keras.backend.backend() != "tensorflow":
            return super().train_step(*args)
        import tensorflow as tf

        tiles, permutations = trainable.unpack(*args, keys=("tiles", "permutation"))
        with tf.GradientTape() as tape:
            logits = self(tiles, training=True)
            loss = self.compute_loss(tiles, permutations, logits)
            scaled_loss = trainable.scaled(self, loss)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        gradient_norm = trainable.update_weights(self, gradients)
        trainable.track_step(self, loss, gradient_norm)
        return self.get_metrics_result()

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean cross-entropy of the permutations; y_pred are logits. Records the accuracy."""
        hits = ops.equal(ops.argmax(y_pred, axis=-1), ops.cast(y, "int32"))
        self.accuracy.update_state(ops.cast(hits, "float32"))
        losses = keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)
        return counted(self, ops.mean(losses))


def evaluate(model: Jigsaw, batches) -> dict[str, float]:
    """Measures a model on puzzles, without training it and without touching its metrics.

    Args:
        model: the trained model.
        batches: iterable of {"tiles", "permutation"}; for figures that can be compared, from
            `pipelines.proxies.jigsaw.batches` over held-out files with a fixed seed and
            num_steps x num_images at most the number of files.

    Returns:
        {"accuracy": share of puzzles told right, 0..1; "loss": mean cross-entropy in nats, whose
        value for a guess is log(num_permutations); "num_puzzles"}.

    Raises:
        ValueError: there is no batch.
    """
    hits, losses = [], []
    for batch in batches:
        logits = ops.convert_to_tensor(model.predict_on_batch(batch["tiles"]))
        labels = ops.convert_to_tensor(batch["permutation"])
        hits.extend(ops.convert_to_numpy(ops.argmax(logits, axis=-1) == labels))
        loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        losses.extend(ops.convert_to_numpy(loss))
    if not hits:
        raise ValueError("There is no batch to measure on: check num_steps and the files.")
    count = len(hits)
    return {
        "accuracy": float(sum(hits)) / count,
        "loss": float(sum(losses)) / count,
        "num_puzzles": count,
    }


def normalize_tiles(tiles, normalization: str = "mean_and_std", spread: float = 50.0):
    """Takes from each tile what would give its place away without any understanding: its
    brightness, color and contrast.

    Args:
        tiles: number tensor [N, T, T, 3].
        normalization: "mean_and_std", each channel to mean 0 and standard deviation `spread`
            (paper: "normalize the mean and the standard deviation of each patch independently");
            "mean", each channel to mean 0, its deviation left alone (the authors' first code);
            "joint", the three channels together to mean 0 and deviation `spread` (their later
            network).
        spread: in gray levels; 50 in the authors' later network (train_val_cfn_jps++.prototxt). It
            puts the values into the range of mean-subtracted pixels, for which backbones are made.
            A tile whose deviation is below one gray level is divided by one: noise of a flat tile
            stays small.

    Returns:
        float32 [N, T, T, 3], tiles of mean 0.
    """
    tiles = ops.cast(tiles, "float32")
    axes = (1, 2, 3) if normalization == "joint" else (1, 2)
    centered = tiles - ops.mean(tiles, axis=axes, keepdims=True)
    if normalization == "mean":
        return centered
    deviation = ops.sqrt(ops.mean(ops.square(centered), axis=axes, keepdims=True))
    return centered * (spread / ops.maximum(deviation, 1.0))


def mean_color(pixels: Pixels) -> tuple[float, float, float]:
    """The RGB color, 0..255, that the `InputAdapter` of these pixels turns into zeros."""
    color = np.broadcast_to(pixels.mean, 3) / np.broadcast_to(pixels.scale, 3)
    return tuple(float(value) for value in (color[::-1] if pixels.color == "bgr" else color))


def _gray(tiles):
    return ops.mean(ops.cast(tiles, "float32"), axis=-1, keepdims=True)


def _embedding_shape(backbone, tile):
    """(height, width, channels) of the embedding of one tile."""
    shapes = backbone.compute_output_shape((None, tile, tile, 3))
    shape = shapes[backbone.spec.embedding.name][1:]
    if not all(shape):
        raise ValueError(
            f"Tiles of {tile} pixels leave no cell in {backbone.spec.embedding.name} of backbone "
            f"{backbone.spec.name!r}, got shape {shape}: use larger tiles."
        )
    return shape


def _block(name, input_shape, units, dropout, initialization):
    """Flattening, a dense layer, ReLU and dropout."""
    is_release = initialization == "release"
    initializers = keras.initializers
    dense = keras.layers.Dense(
        units,
        kernel_initializer=(
            initializers.RandomNormal(stddev=0.005) if is_release else initializers.HeNormal()
        ),
        bias_initializer="ones" if is_release else "zeros",
        name=name,
    )
    layers = [
        keras.Input(input_shape),
        keras.layers.Flatten(name=f"flat_{name}"),
        dense,
        keras.layers.ReLU(name=f"relu_{name}"),
        keras.layers.Dropout(dropout, name=f"drop_{name}"),
    ]
    return keras.Sequential(layers, name=f"{name}_block")


def _check(num_permutations, tile, normalization, spread, initialization):
    if num_permutations < 2 or tile < 1:
        raise ValueError(
            "There must be at least 2 permutations and tiles of at least 1 pixel. Received "
            f"num_permutations={num_permutations} and tile={tile}."
        )
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"normalization must be one of {NORMALIZATIONS}. Received {normalization!r}."
        )
    if initialization not in INITIALIZATIONS:
        raise ValueError(
            f"initialization must be one of {INITIALIZATIONS}. Received {initialization!r}."
        )
    if not spread > 0:
        raise ValueError(f"spread must be positive. Received {spread}.")
