"""Exports of the three forms of the network, compared with the programs that read them."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from typer.testing import CliRunner

from dataprep.miniweb.grammar import document, random_scene
from model import BEiT3Config
from pipelines import cli
from pipelines.pretrain import export
from pipelines.pretrain.check_export import check_export
from pipelines.pretrain.model_card import model_card
from pipelines.pretrain.provenance import Provenance
from tests.model.networks import network, official_arguments
from tokenizer.text import BOS, EOS, TextTokenizer, train
from tokenizer.vqkd import VQKD, VQKDConfig

LINES = ["", "a small red circle", "Two  large\tblue squares\n", "café 東京 🎉", "x" * 500, "ﬁne ①"]
VOCAB = 120
DEFAULT = BEiT3Config(
    48, 4, 4, 128, image_size=32, patch_size=8, vocab_size=VOCAB + 10, num_codes=20
)
TINY = BEiT3Config.named(
    "tiny", subln=True, max_text_length=64, vocab_size=VOCAB + 10, num_codes=20, image_size=32
)
RELEASED = replace(DEFAULT, attention="decoupled", fusion_layers=0, subln=True)
MADE = Provenance("base", {"a (coco)": "CC"}, {"images": {"train": 7000, "held_out": 3}})
FORMS = {
    "default": DEFAULT,
    "tiny": TINY,
    "released": RELEASED,
    "released, short texts": replace(RELEASED, max_text_length=40),
    "released, long texts": replace(RELEASED, max_text_length=1300),
    "released, no final norm": replace(RELEASED, final_norm=False),
    "shared, sub-LayerNorm, no fusion": replace(DEFAULT, fusion_layers=0, subln=True),
    "decoupled, no sub-LayerNorm": replace(RELEASED, subln=False),
    "other pixels": replace(DEFAULT, pixel_mean=(0.4, 0.5, 0.6), pixel_std=(0.2, 0.3, 0.4)),
    "odd expert width": replace(RELEASED, ffn_width=131),
}
OFFICIAL = {name for name, config in FORMS.items() if config.subln and not config.fusion_layers}


def texts() -> list[str]:
    rng = np.random.default_rng(0)
    return [document(random_scene(rng), rng) for _ in range(100)] + ["café, naïve; 東京"] * 5


@cache
def sentencepiece_model() -> bytes:
    return train(texts(), vocab_size=VOCAB, character_coverage=0.9995)


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> Callable[[str], Path]:
    """The export of a form, for reading alone."""
    root = tmp_path_factory.mktemp("exports")
    return cache(lambda form: exported(root / form.replace(" ", "_") / "export", FORMS[form]))


@pytest.fixture
def released(exports, tmp_path) -> Path:
    """A copy of the released form's export, which a test may change."""
    return Path(shutil.copytree(exports("released"), tmp_path / "export"))


def exported(folder: Path, config: BEiT3Config) -> Path:
    """Write the files of an export as the stage does."""
    folder.mkdir(parents=True)
    omitted = export.write_network(folder, network(config))
    model = folder.parent / "spm.model"
    model.write_bytes(sentencepiece_model())
    text_file = export.write_text_tokenizer(folder, model, config.max_text_length)
    card = model_card(
        config, omitted, text_file, {"accuracy/mlm": 0.5}, has_codebook=True, made=MADE
    )
    (folder / "README.md").write_text(card)
    VQKD(VQKDConfig(
        image_size=config.image_size, patch_size=config.patch_size, width=64, depth=1, num_heads=1,
        decoder_depth=1, num_codes=config.num_codes,
    )).save(folder / export.VQKD_FILE)  # fmt: skip
    return folder


def failures(folder: Path) -> dict[str, str]:
    return {f.file: f.details for f in check_export(folder) if not f.ok}


@pytest.mark.parametrize("form", FORMS)
def test_every_file_of_an_export_gives_its_program_the_same_results(exports, form):
    folder = exports(form)
    findings = {f.file: f for f in check_export(folder)}
    assert [f.details for f in findings.values() if not f.ok] == []
    name = "official.pt" if form in OFFICIAL else "torchscale.pt"
    assert (folder / name).is_file() and name in findings
    assert {"official.pt", "torchscale.pt"} & {p.name for p in folder.iterdir()} == {name}
    assert ("pairs differ" in findings[name].details) == bool(FORMS[form].fusion_layers)


@pytest.mark.parametrize("form", ["released", "released, short texts", "released, long texts"])
def test_the_authors_classes_load_an_official_file_strictly(exports, form):
    from torchscale.architecture.config import EncoderConfig
    from torchscale.model.BEiT3 import BEiT3 as Reference

    config = FORMS[form]
    folder = exports(form)
    theirs = Reference(EncoderConfig(**official_arguments(config))).eval()
    official = torch.load(folder / "official.pt")["model"]
    theirs.load_state_dict(
        {n.removeprefix("beit3."): t for n, t in official.items() if n.startswith("beit3.")}
    )
    ids = torch.randint(4, VOCAB, (2, 30))
    with torch.no_grad():
        expected = network(config)(text_ids=ids).hidden
        torch.testing.assert_close(
            theirs(textual_tokens=ids)["encoder_out"], expected, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("official.pt", "beit3.encoder.layers.1.ffn.A.fc1.weight"),
        ("official.pt", "beit3.encoder.embed_positions.B.weight"),
        ("official.pt", "beit3.text_embed.weight"),
        ("official.pt", "beit3.vision_embed.mask_token"),
        ("official.pt", "mlm_head.bias"),
        ("timm", "norm.weight"),
        ("timm", "pos_embed"),
    ],
)
def test_a_file_with_one_changed_tensor_is_found(released, file, name):
    folder = released
    if file == "timm":
        path = folder / "timm" / "model.safetensors"
        state = load_file(path)
        state[name] = state[name] + 0.5 * torch.randn_like(state[name])
        save_file(state, path)
    else:
        state = torch.load(folder / file)["model"]
        state[name][-1] += 0.5  # one row: the network sees few rows of an embedding
        torch.save({"model": state}, folder / file)
    assert list(failures(folder)) == [file]
    assert "differ" in failures(folder)[file]


