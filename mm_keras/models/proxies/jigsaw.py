"""The jigsaw proxy (Noroozi & Favaro, ECCV 2016): classify the permutation of shuffled tiles."""

import keras
import numpy as np
from keras import ops

from mm_keras.backbones.spec import Backbone, Pixels, scaled
from mm_keras.models.trainable import Trainable

NUM_TILES = 9

NORMALIZATIONS = ("mean_and_std", "mean", "joint", "none")
INITIALIZATIONS = ("release", "he")


class Jigsaw(Trainable):
    """Classify the permutation of nine tiles by one shared branch and three dense layers.

    All tiles of a batch pass through the backbone together, so its batch norm sees them all. Each
    tile's flattened embedding output passes through fc6 (1024), ReLU and dropout. The nine results
    of a puzzle are concatenated and pass through fc7 (4096), ReLU and dropout. fc8 returns one
    logit per permutation. Widths are scaled by the backbone's width.

    The branch is the backbone as M&M uses it: AlexNet has conv1 at stride 4 with padding 5, and
    batch norm everywhere. The branch of the authors' network (train_val_cfn_jps.prototxt) differs:
    it is an AlexNet with conv1 at stride 2, without padding and without batch norm.

    `fit` takes the batches of `pipelines.batches.jigsaw.batches`: {"tiles": uint8 [B, 9, T, T, 3],
    "permutation": int32 [B]}. On any Keras backend it also takes tiles as x and permutations as y.

    Metrics: loss; accuracy, share of puzzles whose permutation has the largest logit;
    gradient_norm; non_finite, the number of steps whose loss or gradient is not finite.

    Args:
        backbone: the network that M&M tunes later.
        num_permutations: size of the set of permutations.
        tile: side T of the tiles in pixels.
        normalization: normalization of each tile, see `normalize_tiles`; "mean_and_std" in the
            paper.
        spread: standard deviation of a normalized tile in gray levels, see `normalize_tiles`.
        dropout: dropout rate after fc6 and fc7, 0.5 in the authors' network.
        initialization: initialization of fc6 and fc7. "release" is a Gaussian of standard deviation
            0.005 with biases 1 (train_val_cfn_jps.prototxt); with it the loss stays flat for
            hundreds of steps. "he" is He's Gaussian with biases 0; with it the loss falls at once.
            In both, fc8 is Gaussian of standard deviation 0.01 with biases 0.
        num_tiles: number of tiles of a puzzle. Two tiles and eight "permutations" are context
            prediction (Doersch et al. 2015), see `pipelines.batches.neighbors`.
        name: name of the model.

    Raises:
        ValueError: if an argument is out of range, or the tile is too small for the backbone.
    """

    batch_keys = ("tiles", "permutation")

    def __init__(
        self,
        backbone: Backbone,
        num_permutations: int,
        tile: int = 64,
        normalization: str = "mean_and_std",
        spread: float = 50.0,
        dropout: float = 0.5,
        initialization: str = "release",
        num_tiles: int = NUM_TILES,
        name: str = "jigsaw",
    ):
        _check(num_permutations, tile, normalization, spread, initialization)
        super().__init__(name, ("gradient_norm", "accuracy"))
        self.backbone = backbone
        self.num_permutations, self.tile, self.num_tiles = num_permutations, tile, num_tiles
        self.normalization, self.spread = normalization, spread
        fc6_units, fc7_units = (scaled(units, backbone.spec.width) for units in (1024, 4096))
        maps = _embedding_shape(backbone, tile)
        self.branch = _block("fc6", maps, fc6_units, dropout, initialization)
        self.joint = _block("fc7", (num_tiles, fc6_units), fc7_units, dropout, initialization)
        self.fc8 = keras.layers.Dense(
            num_permutations,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name="fc8",
        )
        self.fc8.build((None, fc7_units))
        self.built = True

    def call(self, tiles, training=False):
        """Return logits float32 [B, num_permutations] of tiles [B, 9, T, T, bands], 0..255.

        Slot i of a puzzle is tiles[:, i].
        """
        maps = self.backbone(self.network_tiles(tiles), training=training)
        features = self.branch(maps[self.backbone.spec.embedding.name], training=training)
        puzzles = ops.reshape(features, (-1, self.num_tiles, features.shape[-1]))
        return ops.cast(self.fc8(self.joint(puzzles, training=training)), "float32")

    def network_tiles(self, tiles):
        """Return the input tiles of the backbone, float32 [B * 9, T, T, 3].

        Normalized tiles are shifted to the mean color of the backbone's pixels. Its input layer
        subtracts that color again, so the network sees tiles of mean zero.
        """
        pixels = self.backbone.spec.pixels
        tiles = ops.reshape(tiles, (-1, self.tile, self.tile, pixels.num_bands))
        if self.normalization == "none":
            return ops.cast(tiles, "float32")
        if pixels.color == "gray":  # first, so that the gray tile has the stated spread
            tiles = ops.broadcast_to(_gray(tiles), ops.shape(tiles))
        normalized = normalize_tiles(tiles, self.normalization, self.spread)
        return normalized + ops.convert_to_tensor(mean_color(pixels), "float32")

    def batch_loss(self, inputs, targets, outputs):
        """Return the mean cross-entropy of the permutations. Record the accuracy."""
        hits = ops.equal(ops.argmax(outputs, axis=-1), ops.cast(targets, "int32"))
        self.trackers["accuracy"].update_state(ops.cast(hits, "float32"))
        losses = keras.losses.sparse_categorical_crossentropy(targets, outputs, from_logits=True)
        return ops.mean(losses)


