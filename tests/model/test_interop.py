"""Layouts of other programs, each against its own program: torchscale and timm."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed

from model import BEiT3, BEiT3Config
from model.network import interop
from model.network.loading import ENCODER, StateMismatch, load
from model.network.weight_files import read_weights
from tests.model.networks import RELEASED, SHARED, network, official_arguments, random_images

BASE = BEiT3Config.named("base", attention="decoupled", fusion_layers=0, subln=True)


def torchscale(config: BEiT3Config):
    """torchscale's own network of the same sizes, built as the authors' classes build it."""
    from torchscale.architecture.config import EncoderConfig
    from torchscale.model.BEiT3 import BEiT3 as Reference

    return Reference(EncoderConfig(**official_arguments(config))).eval()


def body(official: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The official state without prefix and heads, as torchscale names it."""
    return {n.removeprefix("beit3."): t for n, t in official.items() if n.startswith("beit3.")}


@pytest.mark.parametrize(
    "config",
    [
        RELEASED,
        BASE,
        replace(RELEASED, max_text_length=30),
        replace(RELEASED, final_norm=False),
        replace(RELEASED, attention="shared"),
        replace(RELEASED, attention="shared", experts="shared"),
    ],
    ids=["small", "base", "short texts", "no final norm", "shared attention", "shared experts"],
)
def test_torchscale_gives_the_same_hidden_states(config):
    """Weights are converted there and back; inputs are images, padded texts and pairs."""
    ours, theirs = network(config), torchscale(config)
    official, left = interop.to_official(ours.state_dict(), config)
    assert left == [] and interop.same_in_official_classes(config)
    theirs.load_state_dict(body(official), strict=True)
    heads = {n: t for n, t in official.items() if "head" in n}
    back = {f"beit3.{n}": t for n, t in theirs.state_dict().items()} | heads
    again = BEiT3(replace(config, attention="decoupled", experts="multiway")).eval()
    load(again, interop.from_official(back))
    if config.attention == "decoupled":
        assert all(torch.equal(t, again.state_dict()[n]) for n, t in ours.state_dict().items())

    images, ids = random_images(config), torch.randint(4, config.vocab_size, (2, 10))
    padding = torch.zeros(2, 10, dtype=torch.bool)
    padding[1, 6:] = True
    mask = torch.rand(2, config.num_patches) < 0.4
    for kind in ("image", "text", "pair"):
        image = {"images": images, "image_mask": mask} if kind != "text" else {}
        text = {"text_ids": ids, "text_padding": padding} if kind != "image" else {}
        names = {
            "images": "visual_tokens",
            "image_mask": "vision_masked_position",
            "text_ids": "textual_tokens",
            "text_padding": "text_padding_position",
        }
        with torch.no_grad():
            mine = again(**image, **text).hidden
            reference = theirs(**{names[n]: value for n, value in (image | text).items()})
        keep = torch.ones(mine.shape[:2], dtype=torch.bool)
        if text:
            keep[1, -4:] = False
        torch.testing.assert_close(
            mine[keep], reference["encoder_out"][keep], atol=1e-4, rtol=1e-4, msg=kind
        )


