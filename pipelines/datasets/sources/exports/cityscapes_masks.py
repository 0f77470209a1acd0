"""Cityscapes' layout outside of the official splits: gtFine masks by train ids or label ids."""

import pathlib

from pipelines.datasets.sources import cityscapes
from pipelines.datasets.sources.exports import export as forms
from pipelines.datasets.sources.exports import mask_files, pairing, tables
from pipelines.datasets.sources.exports.tree import Tree
from pipelines.datasets.spec import VOID, Request

NAME = "Cityscapes masks"
_TRAIN_IDS, _LABEL_IDS = "_gtfine_labeltrainids.png", "_gtfine_labelids.png"
_VOID_TRAIN_ID = 19  # datumaro writes void so; the official files hold 255


def find(tree: Tree) -> list[pathlib.Path]:
    """Return masks of train ids, else of label ids, without a class table of CVAT."""
    if tables.find(tree) is not None:
        return []
    names = [file for file in tree.files if file.name.lower().endswith((_TRAIN_IDS, _LABEL_IDS))]
    train = [file for file in names if file.name.lower().endswith(_TRAIN_IDS)]
    return train or names


def read(tree: Tree, request: Request) -> forms.Export:
    """Read the masks with the benchmark's 19 classes."""
    found = find(tree)
    are_train_ids = found[0].name.lower().endswith(_TRAIN_IDS)
    spec = cityscapes.SPEC
    values = range(spec.num_classes) if are_train_ids else spec.label_ids
    names = dict(zip(values, spec.class_names, strict=True))
    others = (_VOID_TRAIN_ID, VOID) if are_train_ids else (*range(34), VOID)
    void = tuple(value for value in others if value not in names)
    classes, rule, unlabelled = forms.mask_classes(
        names, "the official list of 19 classes", request.reading.unlabelled, void_values=void
    )
    skipped = forms.Skipped()
    paired = pairing.pair(tree, skipped, only=found)
    annotated, bare = mask_files.pictures_of(tree, paired.pairs)
    kind = "train ids" if are_train_ids else "label ids"
    return forms.Export(
        f"{NAME} ({kind})",
        tree.root,
        classes,
        annotated,
        unlabelled,
        rule=rule,
        counts=skipped.counts(),
        bare=bare,
    )
