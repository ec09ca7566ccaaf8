"""Small networks of the paper's and the released form, for the tests."""

import torch

from model import BEiT3, BEiT3Config

SHARED = BEiT3Config.named("tiny", vocab_size=60, num_codes=20, max_text_length=40)
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