def test_torchscale_gives_the_same_gradients_of_a_masked_language_loss():
    ours, theirs = network(RELEASED), torchscale(RELEASED)
    official, _ = interop.to_official(ours.state_dict(), RELEASED)
    theirs.load_state_dict(body(official))
    head = torch.nn.Linear(RELEASED.width, RELEASED.vocab_size)
    head.load_state_dict({k: official[f"mlm_head.{k}"] for k in ("weight", "bias")})
    ids, mask = torch.randint(4, 60, (3, 12)), torch.rand(3, 12) < 0.4
    padding = torch.arange(12) >= torch.tensor([12, 9, 5])[:, None]
    mask &= ~padding

    hidden = ours(text_ids=ids, text_padding=padding).text
    F.cross_entropy(ours.mlm_head(hidden[mask]), ids[mask]).backward()
    reference = theirs(textual_tokens=ids, text_padding_position=padding)["encoder_out"]
    F.cross_entropy(head(reference[mask]), ids[mask]).backward()

    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in ours.named_parameters()
    }
    mine, _ = interop.to_official(gradients, RELEASED)
    for name, parameter in theirs.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(
                mine[f"beit3.{name}"], parameter.grad, atol=1e-6, rtol=1e-4, msg=name
            )
    torch.testing.assert_close(mine["mlm_head.weight"], head.weight.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("way", ["checkpoint_path", "filter"])
def test_timm_s_base_gives_the_same_features(tmp_path, way):
    """timm loads the file strictly, both as it is and through its checkpoint filter."""
    ours = network(BASE)
    assert (
        float((ours.norm.vision.weight.detach() - 1).abs().max()) > 0.01
    )  # otherwise a missing norm would go unnoticed
    path = tmp_path / "timm.pt"
    torch.save(interop.to_timm(ours.state_dict(), BASE), path)
    options = {"num_classes": 0, "global_pool": "token"}
    if way == "checkpoint_path":
        options["checkpoint_path"] = str(path)
    else:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}
    theirs = timm.create_model("beit3_base_patch16_224", **options).eval()
    images = random_images(BASE)
    with torch.no_grad():
        hidden = ours(images=images).hidden
        torch.testing.assert_close(hidden, theirs.forward_features(images), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(hidden[:, 0], theirs(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (BEiT3Config.named("large", attention="decoupled", subln=True), "beit3_large_patch16_224"),
        (BEiT3Config.named("large", subln=True), "beit3_large_patch16_224"),
        (BEiT3Config.named("giant", subln=True), "beit3_giant_patch14_224"),
        (BEiT3Config.named("base"), "vit_base_patch16_224"),
    ],
    ids=["large, released form", "large, shared", "giant", "base without sub-LayerNorm"],
)
def test_timm_has_every_vision_weight_in_the_same_shape(ours, theirs):
    with torch.device("meta"):
        state = interop.to_timm(BEiT3(ours).state_dict(), ours)
        expected = timm.create_model(theirs, num_classes=0, global_pool="token").state_dict()
    assert {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in expected.items()}


def test_shared_weights_are_written_for_both_modalities():
    """Hidden states of a single modality are exact although attention was shared."""
    ours = network(SHARED)
    official, left = interop.to_official(ours.state_dict(), SHARED)
    assert left and all(".fusion." in name for name in left)
    decoupled = BEiT3(
        BEiT3Config.from_dict(SHARED.to_dict() | {"attention": "decoupled", "fusion_layers": 0})
    ).eval()
    load(decoupled, interop.from_official(official))
    images, ids = random_images(SHARED), torch.randint(4, 60, (2, 7))
    with torch.no_grad():
        for sample in ({"images": images}, {"text_ids": ids}):
            assert torch.allclose(ours(**sample).hidden, decoupled(**sample).hidden, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "same"),
    [
        (RELEASED, True),
        (BASE, True),
        (replace(RELEASED, attention="shared"), True),
        (replace(RELEASED, final_norm=False), True),
        (replace(RELEASED, subln=False), False),
        (replace(RELEASED, fusion_layers=1), False),
        (SHARED, False),
        (BEiT3Config.named("base"), False),
    ],
)
def test_only_forms_that_the_authors_classes_build_are_called_the_same(config, same):
    assert interop.same_in_official_classes(config) == same


@pytest.mark.parametrize("length", [1, 40, 1021, 1022, 1023, 2000])
def test_the_text_position_table_has_the_length_that_the_authors_classes_build(length):
    config = replace(RELEASED, max_text_length=length)
    state = network(config).state_dict()
    official, omitted = interop.to_official(state, config)
    theirs = torchscale(config).state_dict()
    assert {n: t.shape for n, t in body(official).items()} == {
        n: t.shape for n, t in theirs.items()
    }
    table = official["beit3.encoder.embed_positions.B.weight"][2:]
    kept = min(length, 1022)
    assert torch.equal(table[:kept], state["language.positions"][:kept])
    assert not table[kept:].any()
    assert omitted == (["language.positions from row 1022"] if length > 1022 else [])


def _linear(name: str, inputs: int, outputs: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.randn(outputs, inputs), f"{name}.bias": torch.randn(outputs)}


def _norm(name: str, width: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.randn(width), f"{name}.bias": torch.randn(width)}