def evaluate(model: Jigsaw, batches) -> dict[str, float]:
    """Measure a model on puzzles. Neither its weights nor its metrics change.

    Args:
        model: the trained model.
        batches: iterable of {"tiles", "permutation"}. To compare models, use
            `pipelines.batches.jigsaw.batches` over held-out files with a fixed seed, and with
            num_steps x num_images at most the number of files.

    Returns:
        {"accuracy": share of correct puzzles, 0..1; "loss": mean cross-entropy in nats, which is
        log(num_permutations) for a uniform guess; "num_puzzles": int}.

    Raises:
        ValueError: if there is no batch.
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
    """Remove the brightness, color and contrast of each tile.

    They would reveal the place of a tile without any understanding of the image.

    Args:
        tiles: number tensor [N, T, T, 3].
        normalization: "mean_and_std" gives each channel mean 0 and standard deviation `spread`
            (paper: "normalize the mean and the standard deviation of each patch independently").
            "mean" gives each channel mean 0 and keeps its deviation (the authors' first code).
            "joint" gives the three channels together mean 0 and deviation `spread` (their later
            network).
        spread: standard deviation in gray levels; 50 in the authors' later network
            (train_val_cfn_jps++.prototxt). It matches the range of mean-subtracted pixels, which
            backbones expect. A tile whose deviation is below one gray level is divided by one, so
            that the noise of a flat tile stays small.

    Returns:
        float32 [N, T, T, 3], tiles of mean 0.

    Example:

    >>> tiles = np.array([0, 10, 0, 10], "uint8").reshape(1, 2, 2, 1).repeat(3, axis=-1)
    >>> print(ops.convert_to_numpy(normalize_tiles(tiles, spread=50.0))[0, :, :, 0])
    [[-50.  50.]
     [-50.  50.]]
    """
    tiles = ops.cast(tiles, "float32")
    axes = (1, 2, 3) if normalization == "joint" else (1, 2)
    centered = tiles - ops.mean(tiles, axis=axes, keepdims=True)
    if normalization == "mean":
        return centered
    deviation = ops.sqrt(ops.mean(ops.square(centered), axis=axes, keepdims=True))
    return centered * (spread / ops.maximum(deviation, 1.0))


def mean_color(pixels: Pixels) -> tuple[float, ...]:
    """Return the RGB color, 0..255, that the `InputAdapter` of these pixels maps to zeros.

    For bands it is the value of each band. For Lab it is the gray level nearest to it.
    """
    if pixels.color in ("lab", "lightness"):
        return tuple(float(value) for value in pixels.pad_color)
    count = pixels.num_bands
    color = np.broadcast_to(pixels.mean, count) / np.broadcast_to(pixels.scale, count)
    return tuple(float(value) for value in (color[::-1] if pixels.color == "bgr" else color))


def _gray(tiles):
    return ops.mean(ops.cast(tiles, "float32"), axis=-1, keepdims=True)


def _embedding_shape(backbone, tile):
    """Return (height, width, channels) of the embedding of one tile."""
    shapes = backbone.compute_output_shape((None, tile, tile, backbone.spec.num_bands))
    shape = shapes[backbone.spec.embedding.name][1:]
    if not all(shape):
        raise ValueError(
            f"Tiles of {tile} pixels leave no cell in {backbone.spec.embedding.name} of backbone "
            f"{backbone.spec.name!r}. Received shape {shape}. Use larger tiles."
        )
    return shape


def _block(name, input_shape, units, dropout, initialization):
    """Build flattening, a dense layer, ReLU and dropout."""
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
