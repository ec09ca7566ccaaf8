"""What a network takes from given weights; the files are torchscale's, as the authors publish them.

Positions at another resolution are those of the authors' fine-tuning, whose computation is written
here once more. Which layout means what is tested in ``test_interop.py``.
"""

import json
import zipfile
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from model import BEiT3, BEiT3Config
from model.finetuning.released import heads_of
from model.finetuning.starting import fit_encoder, load_given
from model.finetuning.task_networks import ForCaptioning, ForVisualReasoning
from model.network import interop
from model.network.layouts import StartMismatch
from model.network.starting import fit_start, load_start
from model.network.weight_files import UnreadableWeights, read_weights
from tests.model.networks import ONE_EXPERT, RELEASED, SHARED, network, random_images
from tests.model.test_interop import TASKS, torchscale

D = RELEASED.width


def released(config: BEiT3Config = RELEASED) -> dict[str, torch.Tensor]:
    """A pretrained network of the authors' classes, with both heads."""
    theirs = torchscale(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    heads = {
        f"{name}.{kind}": torch.randn(rows, D) if kind == "weight" else torch.randn(rows)
        for name, rows in (("mlm_head", config.vocab_size), ("mim_head", config.num_codes))
        for kind in ("weight", "bias")
    }
    return {f"beit3.{name}": tensor for name, tensor in theirs.state_dict().items()} | heads


def resized_by_the_authors(table: torch.Tensor, side: int) -> torch.Tensor:
    """``load_model_and_may_interpolate`` of the authors: three rows are kept, the grid resized."""
    extra, grid = table[:3], table[3:]
    old = int(len(grid) ** 0.5)
    grid = grid.reshape(-1, old, old, table.shape[1]).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([extra, grid.permute(0, 2, 3, 1).flatten(1, 2)[0]])


@pytest.mark.parametrize("side", [4, 6, 2])
def test_a_released_file_starts_a_network_of_any_resolution(tmp_path, side):
    saved = released()
    torch.save({"model": saved, "epoch": 3}, tmp_path / "beit3.pth")
    config = replace(RELEASED, image_size=8 * side, max_text_length=40)
    ours = BEiT3(config).eval()
    report = load_start(ours, read_weights(tmp_path / "beit3.pth"))
    assert report.layout == "official" and not report.fresh and not report.unused
    assert any("from 4 x 4" in line for line in report.adapted) == (side != 4)
    assert any("cut from 1022 to 40 rows" in line for line in report.adapted)

    theirs = torchscale(config)
    name = "beit3.encoder.embed_positions.A.weight"
    at_size = saved | {name: resized_by_the_authors(saved[name], side)}
    at_size = {n.removeprefix("beit3."): t for n, t in at_size.items() if n.startswith("beit3.")}
    theirs.load_state_dict(at_size)
    images, ids = random_images(config), torch.randint(4, 60, (2, 12))
    with torch.no_grad():
        mine = ours(images=images, text_ids=ids).hidden
        expected = theirs(visual_tokens=images, textual_tokens=ids)["encoder_out"]
    torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(ours.mim_head.weight, saved["mim_head.weight"])


@pytest.mark.parametrize("task", TASKS)
def test_heads_of_a_task_are_named_and_absent_heads_keep_their_initial_values(task):
    final_norm, head = TASKS[task]
    body = released(replace(RELEASED, final_norm=final_norm))
    saved = {n: t for n, t in body.items() if n.startswith("beit3.")} | head
    torch.manual_seed(1)
    ours = BEiT3(RELEASED)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    report = load_start(ours, saved)
    assert set(report.unused) == set(head)
    norms = () if final_norm else tuple(n for n in before if n.startswith("norm."))
    heads = tuple(n for n in before if n.startswith(("mlm_head", "mim_head")))
    assert report.fresh == norms + heads
    after = ours.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in report.fresh)
    assert not any(torch.equal(after[name], before[name]) for name in report.loaded)