D = RELEASED.width
TASKS = {
    "retrieval": (
        True,
        {"vision_head.weight": torch.randn(D, D), "language_head.weight": torch.randn(D, D),
         "logit_scale": torch.tensor(2.6)},
    ),
    "vqa": (
        False,
        _norm("pooler.norm", D) | _linear("pooler.dense", D, D) | _linear("head.0", D, 2 * D)
        | _norm("head.1", 2 * D) | _linear("head.3", 2 * D, 7),
    ),
    "nlvr2": (
        True,
        _norm("head.norm1", 4 * D) | _linear("head.dense1", 4 * D, 2 * D)
        | _norm("head.norm2", 2 * D) | _linear("head.dense2", 2 * D, 2),
    ),
    "imagenet": (False, _norm("fc_norm", D) | _linear("head", D, 5)),
    "other": (True, _linear("classifier", D, 3) | {"temperature": torch.tensor(1.0)}),
}  # fmt: skip
"""By task: whether its network has a final norm, and its head, as the authors' classes name it."""


@pytest.mark.parametrize("envelope", ["bare", "model", "module", "state_dict", "prefix", "file"])
@pytest.mark.parametrize("task", TASKS)
def test_the_encoder_of_a_fine_tuned_network_loads_and_its_head_is_returned(
    tmp_path, task, envelope
):
    final_norm, head = TASKS[task]
    config = replace(RELEASED, final_norm=final_norm)
    theirs, images = torchscale(config), random_images(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        expected = theirs(visual_tokens=images)["encoder_out"]
    saved = {f"beit3.{n}": t for n, t in theirs.state_dict().items()} | head
    if envelope in ("model", "module", "state_dict"):
        saved = {envelope: saved, "epoch": 9}
    elif envelope == "prefix":
        saved = {"model": {f"module.{n}": t for n, t in saved.items()}}
    elif envelope == "file":
        torch.save({"model": saved, "optimizer": {"state": {}}}, tmp_path / "finetuned.pth")
        saved = read_weights(tmp_path / "finetuned.pth")
    heads = interop.task_heads(saved)
    assert heads.keys() == {task} and heads[task].keys() == head.keys()
    assert all(torch.equal(heads[task][name], tensor) for name, tensor in head.items())
    ours = BEiT3(config).eval()
    load(ours, interop.from_official(saved), ENCODER)
    with torch.no_grad():
        torch.testing.assert_close(ours(images=images).hidden, expected, atol=1e-4, rtol=1e-4)


def test_a_captioning_network_has_the_network_s_own_head_for_words():
    official, _ = interop.to_official(network(RELEASED).state_dict(), RELEASED)
    captioning = {n: t for n, t in official.items() if not n.startswith("mim_head")}
    assert interop.task_heads(captioning) == {}
    made = BEiT3(RELEASED)
    load(made, interop.from_official(captioning), (*ENCODER, "mlm_head"))
    assert torch.equal(made.mlm_head.weight, official["mlm_head.weight"])
    with pytest.raises(StateMismatch, match="missing \\(2\\):\n  mim_head"):
        load(made, interop.from_official(captioning))


@pytest.mark.parametrize("task", ["vqa", "imagenet"])
def test_weights_without_a_final_norm_say_which_network_they_need(task):
    _, head = TASKS[task]
    official = {f"beit3.{n}": t for n, t in torchscale(
        replace(RELEASED, final_norm=False)
    ).state_dict().items()} | head  # fmt: skip
    with pytest.raises(StateMismatch, match="need a network with final_norm=False"):
        load(BEiT3(RELEASED), interop.from_official(official), ENCODER)
    whole, _ = interop.to_official(network(RELEASED).state_dict(), RELEASED)
    bare = BEiT3(replace(RELEASED, final_norm=False))
    with pytest.raises(StateMismatch, match="with a final norm need final_norm=True"):
        load(bare, interop.from_official(whole))


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("", "encoder.layers.0.ffn.A.fc1.weight (nearest: beit3.encoder.layers.0.ffn.A.fc1.weight"),
        ("backbone.", "backbone.encoder.layers.0.ffn.A.fc1.weight (nearest: beit3.encoder.layers."),
    ],
)
def test_a_state_of_another_prefix_is_refused_with_the_official_names(prefix, words):
    state = {prefix + n: t for n, t in torchscale(RELEASED).state_dict().items()}
    with pytest.raises(StateMismatch) as caught:
        interop.from_official(state)
    assert words in str(caught.value) and "heads of tasks" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_state_of_half_precision_is_cast_also_at_another_resolution(dtype):
    official, _ = interop.to_official(network(RELEASED).state_dict(), RELEASED)
    half = {name: tensor.to(dtype) for name, tensor in official.items()}
    for size in (RELEASED.image_size, 48):
        made = BEiT3(replace(RELEASED, image_size=size))
        load(made, interop.from_official({"model": half}))
        assert {p.dtype for p in made.parameters()} == {torch.float32}
        assert torch.equal(made.mlm_head.weight, half["mlm_head.weight"].float())


