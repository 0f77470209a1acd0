"""The jigsaw proxy (Noroozi & Favaro, ECCV 2016): tell which permutation shuffled an image's tiles."""

import keras
import numpy as np
from keras import ops

from mm_keras.backbones.spec import Backbone, Pixels, scaled
from mm_keras.models import training

NUM_TILES = 9

NORMALIZATIONS = ("mean_and_std", "mean", "joint", "none")


class Jigsaw(keras.Model):
    """Nine tiles, one shared branch, and three dense layers that tell their permutation apart.

    All tiles of a batch go through the backbone in one pass, so its batch norm sees them all. Per
    tile, the flattened embedding output -> fc6 (1024) -> ReLU, dropout; the nine of a puzzle joined
    -> fc7 (4096) -> ReLU, dropout -> fc8, a logit per permutation. Widths are scaled by the
    backbone's width.

    Unlike the authors' network (train_val_cfn_jps.prototxt), whose branch is an AlexNet with conv1
    at stride 2 without padding and without batch norm, the branch is the backbone just as M&M runs
    it: for AlexNet that is conv1 at stride 4 with padding 5, and batch norm everywhere. The dense
    layers are theirs: Gaussian weights of standard deviation 0.005 (fc8: 0.01), biases 1 (fc8: 0).
    At other fan-ins than theirs the deviation is multiplied by sqrt(their fan-in / fan-in), which
    keeps the spread of the responses.

    `fit` takes what `pipelines.proxies.jigsaw.batches` yields, {"tiles": uint8 [B, 9, T, T, 3],
    "permutation": int32 [B]}, or tiles as x and permutations as y on any Keras backend.

    Args:
        backbone: `mm_keras.backbones.Backbone`; M&M takes it over.
        num_permutations: size of the set of permutations.
        tile: side of the tiles in pixels, T.
        normalization: of each tile, see `normalize_tiles`; "mean_and_std" in the paper.
        spread: standard deviation of a normalised tile in grey levels, see `normalize_tiles`.
        dropout: after fc6 and fc7.

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
        name: str = "jigsaw",
    ):
        super().__init__(name=name)
        _check(num_permutations, tile, normalization, spread)
        self.backbone = backbone
        self.num_permutations, self.tile = num_permutations, tile
        self.normalization, self.spread = normalization, spread
        num_features = _num_features(backbone, tile)
        fc6_units, fc7_units = (scaled(units, backbone.spec.width) for units in (1024, 4096))
        self.branch = _dense_relu_dropout("fc6", num_features, fc6_units, 2304, dropout)
        self.joint = _dense_relu_dropout("fc7", NUM_TILES * fc6_units, fc7_units, 9216, dropout)
        self.fc8 = _dense("fc8", fc7_units, num_permutations, _stddev(0.01, 4096, fc7_units))
        self.trackers = {name: keras.metrics.Mean(name=name) for name in ("gradient_norm",)}
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self.non_finite = training.NonFinite()
        self.built = True

    def call(self, tiles, training=False):
        """Logits, float32 [B, num_permutations], of tiles [B, 9, T, T, 3] with RGB values 0..255.

        Slot i of a puzzle is tiles[:, i].
        """
        pixels = self.network_tiles(tiles)
        maps = self.backbone(pixels, training=training)[self.backbone.spec.embedding.name]
        features = self.branch(
            ops.reshape(maps, (-1, self.branch.input_shape[-1])), training=training
        )
        puzzles = ops.reshape(features, (-1, self.joint.input_shape[-1]))
        return ops.cast(self.fc8(self.joint(puzzles, training=training)), "float32")

    def network_tiles(self, tiles):
        """The tiles as the backbone gets them, float32 [B * 9, T, T, 3].

        Normalised tiles are shifted to the mean colour of the backbone's pixels, which its input
        layer subtracts again: the network sees tiles of mean zero.
        """
        pixels = self.backbone.spec.pixels
        tiles = ops.reshape(tiles, (-1, self.tile, self.tile, 3))
        if self.normalization == "none":
            return ops.cast(tiles, "float32")
        if pixels.colour == "gray":  # first, so that the gray tile has the stated spread
            tiles = ops.broadcast_to(_gray(tiles), ops.shape(tiles))
        normalized = normalize_tiles(tiles, self.normalization, self.spread)
        return normalized + ops.convert_to_tensor(mean_colour(pixels), "float32")

    def train_step(self, *args):
        """One step on {"tiles", "permutation"} or (tiles, permutations) in TensorFlow's graph mode;
        Keras' own step elsewhere.
        """
        if keras.backend.backend() != "tensorflow":
            return super().train_step(*args)
        import tensorflow as tf

        tiles, permutations = training.unpack(*args, keys=("tiles", "permutation"))
        with tf.GradientTape() as tape:
            logits = self(tiles, training=True)
            loss = self.compute_loss(tiles, permutations, logits)
            scaled_loss = training.scaled(self, loss)
        gradient_norm = training.update_weights(self, tape, scaled_loss)
        training.track_step(self, loss, gradient_norm)
        return self.get_metrics_result()

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean cross-entropy of the permutations; y_pred are logits. Records the accuracy."""
        hits = ops.equal(ops.argmax(y_pred, axis=-1), ops.cast(y, "int32"))
        self.accuracy.update_state(ops.cast(hits, "float32"))
        return ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True))


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
    brightness, colour and contrast.

    Args:
        tiles: number tensor [N, T, T, 3].
        normalization: "mean_and_std", each channel to mean 0 and standard deviation `spread`
            (paper: "normalize the mean and the standard deviation of each patch independently");
            "mean", each channel to mean 0, its deviation left alone (the authors' first code);
            "joint", the three channels together to mean 0 and deviation `spread` (their later
            network).
        spread: in grey levels; 50 in the authors' later network (train_val_cfn_jps++.prototxt). It
            puts the values into the range of mean-subtracted pixels, for which backbones are made.
            A tile whose deviation is below one grey level is divided by one: noise of a flat tile
            stays small.

    Returns:
        float32 [N, T, T, 3], tiles of mean 0.
    """
    tiles = ops.cast(tiles, "float32")
    axes = (1, 2, 3) if normalization == "joint" else (1, 2)
    centred = tiles - ops.mean(tiles, axis=axes, keepdims=True)
    if normalization == "mean":
        return centred
    deviation = ops.sqrt(ops.mean(ops.square(centred), axis=axes, keepdims=True))
    return centred * (spread / ops.maximum(deviation, 1.0))


def mean_colour(pixels: Pixels) -> tuple[float, float, float]:
    """The RGB colour, 0..255, that the `InputAdapter` of these pixels turns into zeros."""
    colour = np.broadcast_to(pixels.mean, 3) / np.broadcast_to(pixels.scale, 3)
    return tuple(float(value) for value in (colour[::-1] if pixels.colour == "bgr" else colour))


def _gray(tiles):
    return ops.mean(ops.cast(tiles, "float32"), axis=-1, keepdims=True)


def _num_features(backbone, tile):
    """Length of the flattened embedding of one tile."""
    shapes = backbone.compute_output_shape((None, tile, tile, 3))
    height, width, channels = shapes[backbone.spec.embedding.name][1:]
    if not (height and width):
        raise ValueError(
            f"Tiles of {tile} pixels leave no cell in {backbone.spec.embedding.name} of backbone "
            f"{backbone.spec.name!r}, got {height} x {width}: use larger tiles."
        )
    return height * width * channels


def _dense_relu_dropout(name, num_inputs, units, published_fan_in, dropout):
    stddev = _stddev(0.005, published_fan_in, num_inputs)
    layers = [
        keras.Input((num_inputs,)),
        _dense(name, num_inputs, units, stddev, bias="ones"),
        keras.layers.ReLU(name=f"relu_{name}"),
        keras.layers.Dropout(dropout, name=f"drop_{name}"),
    ]
    return keras.Sequential(layers, name=f"{name}_block")


def _dense(name, num_inputs, units, stddev, bias="zeros"):
    layer = keras.layers.Dense(
        units,
        kernel_initializer=keras.initializers.RandomNormal(stddev=stddev),
        bias_initializer=bias,
        name=name,
    )
    layer.build((None, num_inputs))
    return layer


def _stddev(published, published_fan_in, fan_in):
    return published * (published_fan_in / fan_in) ** 0.5


def _check(num_permutations, tile, normalization, spread):
    if num_permutations < 2 or tile < 1:
        raise ValueError(
            "There must be at least 2 permutations and tiles of at least 1 pixel. Received "
            f"num_permutations={num_permutations} and tile={tile}."
        )
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"normalization must be one of {NORMALIZATIONS}. Received {normalization!r}."
        )
    if not spread > 0:
        raise ValueError(f"spread must be positive. Received {spread}.")