def test_a_tokenizer_with_byte_pieces_is_not_offered_to_transformers(released):
    model = train(texts(), vocab_size=VOCAB + 256, character_coverage=0.98, byte_fallback=True)
    (released / "given.model").write_bytes(model)
    for name in ("sentencepiece.bpe.model", "tokenizer_config.json"):
        (released / name).unlink()
    file = export.write_text_tokenizer(released, released / "given.model", 1022)
    assert f"| `{file}` | `tokenizer.TextTokenizer.load`; not" in model_card(
        RELEASED, [], file, {}, has_codebook=True, made=MADE
    )
    assert failures(released) == {
        "spm.model": "it needs 386 rows of the token embedding, the network has 130"
    }


def test_each_missing_or_damaged_file_is_one_finding(released):
    folder = released
    (folder / "official.pt").unlink()
    (folder / "timm" / "config.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (folder / "vqkd.pt").write_bytes(b"")
    found = failures(folder)
    assert list(found) == ["official.pt", "timm", "sentencepiece.bpe.model", "vqkd.pt"]
    assert "official.pt is not a file" in found["official.pt"]
    assert "config.json" in found["timm"]
    assert "the file is empty" in found["vqkd.pt"]


def test_an_export_of_given_codes_passes_without_an_image_tokenizer(released):
    (released / "vqkd.pt").unlink()
    assert list(failures(released)) == ["vqkd.pt"], "its card lists the file"
    card = model_card(RELEASED, [], "sentencepiece.bpe.model", {}, has_codebook=False, made=MADE)
    (released / "README.md").write_text(card)
    findings = list(check_export(released))
    assert len(findings) == 4 and all(finding.ok for finding in findings)


@pytest.mark.parametrize("key", ["mean", "std"])
def test_preprocessing_of_timm_s_own_models_is_found(released, key):
    folder = released
    path = folder / "timm" / "config.json"
    settings = json.loads(path.read_text())
    settings["pretrained_cfg"][key] = [0.485, 0.456, 0.406]
    path.write_text(json.dumps(settings))
    assert f"its {key} is" in failures(folder)["timm"]


def test_a_program_that_is_not_installed_is_named_and_not_passed_over(released, monkeypatch):
    folder = released
    monkeypatch.setitem(sys.modules, "torchscale", None)
    monkeypatch.setitem(sys.modules, "torchscale.architecture.config", None)
    (details,) = failures(folder).values()
    assert details.startswith("not checked: ") and "pip install --no-deps torchscale" in details


def test_the_command_prints_a_line_for_each_file_and_fails_with_one(released, tmp_path):
    folder = released

    def run(path: Path):
        return CliRunner().invoke(cli.app, ["export", "--check", str(path)])

    good = run(folder)
    assert good.exit_code == 0, good.output
    assert good.output.count("✓") == 5
    (folder / "vqkd.pt").unlink()
    bad = run(folder)
    assert bad.exit_code == 1 and bad.output.count("✗") == 1
    missing = run(tmp_path)
    assert missing.exit_code == 1 and "no network.json" in str(missing.exception)


@pytest.mark.parametrize("form", ["default", "released"])
def test_auto_tokenizer_loads_an_export_with_equal_ids(exports, form):
    folder = exports(form)
    ours = TextTokenizer.load(folder / "sentencepiece.bpe.model")
    theirs = AutoTokenizer.from_pretrained(folder)
    for line in LINES:
        assert theirs(line)["input_ids"] == [BOS, *ours.encode(line), EOS], line
    padded = theirs(["a", "a small red circle"], padding=True)
    assert padded["input_ids"][0][-1] == 1 and theirs.mask_token_id == ours.mask
    assert theirs.model_max_length == FORMS[form].max_text_length


@pytest.mark.parametrize("name", ["model.safetensors", "timm/model.safetensors"])
def test_safetensors_files_say_that_torch_wrote_them(exports, name):
    with safe_open(exports("default") / name, "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize(
    ("form", "present", "absent"),
    [
        ("default", ["always build sub-LayerNorm", "compute other values for pairs", "subln=False",
                     "images alone, texts alone", "mean 0.5, 0.5, 0.5"], ["official.pt"]),
        ("tiny", ["torchscale's `BEiT3` only", "of the last block have"],
         ["official.pt", "subln=False"]),
        ("released", ["`official.pt` | the BEiT-3 classes", "images, texts and pairs"],
         ["torchscale.pt", "other values", "subln=", "always build"]),
        ("released, long texts", ["1022 of the 1300 text positions"], ["experts are in"]),
        ("other pixels", ["mean 0.4, 0.5, 0.6 and standard deviation 0.2, 0.3, 0.4"], []),
    ],
)  # fmt: skip
def test_the_card_says_which_program_reads_which_file_exactly(exports, form, present, absent):
    card = (exports(form) / "README.md").read_text()
    assert [words for words in present if words not in card] == []
    assert [words for words in absent if words in card] == []
    files = re.findall(r"^\| `([\w.]+)/?`", card.partition("## Network")[0], re.MULTILINE)
    assert all((exports(form) / name).exists() for name in files) and len(files) == 5
