"""Data sets: facts, loading, checks of files, and sources."""

from pipelines.datasets.loading import (
    evenly,
    examples,
    hold_out_validation,
    load,
    names,
    no_labels,
    plan,
    select,
    spread,
    with_left_out,
)
from pipelines.datasets.spec import (
    VOID,
    Dataset,
    DatasetError,
    DatasetSpec,
    Reading,
    Request,
    Split,
    suggest,
    voc_colors,
)

__all__ = [
    "VOID",
    "Dataset",
    "DatasetError",
    "DatasetSpec",
    "Reading",
    "Request",
    "Split",
    "evenly",
    "examples",
    "hold_out_validation",
    "load",
    "names",
    "no_labels",
    "plan",
    "select",
    "spread",
    "suggest",
    "voc_colors",
    "with_left_out",
]
