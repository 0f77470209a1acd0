"""TFDS builders, one module a data set; `pipelines.datasets.load` is the way in."""
