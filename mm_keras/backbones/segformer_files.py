"""Folders of Hugging Face with a SegFormer: settings and names of its encoder.

KerasHub reads no such folders. They may hold an encoder that was trained on ImageNet (nvidia/mit-b0
to b5), which KerasHub does not offer.
"""

import os

import keras

from mm_keras.backbones import mix_transformers

SETTINGS = {
    "num_encoder_blocks": "num_layers",
    "depths": "layerwise_depths",
    "hidden_sizes": "hidden_dims",
    "num_attention_heads": "layerwise_num_heads",
    "sr_ratios": "layerwise_sr_ratios",
    "patch_sizes": "layerwise_patch_sizes",
    "strides": "layerwise_strides",
}
"""{setting of a SegformerConfig: argument of MiTBackbone}."""

FIXED = {"hidden_act": "gelu", "num_channels": 3}
"""Settings that MiTBackbone does not have, with the only values that it computes."""

MLP_RATIO = 4

PREFIX = "segformer."


def arguments(settings: dict) -> dict:
    """Return the arguments of MiTBackbone for the settings of a SegformerConfig.

    Raises:
        ValueError: if a setting is missing, or MiTBackbone does not have its value.
    """
    missing = [key for key in SETTINGS if key not in settings]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    for key, value in FIXED.items():
        if settings.get(key, value) != value:
            raise ValueError(f"{key} must be {value!r}. Received {settings[key]!r}")
    if any(ratio != MLP_RATIO for ratio in settings.get("mlp_ratios", ())):
        raise ValueError(f"mlp_ratios must be {MLP_RATIO}. Received {settings['mlp_ratios']}")
    return {argument: settings[key] for key, argument in SETTINGS.items()}


def load(network: keras.Model, path: str | os.PathLike):
    """Load the encoder of a model.safetensors file. Other layers of the file are ignored.

    Args:
        network: a MiTBackbone.
        path: the file.

    Raises:
        ValueError: if an array is missing, or has another shape.
    """
    from safetensors import safe_open  # late: `mm_keras` imports without it

    with safe_open(os.fspath(path), framework="numpy") as file:
        present = set(file.keys())
        prefix = PREFIX if any(key.startswith(PREFIX) for key in present) else ""
        values = []
        for name, variable in variables(network):
            if prefix + name not in present:
                raise ValueError(f"it has no array {prefix + name!r}")
            value = _arranged(name, file.get_tensor(prefix + name))
            if value.shape != variable.shape:
                raise ValueError(
                    f"{prefix + name} gives the shape {value.shape}. Expected {variable.shape}"
                )
            values.append((variable, value))
    for variable, value in values:
        variable.assign(value)


def variables(network: keras.Model) -> list[tuple[str, keras.Variable]]:
    """Return (name of an array without prefix, variable) for all weights of a MiTBackbone."""
    found = []
    for k, (embedding, blocks, norm) in enumerate(mix_transformers.parts_of(network)):
        found += [
            (f"encoder.patch_embeddings.{k}.proj", embedding.proj),
            (f"encoder.patch_embeddings.{k}.layer_norm", embedding.norm),
            (f"encoder.layer_norm.{k}", norm),
        ]
        for j, block in enumerate(blocks):
            found += [(f"encoder.block.{k}.{j}.{name}", x) for name, x in _of_block(block)]
    return [
        (f"{name}.{kind}", variable)
        for name, layer in found
        for kind, variable in zip(("weight", "bias"), layer.weights, strict=True)
    ]


def _of_block(block):
    attention, mlp = block.attn, block.mlp
    parts = [("query", attention.q), ("key", attention.k), ("value", attention.v)]
    if attention.sr_ratio > 1:
        parts += [("sr", attention.sr), ("layer_norm", attention.norm)]
    return [
        ("layer_norm_1", block.norm1),
        *((f"attention.self.{name}", layer) for name, layer in parts),
        ("attention.output.dense", attention.proj),
        ("layer_norm_2", block.norm2),
        ("mlp.dense1", mlp.fc1),
        ("mlp.dwconv.dwconv", mlp.dwconv),
        ("mlp.dense2", mlp.fc2),
    ]


def _arranged(name, value):
    """Return a kernel of torch in the order of Keras; other arrays as they are."""
    if value.ndim == 4:
        return value.transpose(2, 3, 0, 1) if "dwconv" in name else value.transpose(2, 3, 1, 0)
    return value.T