def test_an_official_file_beside_training_arguments_is_read(tmp_path: Path):
    official, _ = interop.to_official(network(RELEASED).state_dict(), RELEASED)
    arguments = argparse.Namespace(model="beit3_base_patch16_224", lr=1e-4, output=tmp_path)
    torch.save({"model": official, "args": arguments, "epoch": 3}, tmp_path / "checkpoint.pth")
    state = interop.from_official(read_weights(tmp_path / "checkpoint.pth"))
    load(BEiT3(RELEASED), state)
    with pytest.raises(ValueError, match="its keys: epoch, args"):
        interop.from_official({"epoch": 3, "args": arguments})


def test_unknown_official_names_are_all_listed_with_the_most_similar_name():
    official, _ = interop.to_official(network(RELEASED).state_dict(), RELEASED)
    official["beit3.encoder.layers.0.ffn.A.fc3.weight"] = torch.zeros(1)
    official["surplus"] = torch.zeros(1)
    del official["beit3.encoder.layers.1.self_attn.k_proj.B.bias"]
    with pytest.raises(StateMismatch) as caught:
        interop.from_official(official)
    message = str(caught.value)
    assert "fc3.weight (nearest: beit3.encoder.layers.0.ffn.A.fc" in message
    assert "surplus" in message
    assert "blocks.1.attention.qkv.language.bias: only q, v" in message


def test_all_mismatches_of_a_state_are_listed_and_nothing_is_loaded():
    made = network(SHARED)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    state = {name: tensor + 1 for name, tensor in before.items()}
    state["blocks.1.attention.proj.both.weight"] = state.pop("blocks.1.attention.out.both.weight")
    state["mlm_head.bias"] = torch.zeros(7)
    state["vision.positions"] = torch.zeros(12, SHARED.width)
    with pytest.raises(StateMismatch) as caught:
        load(made, state)
    message = str(caught.value)
    assert (
        "missing (1):\n  blocks.1.attention.out.both.weight (nearest: blocks.1.attention.proj"
        in message
    )
    assert "mlm_head.bias: 7 given, 60 in the network" in message
    assert "vision.positions: 12x96 given, 65x96 in the network" in message  # 11 is no square
    assert all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())
    with pytest.raises(StateMismatch, match="missing"):
        interop.to_official(state, SHARED)


def test_an_encoder_of_one_modality_needs_no_weights_of_the_other():
    donor, images = network(SHARED), random_images(SHARED)
    ids = torch.randint(4, 60, (2, 7))
    state = donor.state_dict()
    torch.manual_seed(5)
    for part, foreign, sample in (
        ("vision", ("language", "fusion", "_head"), {"images": images}),
        ("language", ("vision", "fusion", "_head"), {"text_ids": ids}),
    ):
        some = {n: t for n, t in state.items() if not any(word in n for word in foreign)}
        made = BEiT3(SHARED).eval()
        load(made, some, parts=(part, "shared"))
        with torch.no_grad():
            assert torch.equal(made(**sample).hidden, donor(**sample).hidden)
        with pytest.raises(StateMismatch, match="missing"):
            load(made, some)


@pytest.mark.parametrize("size", [24, 48, 72])
def test_positions_are_interpolated_as_in_timm(size):
    donor = network(RELEASED)
    other = BEiT3(BEiT3Config.from_dict(RELEASED.to_dict() | {"image_size": size}))
    load(other, donor.state_dict())
    expected = resample_abs_pos_embed(
        donor.vision.positions[None],
        new_size=[size // RELEASED.patch_size] * 2,
        num_prefix_tokens=1,
        antialias=False,
    )[0]
    torch.testing.assert_close(other.vision.positions, expected)
    assert other(images=torch.zeros(1, 3, size, size)).hidden.shape[1] == len(expected)


def test_a_longer_text_position_table_is_truncated_and_a_shorter_one_refused():
    donor = network(SHARED)
    shorter = BEiT3Config.from_dict(SHARED.to_dict() | {"max_text_length": 10})
    made = BEiT3(shorter)
    load(made, donor.state_dict())
    assert torch.equal(made.language.positions, donor.language.positions[:10])
    with pytest.raises(StateMismatch, match=r"language\.positions: 10x96 given, 40x96"):
        load(donor, made.state_dict())
