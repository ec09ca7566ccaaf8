"""Where weights to start from lie, what a plan says of them, and what the workers load.

Which names, shapes and values fit is tested in ``tests/model/test_starting.py``.
"""

import json
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

from model import BEiT3, BEiT3Config
from model.network.interop import to_official
from model.network.starting import apply_start
from orchestration.checkpoint_files import write_list
from orchestration.errors import RecipeError
from orchestration.fingerprint import semantic
from orchestration.manifest import MANIFEST, SCHEMA_VERSION, Manifest, file_of
from orchestration.params import external_files
from orchestration.storage.store import Store
from pipelines.pretrain import export, start_from
from pipelines.pretrain.params import NetworkParams, Params
from pipelines.pretrain.start_source import digest_of_folder, open_folder
from pipelines.pretrain.start_tokenizers import contradictions_of
from pipelines.tokens import given_codes, image_tokenizer, text_tokenizer
from tests.model.networks import network
from tests.s3 import upload
from tokenizer.text import TextTokenizer, train
from tokenizer.vqkd import VQKD, VQKDConfig

GRID = 4
CODES = VQKDConfig(
    image_size=32, patch_size=8, width=32, depth=1, num_heads=2, decoder_depth=1, num_codes=16,
    code_dim=8, teacher_dim=20,
)  # fmt: skip
TINY = {"width": 48, "depth": 2, "num_heads": 3, "ffn_width": 96, "patch_size": 8, "subln": True}
NETWORK = NetworkParams(size="tiny", image_size=32, max_text_length=30, **TINY)
SAMPLES = {"images_per_step": 4, "texts_per_step": 4, "pairs_per_step": 4, "substreams": 4}


@cache
def spm(words: str = "a small red circle") -> bytes:
    return train([words] * 9, vocab_size=13, character_coverage=1)


@cache
def vqkd(seed: int = 0, side: int = 4) -> bytes:
    import tempfile

    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        VQKD(replace(CODES, image_size=8 * side)).save(Path(folder) / "vqkd.pt")
        return (Path(folder) / "vqkd.pt").read_bytes()


