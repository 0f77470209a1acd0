"""Data sets: facts, loading, checks of files, and the sources that find them."""

from pipelines.datasets.loading import examples, load, names, no_labels, plan, select, spread
from pipelines.datasets.spec import (
    VOID,
    Dataset,
    DatasetError,
    DatasetSpec,
    Split,
    suggest,
    voc_colors,
)

__all__ = [
    "VOID",
    "Dataset",
    "DatasetError",
    "DatasetSpec",
    "Split",
    "examples",
    "load",
    "names",
    "no_labels",
    "plan",
    "select",
    "spread",
    "suggest",
    "voc_colors",
]
