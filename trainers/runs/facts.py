"""The keys of a record that are no settings: facts of the data and of further input files."""

DATA = (
    "classes",
    "num_train_images",
    "num_eval_images",
    "train_checksum",
    "eval_checksum",
)
"""Facts of the data set."""

NUM_REPLICAS = "num_replicas"
"""Number of replicas of a stage that trains, if there are several."""

INPUTS = ("init_checksum", "unlabelled_checksum", "pseudo_checksum")
"""Checksums of the weight file and of the unlabelled images; each seed may have its own files."""

ALL = (*DATA, NUM_REPLICAS, *INPUTS)
