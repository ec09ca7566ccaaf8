"""VQ-KD: the quantiser against plain loops, learning, revival, saving, and the teachers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tokenizer.quantiser import Quantiser
from tokenizer.teachers import HandCrafted, make_teacher
from tokenizer.vqkd import VQKD, VQKDConfig

CONFIG = VQKDConfig(
    image_size=32,
    patch_size=8,
    width=32,
    depth=1,
    heads=2,
    decoder_depth=1,
    num_codes=16,
    code_dim=8,
    teacher_dim=HandCrafted.dim,
    decay=0.9,
)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_the_codebook_follows_its_features_as_plain_loops_say():
    """BEiT v2's rule restated: nearest by cosine, then a moving average, then the unit sphere."""
    torch.manual_seed(0)
    quantiser = Quantiser(num_codes=6, dim=4, decay=0.9, revive_below=0).double().train()
    generator = torch.Generator().manual_seed(1)
    quantiser(torch.randn(5, 8, 4).double(), generator)  # starts the codebook
    codebook = quantiser.embedding.weight.numpy().astype(np.float64).copy()
    for _ in range(50):
        z = torch.randn(3, 7, 4).double()
        quantised, codes, commitment = quantiser(z, generator)
        features = unit(z.numpy().reshape(-1, 4))
        chosen = [int(np.argmax([f @ c for c in codebook])) for f in features]
        assert codes.reshape(-1).tolist() == chosen
        expected = codebook[chosen]
        np.testing.assert_allclose(quantised.reshape(-1, 4).numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(
            float(commitment), np.mean((expected - features) ** 2), rtol=1e-5
        )
        for code in range(6):
            mine = features[[c == code for c in chosen]]
            if len(mine):
                mean = unit(mine.sum(0))
                codebook[code] = unit(0.9 * codebook[code] + 0.1 * mean)
        np.testing.assert_allclose(quantiser.embedding.weight.numpy(), codebook, atol=1e-5)


def test_the_gradient_passes_straight_through():
    quantiser = Quantiser(4, 3, 0.9, 0).train()
    z = torch.randn(2, 5, 3, requires_grad=True)
    quantised, _, _ = quantiser(z, torch.Generator().manual_seed(0))
    (quantised * torch.ones(3)).sum().backward()
    expected = torch.autograd.grad(F.normalize(z, dim=-1).sum(), z)[0]
    torch.testing.assert_close(z.grad, expected)


def test_a_dead_code_is_set_on_a_feature_and_without_revival_stays_dead():
    for revive_below, alive in ((0.0, False), (0.5, True)):
        quantiser = Quantiser(4, 2, 0.5, revive_below).train()
        generator = torch.Generator().manual_seed(0)
        quantiser(F.normalize(torch.randn(1, 64, 2), dim=-1), generator)
        quantiser.embedding.weight[3] = torch.tensor([-1.0, 0.0])
        for _ in range(10):  # nothing lies near the last code
            z = torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.9, 0.3]]).repeat(20, 1)[None]
            quantiser(z, generator)
        assert (float(quantiser.embedding.weight[3, 0]) > 0) is alive


def test_evaluation_leaves_the_codebook_alone():
    quantiser = Quantiser(4, 3, 0.9, 0.5).train()
    generator = torch.Generator().manual_seed(0)
    quantiser(torch.randn(2, 5, 3), generator)
    before = quantiser.embedding.weight.clone()
    quantiser.eval()(torch.randn(2, 5, 3), generator)
    assert torch.equal(quantiser.embedding.weight, before)


def test_it_learns_what_a_teacher_sees():
    torch.manual_seed(0)
    tokenizer, teacher = VQKD(CONFIG), make_teacher("hand_crafted", CONFIG.grid, None)
    optimiser = torch.optim.AdamW(tokenizer.parameters(), 2e-3)
    images = torch.rand(16, 3, 1, 1).expand(-1, -1, 32, 32) * 2 - 1  # one colour each
    cosines = []
    for step in range(60):
        generator = torch.Generator().manual_seed(step)
        distilled = tokenizer(images, teacher(images), generator)
        optimiser.zero_grad()
        distilled.loss.backward()
        optimiser.step()
        cosines.append(float(distilled.cosine.detach()))
    assert cosines[-1] > 0.9 > cosines[0]


def test_a_saved_tokenizer_gives_the_same_codes(tmp_path):
    torch.manual_seed(0)
    tokenizer = VQKD(CONFIG)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    tokenizer(images, torch.randn(2, 16, CONFIG.teacher_dim), torch.Generator())
    tokenizer.save(tmp_path / "vqkd.pt")
    loaded = VQKD.load(tmp_path / "vqkd.pt")
    codes = loaded.encode(images)
    assert codes.shape == (2, 16)
    assert torch.equal(codes, tokenizer.eval().encode(images))


def test_the_hand_crafted_teacher_sees_colour_and_direction():
    teacher = HandCrafted(grid=2)
    stripes = torch.sin(torch.arange(32.0))[None, None, None, :].expand(1, 3, 32, 32)
    upright, lying = teacher(stripes), teacher(stripes.transpose(2, 3))
    assert upright.shape == (1, 4, HandCrafted.dim)
    similar = F.cosine_similarity(upright, lying, dim=-1)
    assert similar.max() < 0.5
    torch.testing.assert_close(teacher(torch.zeros(1, 3, 32, 32)), torch.zeros(1, 4, teacher.dim))


def test_a_teacher_without_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="clip"):
        make_teacher("clip", 14, tmp_path / "none.pt")


@pytest.mark.slow
def test_the_clip_teacher_is_timm_s_network_from_a_local_file(tmp_path):
    import timm

    network = timm.create_model("vit_base_patch16_clip_224.openai", num_classes=512).eval()
    torch.save(network.state_dict(), tmp_path / "clip.pt")
    teacher = make_teacher("clip", 14, tmp_path / "clip.pt")
    images = torch.rand(1, 3, 224, 224) * 2 - 1
    normalised = ((images + 1) / 2 - teacher.mean) / teacher.std
    with torch.no_grad():
        expected = network.head(network.forward_features(normalised)[:, 1:])
        torch.testing.assert_close(teacher(images), expected)
