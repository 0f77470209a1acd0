"""Write tests/golden/transformers.json with torch and Hugging Face's transformers.

Run it in an environment with torch and transformers. Weights are drawn by name, so that the tests
make the same ones without torch.
"""

import json
import pathlib
import tempfile
import zlib

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "transformers.json"
COMMON = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "image_size": 70}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODELS = {
    "dinov2": (transformers.Dinov2Config, transformers.Dinov2Model, {"patch_size": 14}),
    "dinov2_with_registers": (
        transformers.Dinov2WithRegistersConfig,
        transformers.Dinov2WithRegistersModel,
        {"patch_size": 14, "num_register_tokens": 4},
    ),
    "dinov3_vit": (
        transformers.DINOv3ViTConfig,
        transformers.DINOv3ViTModel,
        {"patch_size": 14, "intermediate_size": 64, "num_register_tokens": 4},
    ),
    "vit": (transformers.ViTConfig, transformers.ViTForImageClassification, {"patch_size": 14}),
    "segformer": (
        transformers.SegformerConfig,
        transformers.SegformerForImageClassification,
        {
            "num_encoder_blocks": 3,
            "depths": [1, 2, 1],
            "hidden_sizes": [8, 16, 24],
            "num_attention_heads": [1, 2, 3],
            "sr_ratios": [4, 2, 1],
            "patch_sizes": [7, 3, 3],
            "strides": [4, 2, 2],
            "mlp_ratios": [4, 4, 4],
        },
    ),
}
SIZES = ((70, 70), (98, 42))


def weights(name, shape):
    """Return the values of a tensor, float32."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.normal(0, 0.2, shape).astype("float32")


def pixels(size):
    images = np.random.default_rng(0).integers(0, 256, (1, *size, 3))
    prepared = (images / 255 - MEAN) / DEVIATION
    return torch.tensor(prepared.transpose(0, 3, 1, 2), dtype=torch.float32)


def described(kind):
    """Return the settings, the shapes of all stored tensors and some outputs of a model."""
    config_class, model_class, settings = MODELS[kind]
    settings = settings if kind == "segformer" else COMMON | settings
    with tempfile.TemporaryDirectory() as folder:
        model_class(config_class(**settings)).save_pretrained(folder)
        path = pathlib.Path(folder) / "model.safetensors"  # published files have its names
        shapes = {name: value.shape for name, value in load_file(path).items()}
        save_file({n: weights(n, s) for n, s in shapes.items()}, path, metadata={"format": "pt"})
        model = model_class.from_pretrained(folder).eval()
        config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    return {
        "config": config,
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "outputs": {
            "x".join(map(str, size)): (maps if kind == "segformer" else patches)(model, size)
            for size in SIZES
        },
    }


def maps(model, size):
    """Return some channels of some cells of each stage."""
    with torch.no_grad():
        outputs = model.segformer(pixels(size), output_hidden_states=True).hidden_states
    stages = [value[0].permute(1, 2, 0).numpy() for value in outputs]
    return [value.reshape(-1, value.shape[-1])[::7, ::5].reshape(-1).tolist() for value in stages]


def patches(model, size):
    """Return some channels of some patches after the final norm."""
    is_vit = hasattr(model, "vit")
    body, more = (model.vit, {"interpolate_pos_encoding": True}) if is_vit else (model, {})
    with torch.no_grad():
        tokens = body(pixels(size), **more).last_hidden_state[0].numpy()
    return tokens[-(size[0] // 14) * (size[1] // 14) :][::3, ::5].reshape(-1).tolist()


def bicubic(grid, antialias):
    count = np.arange(37 * 37 * 3, dtype="float64")
    table = torch.tensor(np.sin(count * 1.7).reshape(1, 37, 37, 3).astype("float32"))
    resized = torch.nn.functional.interpolate(
        table.permute(0, 3, 1, 2), size=grid, mode="bicubic", antialias=antialias
    )
    return resized.permute(0, 2, 3, 1)[0, ::7, ::5].reshape(-1).tolist()


def main():
    content = {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "models": {kind: described(kind) for kind in MODELS},
        "bicubic_37x37": {
            f"{h}x{w}, antialias {antialias}": bicubic((h, w), antialias)
            for h, w in ((16, 16), (37, 37), (50, 20))
            for antialias in (False, True)
        },
    }
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
