"""The network: sizes of the paper, equality with torchscale, routing, attention."""

import pytest
import torch
from torch import nn

from model import BEiT3, BEiT3Config
from model.network import interop

SHARED = BEiT3Config.named("tiny", vocabulary=60, codes=20, max_text_length=40)
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
    vocabulary=60,
    codes=20,
)


def network(config: BEiT3Config) -> BEiT3:
    """A network whose weights are all away from their start."""
    torch.manual_seed(0)
    made = BEiT3(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return made


def pictures(config: BEiT3Config, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, config.image_size, config.image_size)


def millions(made: nn.Module, *parts: str) -> float:
    return (
        sum(p.numel() for name, p in made.named_parameters() if any(part in name for part in parts))
        / 1e6
    )


def test_the_giant_has_the_paper_s_parameters_by_part():
    with torch.device("meta"):
        giant = BEiT3(BEiT3Config.named("giant"))
    assert round(millions(giant, "experts.vision.fc")) == 692
    assert round(millions(giant, "experts.language.fc")) == 692
    assert round(millions(giant, "fusion.fc")) == 52
    assert round(millions(giant, "language.words")) == 90
    assert round(millions(giant, "attention.qkv", "attention.out")) == 317


def test_the_released_base_has_its_parameters():
    with torch.device("meta"):
        base = BEiT3(BEiT3Config.named("base", attention="decoupled", fusion_layers=0, subln=True))
    assert round(millions(base, ""), 2) == 276.51


@pytest.mark.parametrize("kind", ["image", "text", "pair"])
def test_torchscale_gives_the_same_hidden_states(kind):
    from torchscale.architecture.config import EncoderConfig
    from torchscale.model.BEiT3 import BEiT3 as Torchscale

    config = RELEASED
    ours = network(config)
    theirs = Torchscale(
        EncoderConfig(
            img_size=config.image_size,
            patch_size=config.patch_size,
            vocab_size=config.vocabulary,
            multiway=True,
            normalize_output=True,
            no_output_layer=True,
            subln=True,
            encoder_embed_dim=config.width,
            encoder_attention_heads=config.heads,
            encoder_layers=config.depth,
            encoder_ffn_embed_dim=config.ffn_width,
            max_source_positions=config.max_text_length + 2,
        )
    ).eval()
    official, left = interop.to_official(ours.state_dict(), config)
    assert left == []
    prefix = "beit3."
    state = {n.removeprefix(prefix): t for n, t in official.items() if n.startswith(prefix)}
    theirs.load_state_dict(state, strict=True)
    again = interop.from_official(official, config)
    assert all(torch.equal(again[n], t) for n, t in ours.state_dict().items())

    images = pictures(config) if kind != "text" else None
    ids = torch.randint(4, 60, (2, 10)) if kind != "image" else None
    padding = torch.zeros(2, 10, dtype=torch.bool)
    padding[1, 6:] = True
    mask = torch.rand(2, 16) < 0.4
    with torch.no_grad():
        mine = ours(
            images, ids, padding if ids is not None else None, mask if images is not None else None
        ).hidden
        reference = theirs(
            textual_tokens=ids,
            visual_tokens=images,
            text_padding_position=padding if ids is not None else None,
            vision_masked_position=mask if images is not None else None,
        )["encoder_out"]
    keep = torch.ones(mine.shape[:2], dtype=torch.bool)
    if ids is not None:
        keep[1, -4:] = False
    torch.testing.assert_close(mine[keep], reference[keep], atol=1e-4, rtol=1e-4)


def test_shared_weights_are_written_for_both_modalities():
    ours = network(SHARED)
    official, left = interop.to_official(ours.state_dict(), SHARED)
    key = "beit3.encoder.layers.0.self_attn.out_proj.{}.weight"
    assert torch.equal(official[key.format("A")], official[key.format("B")])
    assert left and all(".fusion." in name for name in left)


def test_a_foreign_state_is_listed_completely():
    official, _ = interop.to_official(network(RELEASED).state_dict(), RELEASED)
    del official["beit3.text_embed.weight"]
    official["surplus"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"text_embed\.weight.*surplus"):
        interop.from_official(official, RELEASED)


@pytest.mark.parametrize("config", [SHARED, RELEASED], ids=["paper", "released"])
def test_a_modality_alone_gives_no_gradient_to_the_other(config):
    made = network(config)
    foreign = ("experts.language", "fusion", "language.", "qkv.language", "out.language")
    made(images=pictures(config)).hidden.square().sum().backward()
    for name, parameter in made.named_parameters():
        if any(part in name for part in foreign):
            assert parameter.grad is None, name
    made.zero_grad(set_to_none=True)
    made(text_ids=torch.randint(4, 60, (2, 7))).hidden.square().sum().backward()
    for name, parameter in made.named_parameters():
        if any(part in name for part in ("experts.vision", "fusion", "vision.", "qkv.vision")):
            assert parameter.grad is None, name


def test_pairs_use_the_fusion_expert_in_the_top_layers_only():
    made = network(SHARED)
    made(pictures(SHARED), torch.randint(4, 60, (2, 7))).hidden.square().sum().backward()
    used = {
        name.split(".")[1]
        for name, p in made.named_parameters()
        if ".fusion." in name and p.grad is not None
    }
    assert used == {"2"}
    alone = {name for name, p in made.named_parameters() if ".experts." in name and p.grad is None}
    assert {name.split(".")[1] for name in alone} == {"2"}


@pytest.mark.parametrize("config", [SHARED, RELEASED], ids=["paper", "released"])
def test_padding_never_reaches_real_positions(config):
    made = network(config)
    images, ids = pictures(config), torch.randint(4, 60, (2, 9))
    padding = torch.zeros(2, 9, dtype=torch.bool)
    padding[:, 5:] = True
    with torch.no_grad():
        one = made(images, ids, padding)
        other = ids.clone()
        other[:, 5:] = 7
        two = made(images, other, padding)
        short = made(images, ids[:, :5])
    torch.testing.assert_close(one.text[:, :5], two.text[:, :5])
    torch.testing.assert_close(one.text[:, :5], short.text, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.patches, short.patches, atol=1e-5, rtol=1e-5)


def test_in_seq2seq_a_token_sees_patches_and_its_left_only():
    made = network(SHARED)
    images, ids = pictures(SHARED), torch.randint(4, 60, (2, 9))
    changed = ids.clone()
    changed[:, 6] = (ids[:, 6] + 1) % 60
    with torch.no_grad():
        before = made(images, ids, attention="seq2seq")
        after = made(images, changed, attention="seq2seq")
        elsewhere = made(images + 0.5, ids, attention="seq2seq")
    torch.testing.assert_close(before.text[:, :6], after.text[:, :6])
    torch.testing.assert_close(before.patches, after.patches)
    assert not torch.allclose(before.text[:, 6:], after.text[:, 6:])
    assert not torch.allclose(before.text[:, 0], elsewhere.text[:, 0])


def test_every_parameter_is_initialised():
    for config in (SHARED, RELEASED):
        made = BEiT3(config)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.fill_(float("nan"))
        made.reset_parameters()
        unset = [name for name, p in made.named_parameters() if p.isnan().any()]
        assert unset == []


def test_beit_s_initialisation_divides_outputs_by_depth():
    made = BEiT3(BEiT3Config.named("tiny", width=256, heads=4, ffn_width=512, vocabulary=60))
    for layer, block in enumerate(made.blocks, start=1):
        expected = 0.02 / (2 * layer) ** 0.5
        assert abs(float(block.attention.out.both.weight.detach().std()) / expected - 1) < 0.05
        assert abs(float(block.experts.vision.fc2.weight.detach().std()) / expected - 1) < 0.05
        assert abs(float(block.attention.qkv.both.weight.detach().std()) / 0.02 - 1) < 0.05


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"heads": 5}, "5 heads"), ({"patch_size": 7}, "patch_size 7"), ({"fusion_layers": 9}, "9")],
)
def test_sizes_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        BEiT3Config.named("tiny", **changes)
    with pytest.raises(ValueError, match="sizes: tiny"):
        BEiT3Config.named("huge")


def test_a_configuration_survives_its_dictionary():
    assert BEiT3Config.from_dict(SHARED.to_dict()) == SHARED
    with pytest.raises(ValueError, match="colour"):
        BEiT3Config.from_dict(SHARED.to_dict() | {"colour": 1})
