"""The attention weights of the last block, against what the forward passes to its kernel."""

import pytest
import torch
import torch.nn.functional as F

from model import BEiT3, BEiT3Config
from model.network.attention_weights import last_attention

CONFIG = BEiT3Config(
    32, 2, 2, 64, image_size=32, patch_size=8, fusion_layers=1, vocab_size=60, num_codes=50,
    max_text_length=32,
)  # fmt: skip
ONE_BLOCK = BEiT3Config(
    32, 1, 2, 64, image_size=32, patch_size=8, fusion_layers=1, vocab_size=60, num_codes=50,
    max_text_length=32,
)  # fmt: skip
BATCH, LENGTH = 2, 5


@pytest.mark.parametrize("config", [CONFIG, ONE_BLOCK])
@pytest.mark.parametrize("kinds", ["image", "text", "pair", "padded"])
def test_the_weights_are_those_of_the_forward(config, kinds, monkeypatch):
    torch.manual_seed(0)
    network = BEiT3(config).eval()
    images = None if kinds == "text" else torch.randn(BATCH, 3, 32, 32)
    ids = None if kinds == "image" else torch.randint(4, 60, (BATCH, LENGTH))
    padding = torch.arange(LENGTH).expand(BATCH, -1) >= 3 if kinds == "padded" else None
    calls = []
    kernel = F.scaled_dot_product_attention

    def spy(q, k, v, attn_mask=None):
        result = kernel(q, k, v, attn_mask=attn_mask)
        calls.append((v, result))
        return result

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    with torch.no_grad():
        network(images, ids, padding)
    values, expected = calls[-1]
    weights = last_attention(network, images, ids, padding)
    torch.testing.assert_close(weights @ values, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    if padding is not None:
        assert weights[..., -2:].abs().max() == 0
