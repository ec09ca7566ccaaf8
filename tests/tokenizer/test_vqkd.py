"""VQ-KD: training, the published layout, timm's features for the same weights, teachers."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models.beit import Beit
from torch import nn

from tokenizer.beit_v2 import to_beit_v2
from tokenizer.teachers import HandCrafted, make_teacher
from tokenizer.vqkd import VQKD, VQKDConfig

CONFIG = VQKDConfig(
    image_size=32,
    patch_size=8,
    width=32,
    depth=1,
    num_heads=2,
    decoder_depth=1,
    num_codes=16,
    code_dim=8,
    teacher_dim=HandCrafted.dim,
    ema_decay=0.9,
)


def test_training_learns_the_features_of_a_teacher():
    torch.manual_seed(0)
    tokenizer, teacher = VQKD(CONFIG), make_teacher("hand_crafted", CONFIG.grid, None)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), 2e-3)
    images = torch.rand(16, 3, 1, 1).expand(-1, -1, 32, 32) * 2 - 1  # one color each
    cosines = []
    for step in range(80):
        generator = torch.Generator().manual_seed(step)
        distilled = tokenizer(images, teacher(images), generator)
        optimizer.zero_grad()
        distilled.loss.backward()
        optimizer.step()
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


def published_keys(encoder_depth: int, decoder_depth: int) -> set[str]:
    """Return the keys of a file that BEiT v2's training code writes, without the teacher."""
    keys = {"quantize.cluster_size"}
    keys |= {f"quantize.embedding.{n}" for n in ("weight", "cluster_size", "embed_avg", "initted")}
    for part in ("encode_task_layer", "decode_task_layer"):
        keys |= {f"{part}.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}
    for part, depth in (("encoder", encoder_depth), ("decoder", decoder_depth)):
        keys |= {f"{part}.{name}" for name in ("cls_token", "pos_embed")}
        keys |= {
            f"{part}.{name}.{kind}"
            for name in ("patch_embed.proj", "fc_norm")
            for kind in ("weight", "bias")
        }
        for block in (f"{part}.blocks.{i}" for i in range(depth)):
            keys |= {f"{block}.attn.{n}" for n in ("q_bias", "v_bias", "qkv.weight")}
            keys |= {
                f"{block}.{name}.{kind}"
                for name in ("norm1", "norm2", "attn.proj", "mlp.fc1", "mlp.fc2")
                for kind in ("weight", "bias")
            }
    return keys


def shaken(tokenizer: VQKD) -> VQKD:
    """Change every weight, so that a missing LayerNorm or bias changes the result."""
    with torch.no_grad():
        for parameter in tokenizer.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return tokenizer


def test_a_published_file_is_read_and_its_sizes_come_from_its_shapes(tmp_path):
    torch.manual_seed(0)
    config = VQKDConfig(
        image_size=32, patch_size=8, width=128, depth=2, num_heads=2, decoder_depth=1, num_codes=16,
        code_dim=8, teacher_dim=20,
    )  # fmt: skip
    ours = shaken(VQKD(config))
    state = to_beit_v2(ours.state_dict())
    assert state.keys() == published_keys(2, 1)
    state["teacher_model.visual.proj"] = torch.zeros(3)
    state["scaling_layer.shift"] = torch.zeros(1, 3, 1, 1)
    torch.save({"model": state, "epoch": 99}, tmp_path / "vqkd.pth")
    theirs = VQKD.load(tmp_path / "vqkd.pth")
    assert theirs.config == config
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(theirs.encode(images), ours.eval().encode(images))


def test_a_file_that_is_no_tokenizer_is_refused_by_name(tmp_path):
    for content in ({"model": {"a": torch.zeros(1)}}, {"config": 3}, b"bytes"):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(ValueError, match=r"other\.pth: not a VQ-KD tokenizer"):
            VQKD.load(tmp_path / "other.pth")


def published(config: VQKDConfig) -> tuple[VQKD, dict[str, torch.Tensor]]:
    """A tokenizer and its weights as BEiT v2 publishes them."""
    torch.manual_seed(0)
    made = shaken(VQKD(config)).eval()
    codebook = made.quantize.embedding.weight
    codebook.copy_(F.normalize(torch.randn_like(codebook), dim=-1))
    return made, to_beit_v2(made.state_dict())


def config_of(width: int, num_heads: int) -> VQKDConfig:
    return replace(CONFIG, width=width, num_heads=num_heads)


@pytest.mark.parametrize(("width", "num_heads"), [(64, 1), (128, 2), (192, 3)])
def test_heads_of_a_file_without_configuration_are_assumed_with_a_warning(
    tmp_path, caplog, width, num_heads
):
    _, state = published(config_of(width, num_heads))
    torch.save({"model": state}, tmp_path / "vqkd.pth")
    assert VQKD.load(tmp_path / "vqkd.pth").config.num_heads == num_heads
    assert f"{num_heads} is assumed, from its width {width}" in caplog.text


@pytest.mark.parametrize(("width", "num_heads"), [(32, 2), (96, 3), (160, 5), (128, 8)])
def test_given_heads_of_a_file_without_configuration_need_no_guess(
    tmp_path, caplog, width, num_heads
):
    ours, state = published(config_of(width, num_heads))
    torch.save({"model": state}, tmp_path / "vqkd.pth")
    loaded = VQKD.load(tmp_path / "vqkd.pth", num_heads=num_heads)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(loaded.features(images), ours.features(images))
    assert not caplog.text


@pytest.mark.parametrize("width", [32, 96, 100])
def test_heads_that_the_width_does_not_show_are_asked_for(tmp_path, width):
    _, state = published(config_of(width, 2))
    torch.save({"model": state}, tmp_path / "vqkd.pth")
    with pytest.raises(ValueError, match=rf"width of {width} is not a multiple.*give num_heads"):
        VQKD.load(tmp_path / "vqkd.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_cast_to_float32(tmp_path, dtype):
    ours, state = published(config_of(64, 1))
    cast = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
    torch.save({"model": cast}, tmp_path / "vqkd.pth")
    loaded = VQKD.load(tmp_path / "vqkd.pth")
    assert all(t.dtype == torch.float32 for t in loaded.parameters())
    norms = loaded.quantize.embedding.weight.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-6, rtol=0)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    tolerance = 0.1 if dtype == torch.bfloat16 else 0.01
    torch.testing.assert_close(
        loaded.features(images), ours.features(images), atol=tolerance, rtol=tolerance
    )


def test_the_encoder_gives_the_features_of_timm_s_beit():
    torch.manual_seed(0)
    ours = shaken(VQKD(CONFIG)).eval()
    theirs = Beit(
        img_size=CONFIG.image_size,
        patch_size=CONFIG.patch_size,
        embed_dim=CONFIG.width,
        depth=CONFIG.depth,
        num_heads=CONFIG.num_heads,
        num_classes=0,
        use_abs_pos_emb=True,
        init_values=None,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    ).eval()
    prefix = "encoder."
    state = to_beit_v2(ours.state_dict())
    theirs.load_state_dict(
        {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    )
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        expected = theirs.fc_norm(theirs.forward_features(images)[:, 1:])
        torch.testing.assert_close(ours.encoder(images), expected, atol=1e-5, rtol=1e-5)


def test_the_initialization_is_beit_s():
    encoder = VQKD(VQKDConfig(width=256, depth=3, num_heads=4, decoder_depth=1)).encoder
    for layer, block in enumerate(encoder.blocks, start=1):
        for name in ("attn.proj", "mlp.fc2"):
            spread = float(block.get_submodule(name).weight.detach().std()) * (2 * layer) ** 0.5
            assert abs(spread - 0.02) < 1e-3
        assert abs(float(block.mlp.fc1.weight.detach().std()) - 0.02) < 1e-3


def test_the_hand_crafted_teacher_distinguishes_color_and_direction():
    teacher = HandCrafted(grid=2)
    stripes = torch.sin(torch.arange(32.0))[None, None, None, :].expand(1, 3, 32, 32)
    upright, lying = teacher(stripes), teacher(stripes.transpose(2, 3))
    assert upright.shape == (1, 4, HandCrafted.dim)
    similar = F.cosine_similarity(upright, lying, dim=-1)
    assert similar.max() < 0.5
    torch.testing.assert_close(teacher(torch.zeros(1, 3, 32, 32)), torch.zeros(1, 4, teacher.dim))


@pytest.mark.parametrize("grid", [2, 6, 7])
def test_a_tokenizer_serves_another_grid_by_interpolated_positions(tmp_path, grid):
    torch.manual_seed(0)
    VQKD(CONFIG).save(tmp_path / "vqkd.pt")
    own = VQKD.load(tmp_path / "vqkd.pt")
    other = VQKD.load(tmp_path / "vqkd.pt", grid=grid)
    assert other.config.grid == grid and other.config.image_size == grid * 8
    assert other.encode(torch.rand(2, 3, grid * 8, grid * 8) * 2 - 1).shape == (2, grid**2)
    for name in ("encoder.pos_embed", "decoder.pos_embed"):
        expected = resample_abs_pos_embed(
            own.state_dict()[name], [grid, grid], antialias=False, num_prefix_tokens=1
        )
        torch.testing.assert_close(other.state_dict()[name], expected)


def test_the_own_grid_keeps_the_positions(tmp_path):
    VQKD(CONFIG).save(tmp_path / "vqkd.pt")
    own, same = (VQKD.load(tmp_path / "vqkd.pt", grid=grid) for grid in (None, CONFIG.grid))
    for name, tensor in own.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])