def test_a_network_of_this_project_starts_another_with_longer_texts_whose_last_rows_are_fresh():
    theirs, ours = network(SHARED), BEiT3(replace(SHARED, max_text_length=50))
    last = ours.language.positions[40:].clone()
    report = load_start(ours, theirs.state_dict())
    assert torch.equal(ours.language.positions[:40], theirs.language.positions)
    assert torch.equal(ours.language.positions[40:], last)
    assert report.adapted == (
        "language.positions: 40 rows are given, rows from 40 keep initial values",
    )


@pytest.mark.parametrize(
    ("config", "choice", "absent"),
    [
        (replace(RELEASED, vocab_size=77), "vocabulary", ("language.tokens", "mlm_head")),
        (replace(RELEASED, num_codes=33), "codebook", ("mim_head",)),
        (RELEASED, "vocabulary", ("language.tokens", "mlm_head")),
    ],
)
def test_rows_of_another_tokenizer_are_left_out_by_choice_alone(config, choice, absent):
    saved = released()
    if config != RELEASED:
        with pytest.raises(StartMismatch, match="of another shape"):
            fit_start(saved, config)
    fitted, report = fit_start(saved, config, [choice])
    assert set(report.fresh) == {
        name for name in BEiT3(config).state_dict() if name.startswith(absent)
    }
    assert set(report.unused) == set(report.fresh) and not fitted.keys() & set(report.fresh)


def changed(**changes) -> BEiT3Config:
    return replace(RELEASED, **changes)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (changed(attention="shared"), "attention is decoupled in the weights, shared in the net"),
        (ONE_EXPERT, "experts is multiway in the weights, shared in the network"),
        (changed(subln=False), "subln is True in the weights, False in the network"),
        (changed(fusion_layers=2), "fusion_layers is 0 in the weights, 2 in the network; 16 miss"),
        (changed(depth=4), "depth is 3 in the weights, 4 in the network"),
        (changed(depth=2), "depth is 3 in the weights, 2 in the network"),
        (changed(width=96), "width is 48 in the weights, 96 in the network"),
        (changed(ffn_width=100), "blocks.0.experts.vision.fc1.weight 96x48 given, 100x48 in the"),
        (changed(patch_size=4), "vision.patch.weight 48x3x8x8 given, 48x3x4x4 in the network"),
    ],
)
def test_weights_of_another_form_are_refused_in_one_line_that_names_it(config, words):
    ours = BEiT3(config)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(StartMismatch) as raised:
        load_start(ours, released())
    assert words in str(raised.value) and "\n" not in str(raised.value)
    assert all(torch.equal(t, before[n]) for n, t in ours.state_dict().items())


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("beit3.text_embed.weight", None, "1 missing (language.tokens.weight 60x48)"),
        ("beit3.encoder.layers.1.ffn.B.fc2.bias", None, "blocks.1.experts.language.fc2.bias"),
        ("beit3.encoder.layers.1.self_attn.k_proj.A.weight", None, "qkv.vision.weight: only"),
        ("beit3.vision_embed.cls_token", lambda t: t * float("nan"), "not finite"),
        ("beit3.vision_embed.cls_token", lambda t: t.to(torch.float8_e4m3fn), "16 bits or more"),
        ("beit3.text_embed.weight", lambda t: t.to(torch.int8), "torch.int8"),
        ("beit3.encoder.embed_positions.A.weight", lambda t: t[:-1], "vision.positions 16x48"),
        ("beit3.encoder.embed_positions.A.weight", lambda t: t[:3], "vision.positions 1x48"),
        ("beit3.encoder.embed_positions.A.weight", lambda t: t[:2], "vision.positions 0x48"),
        ("beit3.encoder.embed_positions.B.weight", lambda t: t[:2], "language.positions 0x48"),
        ("beit3.encoder.embed_positions.B.weight", lambda t: t[0, 0], "language.positions scalar"),
        ("beit3.encoder.layers.1.self_attn.k_proj.A.weight", lambda t: t[:, 1:], "k 48x47"),
        ("beit3.encoder.layers.1.self_attn.k_proj.A.bias", lambda t: t[0], "k scalar"),
        ("beit3.text_embed.weight", lambda t: t.double() + 1e39, "not finite"),
    ],
)
def test_what_else_disagrees_is_refused_by_name(name, change, words):
    saved = released()
    tensor = saved.pop(name)
    if change is not None:
        saved[name] = change(tensor)
    with pytest.raises(StartMismatch) as raised:
        load_start(BEiT3(RELEASED), saved)
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_half_precision_weights_become_fp32():
    saved = {name: tensor.half() for name, tensor in released().items()}
    fitted, _ = fit_start(saved, RELEASED)
    assert {tensor.dtype for tensor in fitted.values()} == {torch.float32}


