"""The seeds of the data: each stage has its own images, crops and mirrors."""

import hashlib


def data_seed(seed: int, stage: str) -> int:
    """Return the seed of a stage's batches, an int in 0..2^62 - 1.

    With one seed for all stages, stages mm and segment would show the same images with the same
    crops and mirrors in the same order. `pipelines.batches.Order` uses 62 bits of a seed.

    Args:
        seed: `Experiment.seed`.
        stage: name of the stage.

    >>> data_seed(0, "mm") == data_seed(0, "segment")
    False
    """
    digest = hashlib.sha256(f"{stage}/{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2
