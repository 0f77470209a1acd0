"""Write tests/golden/transformers.json with torch and Hugging Face's transformers.

Run it in an environment with torch and transformers. Weights are drawn by name, so that the tests
make the same ones without torch.
"""

import json
import pathlib
import zlib

import numpy as np
import torch
import transformers

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
    "vit": (transformers.ViTConfig, transformers.ViTModel, {"patch_size": 14}),
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
    """Return the settings, the shapes of all tensors and some outputs of a model."""
    config_class, model_class, settings = MODELS[kind]
    config = config_class(**COMMON, **settings)
    model = model_class(config).eval()
    tensors = {name: torch.tensor(weights(name, value.shape)) for name, value in _stored(model)}
    model.load_state_dict(tensors, strict=False)
    more = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    outputs = {}
    for size in SIZES:
        with torch.no_grad():
            tokens = model(pixels(size), **more).last_hidden_state[0].numpy()
        patches = tokens[-(size[0] // 14) * (size[1] // 14) :]
        outputs["x".join(map(str, size))] = patches[::3, ::5].reshape(-1).tolist()
    return {
        "config": config.to_dict(),
        "shapes": {name: list(value.shape) for name, value in _stored(model)},
        "outputs": outputs,
    }


def _stored(model):
    return [(name, value) for name, value in model.state_dict().items() if "pooler" not in name]


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