def test_the_vision_half_in_timm_s_layout_is_named():
    half = interop.to_timm(network(RELEASED).state_dict(), RELEASED)
    with pytest.raises(StartMismatch, match="timm's layout"):
        fit_start(half, RELEASED)
    with pytest.raises(StartMismatch, match="no BEiT-3 network"):
        fit_start({"conv1.weight": torch.zeros(2, 2)}, RELEASED)


@pytest.mark.parametrize("kind", ["cut", "empty", "text", "other zip", "cut safetensors header"])
def test_a_damaged_file_or_one_of_another_kind_is_refused_by_name(tmp_path, kind):
    path = tmp_path / "weights.pth"
    torch.save({"model": released()}, path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<!DOCTYPE html> not found")
    elif kind == "other zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a")
    else:
        path.write_bytes((9999).to_bytes(8, "little") + json.dumps({"a": {}}).encode())
    with pytest.raises(UnreadableWeights, match=r"weights\.pth"):
        read_weights(path)


def test_the_encoder_of_a_network_of_a_task_starts_a_pretraining():
    torch.manual_seed(0)
    tuned = ForVisualReasoning(network(RELEASED))
    fitted, report = fit_start(tuned.state_dict(), RELEASED)
    assert report.layout == "ours" and set(report.unused) == set(heads_of(tuned.state_dict()))
    assert {name.partition(".")[0] for name in report.fresh} == {"mlm_head", "mim_head"}
    for name, tensor in network(RELEASED).state_dict().items():
        assert name in report.fresh or torch.equal(fitted[name], tensor)
    with pytest.raises(StartMismatch, match=r"1 unexpected \(extra 3\)"):
        fit_start({**tuned.state_dict(), "network.extra": torch.zeros(3)}, RELEASED)


@pytest.mark.parametrize("kind", ["released pretraining", "own pretraining", "captioning"])
@pytest.mark.parametrize("word_head", [True, False])
def test_captioning_starts_from_the_head_that_scores_words(kind, word_head):
    """Of a pretraining, as the authors' does, or of another captioning; other tasks leave it."""
    torch.manual_seed(0)
    other = ForCaptioning(network(RELEASED), 51)
    given = {
        "released pretraining": lambda: released(),
        "own pretraining": lambda: network(RELEASED).state_dict(),
        "captioning": other.state_dict,
    }[kind]()
    fitted, report = fit_encoder(given, RELEASED, word_head=word_head)
    assert ("mlm_head.weight" in fitted) == word_head
    assert ("mlm_head.weight" in report.unused) == (not word_head)
    torch.manual_seed(1)
    made = ForCaptioning(BEiT3(RELEASED), 51)
    before = made.mlm_head.weight.clone()
    lines = load_given(made, fitted)
    assert torch.equal(made.mlm_head.weight, given["mlm_head.weight"] if word_head else before)
    assert any("mlm_head" in line for line in lines) != word_head