def file(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def config_of(params: NetworkParams = NETWORK) -> BEiT3Config:
    rows = _rows()
    return params.config(vocab_size=rows, num_codes=CODES.num_codes)


@cache
def _rows() -> int:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return TextTokenizer.load(file(Path(folder), "spm.model", spm())).num_rows


def checkpoint(stage: Path, step: int, config: BEiT3Config, scale: float = 1.0) -> Path:
    """A checkpoint as the training writes it."""
    folder = stage / "ray_train" / f"step_{step:08d}"
    folder.mkdir(parents=True)
    made = network(config)
    with torch.no_grad():
        made.mlm_head.bias.fill_(scale)
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.0)
    for parameter in made.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = {"network": made.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    dcp.save(state, checkpoint_id=folder, no_dist=True)
    (folder / "network.json").write_text(json.dumps(config.to_dict()))
    write_list(folder, 0, 1)
    return folder


def workdir(root: Path, config: BEiT3Config | None = None) -> Path:
    """A workdir with a complete pretraining and a later workflow; return the stage's folder."""
    file(root / "text_tokenizer" / "t0", "spm.model", spm())
    file(root / "image_tokenizer" / "i0", "vqkd.pt", vqkd())
    stage = root / "pretrain" / "p0"
    for step in (10, 20):
        checkpoint(stage, step, config or config_of(), float(step))
    inputs = {n: [[n, f"{n[0]}0+abc"]] for n in ("text_tokenizer", "image_tokenizer")}
    (stage / "stage.json").write_text(json.dumps({"name": "pretrain", "inputs": inputs}))
    last = "ray_train/step_00000020"
    names = [f"{last}/{path}" for path, _ in Store(stage / last).walk()]
    commit(Store(stage), "pretrain", names)
    for started_at, stages in ((1.0, {"pretrain": "p0"}), (2.0, {"embed": "e0"})):
        folder = root / "workflows" / next(iter(stages))
        folder.mkdir(parents=True)
        record = {"name": "t", "started_at": started_at, "stages": stages}
        (folder / "record.json").write_text(json.dumps(record))
    return stage


def commit(folder: Store, stage: str, names: list[str]) -> Manifest:
    manifest = Manifest(
        schema_version=SCHEMA_VERSION, stage=stage, fingerprint=folder.name, params={}, parents={},
        parts=[], columns={}, files=[file_of(folder, name) for name in names], rounds=[],
        numbers={},
    )  # fmt: skip
    folder.write_bytes(MANIFEST, manifest.to_bytes())
    return manifest


def exported(folder: Path, config: BEiT3Config | None = None) -> Path:
    folder.mkdir(parents=True)
    export.write_network(folder, network(config or config_of()))
    file(folder, "sentencepiece.bpe.model", spm())
    file(folder, "vqkd.pt", vqkd())
    return folder


def params(location: object, **changes) -> Params:
    values = {"network": NETWORK, "start_from": str(location), **SAMPLES, **changes}
    return Params(**values)


def tokenizers(model: Path | None = None, weights: Path | None = None) -> dict:
    return {
        "text_tokenizer": text_tokenizer.Params(model=model and str(model), vocab_size=13),
        "image_tokenizer": image_tokenizer.Params(
            weights=weights and str(weights), image_size=32, patch_size=8, num_codes=CODES.num_codes
        ),
    }


class Fetched:
    """The output of a stage with one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fetch(self, name: str) -> Path:
        assert name == self.path.name
        return self.path


@pytest.fixture
def own(tmp_path) -> Mapping[str, Fetched]:
    """This workflow's tokenizers, equal to those of the weights."""
    return {
        "text_tokenizer": Fetched(file(tmp_path / "own", "spm.model", spm())),
        "image_tokenizer": Fetched(file(tmp_path / "own", "vqkd.pt", vqkd())),
    }


def written(folder: Path, chosen: Params, own, given=None) -> BEiT3:
    """What the stage writes, loaded as a worker does."""
    config = config_of(chosen.network)
    start_from.write_start(Store(folder), chosen, config, given or tokenizers(), own)
    made = BEiT3(config)
    apply_start(made, load_file(folder / start_from.WEIGHTS_FILE))
    return made


@pytest.mark.parametrize(
    ("place", "step"),
    [
        ("", 20),
        ("pretrain/p0", 20),
        ("pretrain/p0/ray_train/step_00000010", 10),
        ("pretrain/p0/ray_train/step_00000020", 20),
    ],
)
def test_a_training_is_given_by_workdir_stage_or_checkpoint(tmp_path, own, place, step):
    workdir(tmp_path / "w")
    chosen = params(tmp_path / "w" / place)
    assert start_from.requires(chosen, tokenizers()) is None
    made = written(tmp_path / "s", chosen, own)
    assert float(made.mlm_head.bias[0].detach()) == step
    expected = network(config_of())
    assert torch.equal(made.blocks[1].attention.out.both.weight,
                       expected.blocks[1].attention.out.both.weight)  # fmt: skip
    report = json.loads((tmp_path / "s" / "start.json").read_text())
    assert report["fresh"] == [] and len(report["loaded"]) == len(made.state_dict())


def test_an_export_and_its_official_file_start_a_network_of_another_resolution(tmp_path, own):
    decoupled = NETWORK.model_copy(update={"attention": "decoupled", "fusion_layers": 0})
    folder = exported(tmp_path / "export", config_of(decoupled))
    larger = decoupled.model_copy(update={"image_size": 48})
    given = tokenizers(folder / "sentencepiece.bpe.model", folder / "vqkd.pt")
    made = [
        written(tmp_path / f"s{i}", params(location, network=larger), own, given)
        for i, location in enumerate((folder, folder / "official.pt"))
    ]
    first, second = (each.state_dict() for each in made)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    report = json.loads((tmp_path / "s1" / "start.json").read_text())
    assert report["layout"] == "official"
    assert any("interpolated (bicubic) from 4 x 4 to 6 x 6" in line for line in report["adapted"])
    assert any("is taken to be the vocabulary" in line for line in report["remarks"])


def test_a_start_enters_the_fingerprint_by_content_wherever_it_lies(tmp_path):
    stage = workdir(tmp_path / "w")
    first = semantic(params(stage))["start_from"]
    newest, older = (stage / "ray_train" / f"step_{n:08d}" for n in (20, 10))
    shutil.copytree(newest, tmp_path / "else" / "step_00000020")
    assert first.startswith("sha256:")
    assert first == semantic(params(tmp_path / "else" / "step_00000020"))["start_from"]
    assert first == semantic(params(tmp_path / "w"))["start_from"]
    assert first != semantic(params(older))["start_from"]
    folder = exported(tmp_path / "export")
    before = semantic(params(folder))["start_from"]
    (folder / "README.md").write_text("a card")
    assert semantic(params(folder))["start_from"] == before
    state = load_file(folder / "model.safetensors")
    middle = sorted(state)[len(state) // 2]
    state[middle] = state[middle] + 1
    save_file(state, folder / "model.safetensors")
    assert semantic(params(folder))["start_from"] != before
    assert "start_fresh" in semantic(params(folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stage: (stage / MANIFEST).unlink(), "name one of its checkpoints, such as"),
        (lambda stage: shutil.rmtree(stage / "ray_train/step_00000020"), "neither a check"),
        (lambda stage: next((stage / "ray_train/step_00000020").glob("*.distcp")).unlink(),
         "the checkpoint is not whole: __0_0.distcp is missing"),
        (lambda stage: (stage / "ray_train/step_00000020/network.json").unlink(), "neither"),
    ],
)  # fmt: skip
def test_what_is_no_complete_checkpoint_is_refused_before_the_plan(tmp_path, change, words):
    stage = workdir(tmp_path / "w")
    change(stage)
    with pytest.raises(RecipeError, match=words):
        digest_of_folder(str(stage))


def test_a_checkpoint_whose_content_has_changed_is_refused(tmp_path):
    folder = workdir(tmp_path / "w") / "ray_train" / "step_00000020"
    shard = next(folder.glob("*.distcp"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(RecipeError, match=r"the content of .* has changed"):
        open_folder(str(folder)).weights()


class Runs:
    def __reduce__(self):
        return os.system, ("touch /tmp/never",)


@pytest.mark.parametrize("data", [pickle.dumps({"a": Runs()}), b"\x80\x04", b"", b"cos\nsystem\n."])
def test_an_index_that_could_run_code_or_is_damaged_is_refused(tmp_path, data):
    folder = workdir(tmp_path / "w") / "ray_train" / "step_00000020"
    (folder / ".metadata").write_bytes(data)
    (folder / "files-00000-of-00001.json").unlink()
    write_list(folder, 0, 1)
    with pytest.raises(RecipeError, match=r"\.metadata: not the index of a checkpoint"):
        open_folder(str(folder)).weights()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"width": "x"}', "\x00", '{"heads": 3}'])
def test_a_damaged_configuration_is_refused_by_name(tmp_path, text):
    folder = exported(tmp_path / "export")
    (folder / "network.json").write_text(text)
    assert "network.json" in str(start_from.requires(params(folder), tokenizers()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": 3}, "depth is 2 in the weights, 3 in the network"),
        ({"attention": "decoupled"}, "attention is shared in the weights, decoupled"),
        ({"num_heads": 6}, "the weights have 3 attention heads, the network has 6"),
    ],
)
def test_a_plan_refuses_weights_of_another_form(tmp_path, change, words):
    stage = workdir(tmp_path / "w")
    chosen = params(stage, network=NETWORK.model_copy(update=change))
    assert words in str(start_from.requires(chosen, tokenizers()))


def test_values_that_are_no_numbers_are_not_blamed_on_the_form(tmp_path, own):
    folder = exported(tmp_path / "export")
    state = load_file(folder / "model.safetensors")
    state["norm.both.bias"][3] = float("nan")
    save_file(state, folder / "model.safetensors")
    with pytest.raises(RecipeError) as raised:
        written(tmp_path / "s", params(folder), own)
    assert str(raised.value) == (
        "train.start_from: norm.both.bias holds values that are not finite; give other weights"
    )
    assert not (tmp_path / "s").exists()


def test_a_plan_says_what_is_interpolated_and_what_keeps_initial_values(tmp_path):
    folder = exported(tmp_path / "export")
    larger = NETWORK.model_copy(update={"image_size": 64, "pixel_mean": (0.4, 0.5, 0.6)})
    lines = "\n".join(start_from.plan_lines(params(folder, network=larger), tokenizers()))
    assert "interpolated (bicubic) from 4 x 4 to 8 x 8 patches" in lines
    assert "text_tokenizer must give the vocabulary of the weights" in lines
    assert "set text_tokenizer.model=" in lines and "set image_tokenizer.weights=" in lines
    assert "trained with pixel_mean = (0.5, 0.5, 0.5), the recipe's is (0.4, 0.5, 0.6)" in lines
    state = {n: t for n, t in load_file(folder / "model.safetensors").items() if "head" not in n}
    save_file(state | {"pooler.weight": torch.zeros(3)}, folder / "model.safetensors")
    lines = "\n".join(start_from.plan_lines(params(folder), tokenizers()))
    assert "initial values are kept by mlm_head.weight, mlm_head.bias, mim_head.weight" in lines
    assert "not used: pooler.weight" in lines


def test_a_released_file_needs_its_vocabulary_or_a_choice(tmp_path, own):
    decoupled = NETWORK.model_copy(update={"attention": "decoupled", "fusion_layers": 0})
    official, _ = to_official(network(config_of(decoupled)).state_dict(), config_of(decoupled))
    path = tmp_path / "beit3.pth"
    torch.save({"model": official}, path)
    found = str(start_from.requires(params(path, network=decoupled), tokenizers()))
    assert "set text_tokenizer.model to theirs, or train.start_fresh=[vocabulary]" in found
    assert "set image_tokenizer.weights to theirs, or train.start_fresh=[codebook]" in found
    model, weights = (own[name].path for name in ("text_tokenizer", "image_tokenizer"))
    given = tokenizers(model, weights)
    assert start_from.requires(params(path, network=decoupled), given) is None
    chosen = params(path, network=decoupled, start_fresh=["vocabulary", "codebook"])
    assert start_from.requires(chosen, tokenizers()) is None
    other = file(tmp_path / "o", "spm.model", train(["b c d"] * 9, vocab_size=8,
                                                    character_coverage=1))  # fmt: skip
    found = str(start_from.requires(params(path, network=decoupled), tokenizers(other, weights)))
    assert f"the weights have {_rows()} rows for the vocabulary" in found
    without = {n: t for n, t in official.items() if not n.startswith("mim_head")}
    torch.save({"model": without}, path)
    assert start_from.requires(params(path, network=decoupled), tokenizers(model)) is None


def test_another_vocabulary_or_codebook_is_refused_unless_it_is_left_out(tmp_path, own):
    stage = workdir(tmp_path / "w")
    changed = {
        "text_tokenizer": Fetched(file(tmp_path / "o", "spm.model", spm("one big blue box"))),
        "image_tokenizer": Fetched(file(tmp_path / "o", "vqkd.pt", vqkd(1))),
    }
    for name, part in (("text_tokenizer", "vocabulary"), ("image_tokenizer", "codebook")):
        outputs = {**own, name: changed[name]}
        with pytest.raises(RecipeError, match=f"the {part} of the weights is another one than"):
            start_from.write_start(
                Store(tmp_path / "s"), params(stage), config_of(), tokenizers(), outputs
            )
        committed = {name: commit(Store(tmp_path / "o"), name, [changed[name].path.name])}
        (line,) = contradictions_of(params(stage), tokenizers(), committed)
        assert f"train.start_fresh=[{part}]" in line
        free = params(stage, start_fresh=[part])
        assert not list(contradictions_of(free, tokenizers(), committed))
        start_from.write_start(Store(tmp_path / part), free, config_of(), tokenizers(), outputs)
    same = {n: commit(Store(tmp_path / "own"), n, [each.path.name]) for n, each in own.items()}
    assert not list(contradictions_of(params(stage), tokenizers(), same))


@pytest.mark.parametrize(
    ("stage", "changed", "part", "key"),
    [
        ("text_tokenizer", {"vocab_size": 12}, "vocabulary", "model"),
        ("image_tokenizer", {"num_codes": 15}, "codebook", "weights"),
    ],
)
def test_a_plan_refuses_a_tokenizer_that_would_have_another_size(
    tmp_path, own, stage, changed, part, key
):
    folder = workdir(tmp_path / "w")
    sections = tokenizers()
    sections[stage] = sections[stage].model_copy(update=changed)
    found = str(start_from.requires(params(folder), sections))
    assert f"{stage} would train another one, with" in found
    assert f"set {stage}.{key}={tmp_path / 'w' / stage}" in found
    assert start_from.requires(params(folder, start_fresh=[part]), sections) is None
    sections[stage] = sections[stage].model_copy(update={key: str(own[stage].path)})
    assert start_from.requires(params(folder), sections) is None


def test_a_codebook_whose_positions_were_resized_is_the_same_one(tmp_path, own):
    stage = workdir(tmp_path / "w")
    tokenizer = VQKD.load(own["image_tokenizer"].path, grid=6)
    tokenizer.save(own["image_tokenizer"].path)
    written(tmp_path / "s", params(stage), own)


def test_a_chosen_part_needs_weights():
    with pytest.raises(ValueError, match="needs start_from"):
        Params(start_fresh=["codebook"], **SAMPLES)


@pytest.mark.slow
def test_trainings_and_exports_on_s3_are_read(tmp_path, own, s3_of_environment):
    workdir(tmp_path / "w")
    exported(tmp_path / "w" / "export")
    upload(tmp_path / "w", s3_of_environment)
    for name in ("", "/pretrain/p0", "/pretrain/p0/ray_train/step_00000020", "/export"):
        chosen = params(s3_of_environment + name)
        (given,) = external_files(chosen)
        assert given.output is not None and not given.is_remote
        assert start_from.requires(chosen, tokenizers()) is None
        made = written(tmp_path / f"s{len(name)}", chosen, own)
        assert isinstance(made, BEiT3)
    assert (
        semantic(params(s3_of_environment))["start_from"]
        == semantic(params(tmp_path / "w" / "pretrain" / "p0"))["start_from"]
    )


def with_given_codes(folder: Path, num_codes: int = CODES.num_codes) -> dict:
    section = given_codes.Params(file=str(folder / "codes.parquet"), num_codes=num_codes)
    return {**tokenizers(folder / "own" / "spm.model"), "image_tokenizer": section}


def test_given_codes_refuse_weights_with_the_codebook_of_vqkd(tmp_path, own):
    folder = exported(tmp_path / "export")
    given = with_given_codes(tmp_path)
    found = str(start_from.requires(params(folder), given))
    assert "train.start_from: the codebook of the weights is that of" in found
    assert "vqkd.pt, not that of given_codes.file; set train.start_fresh=[codebook]" in found
    stage = workdir(tmp_path / "w")
    assert "image_tokenizer/i0/vqkd.pt, not that" in str(start_from.requires(params(stage), given))
    fresh = params(folder, start_fresh=["codebook"])
    assert start_from.requires(fresh, given) is None
    made = written(tmp_path / "s", fresh, {"text_tokenizer": own["text_tokenizer"]}, given)
    report = json.loads((tmp_path / "s" / "start.json").read_text())
    assert "mim_head.weight" in report["fresh"] and made.config.num_codes == CODES.num_codes


def test_weights_trained_on_given_codes_start_a_training_on_them_alone(tmp_path, own):
    folder = exported(tmp_path / "export")
    (folder / "vqkd.pt").unlink()
    given = with_given_codes(tmp_path)
    assert start_from.requires(params(folder), given) is None
    lines = "\n".join(start_from.plan_lines(params(folder), given))
    assert "given_codes.file is taken to be the codebook of the weights" in lines
    written(tmp_path / "s", params(folder), {"text_tokenizer": own["text_tokenizer"]}, given)
    more = str(start_from.requires(params(folder), with_given_codes(tmp_path, 20)))
    assert "the weights have 16 rows for the codebook, given_codes.num_codes is 20" in more
    trained = str(start_from.requires(params(folder), tokenizers(own["text_tokenizer"].path)))
    assert "the weights do not come with their codebook" in trained
