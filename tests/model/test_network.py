"""The network: sizes of the paper, routing, attention, generation, initialization.

Equality with other programs is in ``test_interop``, ways of running it in ``test_running``.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model import BEiT3, BEiT3Config
from tests.model.networks import RELEASED, SHARED, network, random_images


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
    assert round(millions(giant, "language.tokens")) == 90
    assert round(millions(giant, "attention.qkv", "attention.out")) == 317


def test_the_released_base_has_its_parameters():
    """276.51M as pretrained; 222.17M as the retrieval checkpoint.

    That one has two projections, a temperature, and in each position table the two rows that
    fairseq's padding index leaves unused.
    """
    with torch.device("meta"):
        base = BEiT3(BEiT3Config.named("base", attention="decoupled", fusion_layers=0, subln=True))
    assert round(millions(base, ""), 2) == 276.51
    without_heads = millions(base, "") - millions(base, "mlm_head", "mim_head")
    retrieval = 2 * 768**2 + 1 + 2 * 2 * 768
    assert round(without_heads + retrieval / 1e6, 2) == 222.17


@pytest.mark.parametrize("config", [SHARED, RELEASED], ids=["paper", "released"])
def test_a_modality_alone_gives_no_gradient_to_the_other(config):
    made = network(config)
    foreign = ("experts.language", "fusion", "language.", "qkv.language", "out.language")
    made(images=random_images(config)).hidden.square().sum().backward()
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
    made(random_images(SHARED), torch.randint(4, 60, (2, 7))).hidden.square().sum().backward()
    used = {
        name.split(".")[1]
        for name, p in made.named_parameters()
        if ".fusion." in name and p.grad is not None
    }
    assert used == {"2"}
    alone = {name for name, p in made.named_parameters() if ".experts." in name and p.grad is None}
    assert {name.split(".")[1] for name in alone} == {"2"}


@pytest.mark.parametrize("config", [SHARED, RELEASED], ids=["paper", "released"])
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), alone=st.booleans())
@settings(max_examples=25, deadline=None)
def test_padding_has_no_effect_on_real_positions(config, lengths, alone):
    made = network(config)
    images = None if alone else random_images(config, len(lengths))
    ids = torch.randint(4, 60, (len(lengths), 9))
    padding = torch.arange(9) >= torch.tensor(lengths)[:, None]
    other = torch.where(padding, torch.randint(4, 60, ids.shape), ids)
    with torch.no_grad():
        one, two = made(images, ids, padding), made(images, other, padding)
        torch.testing.assert_close(one.text[~padding], two.text[~padding])
        torch.testing.assert_close(one.patches, two.patches)
        for row, length in enumerate(lengths):
            single = None if images is None else images[row : row + 1]
            short = made(single, ids[row : row + 1, :length])
            torch.testing.assert_close(one.text[row, :length], short.text[0], atol=1e-5, rtol=1e-5)


def test_isolated_packed_documents_are_encoded_as_if_each_were_alone():
    made = network(SHARED)
    lengths = [[5, 9, 3], [1, 14, 2]]
    ids = torch.randint(4, 60, (2, 17))
    documents = torch.tensor([[i for i, n in enumerate(row) for _ in range(n)] for row in lengths])
    hidden = made(text_ids=ids, text_documents=documents).hidden
    together = made(text_ids=ids).hidden
    for row, ends in enumerate(lengths):
        start = 0
        for length in ends:
            alone = made(text_ids=ids[row : row + 1, start : start + length]).hidden[0]
            torch.testing.assert_close(
                hidden[row, start : start + length], alone, atol=1e-5, rtol=1e-5
            )
            start += length
    assert not torch.allclose(hidden, together, atol=1e-2)
    with pytest.raises(ValueError, match="for texts alone"):
        made(random_images(SHARED), ids, text_documents=documents)


def test_in_seq2seq_a_token_attends_to_patches_and_earlier_tokens_only():
    made = network(SHARED)
    images, ids = random_images(SHARED), torch.randint(4, 60, (2, 9))
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


IDS = torch.full((2, 7), 5)
IMAGES = torch.zeros(2, 3, 64, 64)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "neither images nor text_ids are given"),
        ({"text_ids": IDS, "attention": "causal"}, "attention='causal'; give bidirectional or seq"),
        ({"text_ids": IDS.float()}, "text_ids have type float32; give int64"),
        ({"text_ids": IDS[0]}, r"text_ids have shape \(7,\); give \(B, T\)"),
        ({"images": IMAGES.byte()}, "images have type uint8; give float, normalized"),
        ({"images": IMAGES[0]}, r"images have shape \(3, 64, 64\); give \(B, 3, height, width\)"),
        ({"images": IMAGES.permute(0, 2, 3, 1)}, r"images have shape \(2, 64, 64, 3\); give"),
        ({"images": IMAGES[:, :, :32]}, r"images of \(32, 64\) pixels, image_size is 64; resize"),
        ({"images": IMAGES[:1], "text_ids": IDS}, "1 images and 2 texts; give one text for each"),
    ],
)
def test_inputs_of_another_type_or_shape_are_refused(inputs, words):
    with pytest.raises(ValueError, match=words):
        network(SHARED)(**inputs)


@pytest.mark.parametrize("name", ["text_padding", "image_mask"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.float32])
def test_a_mask_that_is_not_bool_is_refused(name, dtype):
    """Of integers it is unknown whether 1 means padded, as here, or present, as elsewhere."""
    made = network(SHARED)
    shape = (2, 7) if name == "text_padding" else (2, SHARED.num_patches)
    mask = torch.zeros(shape, dtype=dtype)
    words = f"{name} has type {str(dtype).removeprefix('torch.')}; give bool, True = "
    with pytest.raises(ValueError, match=words):
        made(random_images(SHARED), torch.randint(4, 60, (2, 7)), **{name: mask})


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("text_padding", (2, 8), r"text_padding has shape \(2, 8\), text_ids need \(2, 7\)"),
        ("text_padding", (7,), r"text_padding has shape \(7,\), text_ids need \(2, 7\)"),
        ("image_mask", (2, 8, 8), r"image_mask has shape \(2, 8, 8\), images need \(2, 64\)"),
        ("image_mask", (2, 65), r"image_mask has shape \(2, 65\), images need \(2, 64\)"),
    ],
)
def test_a_mask_of_another_shape_is_refused(name, shape, words):
    made, mask = network(SHARED), torch.zeros(shape, dtype=torch.bool)
    with pytest.raises(ValueError, match=words):
        made(random_images(SHARED), torch.randint(4, 60, (2, 7)), **{name: mask})


def test_a_mask_of_a_modality_that_is_not_given_is_refused():
    made = network(SHARED)
    with pytest.raises(ValueError, match="text_padding is given without text_ids"):
        made(random_images(SHARED), text_padding=torch.zeros(2, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match="image_mask is given without images"):
        made(text_ids=torch.zeros(2, 7, dtype=torch.long), image_mask=torch.zeros(2, 64).bool())


@pytest.mark.parametrize("config", [SHARED, RELEASED], ids=["paper", "released"])
def test_a_network_without_final_norm_returns_the_last_block(config):
    plain = network(config)
    bare = BEiT3(replace(config, final_norm=False)).eval()
    bare.load_state_dict({n: t for n, t in plain.state_dict().items() if not n.startswith("norm.")})
    images, ids = random_images(config), torch.randint(4, 60, (2, 7))
    with torch.no_grad():
        for sample in ({"images": images}, {"text_ids": ids}, {"images": images, "text_ids": ids}):
            hidden = bare(**sample).hidden
            assert torch.equal(hidden, plain(**sample, keep_layers=True).layers[-1])


def test_a_dual_encoder_is_two_independent_calls():
    """The hidden states of one modality do not depend on a call with the other."""
    made = network(SHARED)
    images, ids = random_images(SHARED), torch.randint(4, 60, (2, 7))
    with torch.no_grad():
        image, text = made(images=images).hidden[:, 0], made(text_ids=ids).hidden[:, 0]
        assert torch.equal(image, made(images=images).hidden[:, 0])
        assert not torch.allclose(image, made(images, ids).hidden[:, 0])
    assert image.shape == text.shape == (2, SHARED.width)


def test_layers_are_returned_on_request():
    made = network(SHARED)
    images, ids = random_images(SHARED), torch.randint(4, 60, (2, 7))
    with torch.no_grad():
        plain, asked = made(images, ids), made(images, ids, keep_layers=True)
        last = asked.layers[-1]
        assert torch.equal(made.norm.both(last), asked.hidden)
    assert plain.layers == () and len(asked.layers) == SHARED.depth
    assert torch.equal(plain.hidden, asked.hidden)


def test_every_parameter_is_initialized():
    for config in (SHARED, RELEASED):
        made = BEiT3(config)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.fill_(float("nan"))
        made.reset_parameters()
        unset = [name for name, p in made.named_parameters() if p.isnan().any()]
        assert unset == []


def test_beit_s_initialization_divides_outputs_by_depth():
    made = BEiT3(BEiT3Config.named("tiny", width=256, num_heads=4, ffn_width=512, vocab_size=60))
    for layer, block in enumerate(made.blocks, start=1):
        expected = 0.02 / (2 * layer) ** 0.5
        assert abs(float(block.attention.out.both.weight.detach().std()) / expected - 1) < 0.05
        assert abs(float(block.experts.vision.fc2.weight.detach().std()) / expected - 1) < 0.05
        assert abs(float(block.attention.qkv.both.weight.detach().std()) / 0.02 - 1) < 0.05


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_heads": 5}, "num_heads 5"),
        ({"patch_size": 7}, "patch_size 7"),
        ({"fusion_layers": 9}, "fusion_layers 9"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        BEiT3Config.named("tiny", **changes)
    with pytest.raises(ValueError, match="sizes: tiny"):
        BEiT3Config.named("huge")


def test_a_configuration_is_restored_from_its_dictionary():
    assert BEiT3Config.from_dict(SHARED.to_dict()) == SHARED
    with pytest.raises(ValueError, match="color"):
        BEiT3Config.from_dict(SHARED.to_dict() | {"color": 1})
