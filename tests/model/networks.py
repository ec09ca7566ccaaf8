"""Small networks of the paper's and the released form, for the tests."""

from typing import Any

import torch

from model import BEiT3, BEiT3Config

SHARED = BEiT3Config.named("tiny", vocab_size=60, num_codes=20, max_text_length=40)
ONE_EXPERT = BEiT3Config.named(
    "tiny", vocab_size=60, num_codes=20, max_text_length=40, experts="shared", fusion_layers=0
)
RELEASED = BEiT3Config(
    48,
    3,
    4,
    96,
    image_size=32,
    patch_size=8,
    fusion_layers=0,
    attention="decoupled",
    subln=True,
    vocab_size=60,
    num_codes=20,
)


def network(config: BEiT3Config) -> BEiT3:
    """A network in evaluation mode, all of whose weights differ from their initial values."""
    torch.manual_seed(0)
    made = BEiT3(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return made


def random_images(config: BEiT3Config, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, config.image_size, config.image_size)


def official_arguments(config: BEiT3Config) -> dict[str, Any]:
    """What the authors' ``_get_base_config`` passes to torchscale's ``EncoderConfig``.

    It leaves sub-LayerNorm and the length of the text position table at torchscale's defaults.
    """
    return {
        "img_size": config.image_size, "patch_size": config.patch_size,
        "vocab_size": config.vocab_size, "multiway": True, "layernorm_embedding": False,
        "normalize_output": config.final_norm, "no_output_layer": True, "drop_path_rate": 0,
        "encoder_embed_dim": config.width, "encoder_attention_heads": config.num_heads,
        "encoder_ffn_embed_dim": config.ffn_width, "encoder_layers": config.depth,
    }  # fmt: skip
