"""Files that are complete or not there: written under a temporary name, then renamed."""

import json
import os
import pathlib

import keras


def write_json(path: pathlib.Path, content: dict):
    """Writes under a temporary name, then renames, so that a reader never meets half a file."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def save_weights(model: keras.Model, path: pathlib.Path):
    """Writes a `.weights.h5` file, complete or not at all."""
    temporary = path.with_name(f"{os.getpid()}.tmp.weights.h5")
    model.save_weights(temporary)
    temporary.replace(path)
