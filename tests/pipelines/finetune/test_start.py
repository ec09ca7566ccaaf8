"""What a fine-tuning starts from: every form of weights, and what a plan says of them.

The released files are torchscale's encoder with each head as the authors' classes name it; the
positions at another size are those of the authors' ``load_model_and_may_interpolate``.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model import BEiT3, BEiT3Config
from model.finetuning.released import load_released
from model.finetuning.task_networks import (
    ForCaptioning,
    ForImageClassification,
    ForRetrieval,
    ForTextClassification,
    ForVisualQuestionAnswering,
    ForVisualReasoning,
    TaskNetwork,
)
from orchestration import Dataset
from orchestration.errors import RecipeError
from orchestration.fingerprint import semantic
from orchestration.storage.store import Store
from pipelines.finetune import finetune, start
from pipelines.finetune.start_params import StartParams
from pipelines.finetune.start_source import open_folder
from pipelines.finetune.tasks.captioning import Captioning
from pipelines.pretrain import export
from tests.in_process import run_in_process
from tests.model.networks import RELEASED, network
from tests.model.test_interop import TASKS, torchscale
from tests.model.test_starting import resized_by_the_authors
from tests.pipelines.finetune.examples import task_of
from tests.pipelines.pretrain.test_start_from import commit, file, spm, workdir
from tests.s3 import upload
from tokenizer.text import TextTokenizer

MAKERS: dict[str, Callable[[BEiT3], TaskNetwork]] = {
    "retrieval": ForRetrieval,
    "vqa": lambda encoder: ForVisualQuestionAnswering(encoder, 7),
    "nlvr2": ForVisualReasoning,
    "imagenet": lambda encoder: ForImageClassification(encoder, 5),
}
VISION = "beit3.encoder.embed_positions.A.weight"
TEXT = "beit3.encoder.embed_positions.B.weight"


@cache
def rows() -> int:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return TextTokenizer.load(file(Path(folder), "spm.model", spm())).num_rows


def config(side: int = 224, **changes: object) -> BEiT3Config:
    """The released form with one head of 64 per attention head; 16-pixel patches."""
    sizes = {"width": 64, "depth": 2, "num_heads": 1, "ffn_width": 96, "patch_size": 16}
    return replace(RELEASED, image_size=side, vocab_size=rows(), **{**sizes, **changes})


def linear(name: str, width_in: int, width_out: int) -> dict[str, Tensor]:
    return {
        f"{name}.weight": torch.randn(width_out, width_in),
        f"{name}.bias": torch.randn(width_out),
    }


def norm(name: str, width: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.randn(width), f"{name}.bias": torch.randn(width)}


D = 64
HEADS = {
    "pretrained": (True, linear("mlm_head", D, 5) | linear("mim_head", D, 20)),
    "captioning": (True, linear("mlm_head", D, 5)),
    "retrieval": (
        True,
        {"vision_head.weight": torch.randn(D, D), "language_head.weight": torch.randn(D, D),
         "criterion.logit_scale": torch.tensor(2.6)},
    ),
    "vqa": (
        False,
        norm("pooler.norm", D) | linear("pooler.dense", D, D) | linear("head.0", D, 2 * D)
        | norm("head.1", 2 * D) | linear("head.3", 2 * D, 7),
    ),
    "nlvr2": (
        True,
        norm("head.norm1", 4 * D) | linear("head.dense1", 4 * D, 2 * D)
        | norm("head.norm2", 2 * D) | linear("head.dense2", 2 * D, 2),
    ),
    "imagenet": (False, norm("fc_norm", D) | linear("head", D, 5)),
}  # fmt: skip
"""By released file: whether its network has a final norm, and its head."""


def released(task: str, **changes: object) -> dict[str, Tensor]:
    final_norm, head = HEADS[task]
    theirs = torchscale(config(final_norm=final_norm, **changes))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return {f"beit3.{name}": tensor for name, tensor in theirs.state_dict().items()} | head


@pytest.fixture
def vocabulary(tmp_path) -> Path:
    return file(tmp_path / "vocabulary", "beit3.spm", spm())


@pytest.fixture
def given(tmp_path, vocabulary) -> Callable[..., StartParams]:
    """Write a released state and return the parameters that start from it."""

    def make(state: dict[str, Tensor], **changes: object) -> StartParams:
        path = tmp_path / "released.pth"
        torch.save({"model": state}, path)
        values = {"start_from": str(path), "text_tokenizer": str(vocabulary), **changes}
        return StartParams(**values)

    return make


def started(folder: Path, params: StartParams) -> Dataset:
    """The committed output of the stage."""
    assert start.requires(params) is None
    folder.mkdir(parents=True)
    run_in_process(start.stage(params), Store(folder), {})
    return Dataset.open(Store(folder))


def test_the_heads_have_the_names_of_the_interop_tests():
    for task, (final_norm, head) in TASKS.items():
        if task != "other":
            assert HEADS[task][0] == final_norm
            assert {n.removeprefix("criterion.") for n in HEADS[task][1]} == set(head)


@pytest.mark.parametrize("side", [224, 384, 480])
@pytest.mark.parametrize("task", HEADS)
def test_a_released_file_of_224_pixels_starts_a_network_of_another_size(
    tmp_path, given, task, side
):
    state = released(task)
    params = given(state, image_size=side, max_text_length=40)
    output = started(tmp_path / "start", params)
    found = start.load_config(output)
    assert found == config(side, max_text_length=40, final_norm=HEADS[task][0],
                           num_codes=found.num_codes)  # fmt: skip
    assert start.configuration_of(params) == found
    assert start.load_text_tokenizer(output).num_rows == found.vocab_size
    weights = start.load_weights(output)
    assert torch.equal(weights["network.language.positions"], state[TEXT][2:42])
    resized = resized_by_the_authors(state[VISION], side // 16)
    torch.testing.assert_close(weights["network.vision.positions"], resized[2:])
    kept = {} if task in ("pretrained", "captioning") else HEADS[task][1]
    assert {n for n in weights if not n.startswith("network.")} == {
        name.removeprefix("criterion.") for name in kept
    }
    for name, tensor in kept.items():
        assert torch.equal(weights[name.removeprefix("criterion.")], tensor)
    if task not in MAKERS:
        return
    loaded = MAKERS[task](BEiT3(found)).eval()
    assert start.apply(loaded, weights) == []
    expected = MAKERS[task](BEiT3(found))
    load_released(expected, state)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize("task", ["pretrained", "captioning"])
def test_a_captioning_starts_from_the_head_that_predicts_words(tmp_path, given, task):
    """Those of the other tasks do not keep it."""
    head = linear("mlm_head", D, config().vocab_size)
    state, names = released(task) | head, {"mlm_head.weight", "mlm_head.bias"}
    assert Captioning(name="captioning").word_head
    output = started(tmp_path / "start", given(state, word_head=True))
    weights = start.load_weights(output)
    assert {n for n in weights if not n.startswith("network.")} == names
    mask_id = start.load_text_tokenizer(output).mask
    loaded = ForCaptioning(BEiT3(start.load_config(output)), mask_id)
    assert start.apply(loaded, weights) == []
    assert all(torch.equal(loaded.state_dict()[name], state[name]) for name in names)


def test_a_network_computes_what_torchscale_does_with_the_interpolated_table(tmp_path, given):
    state = released("retrieval")
    output = started(tmp_path / "start", given(state, image_size=384))
    loaded = ForRetrieval(BEiT3(start.load_config(output))).eval()
    start.apply(loaded, start.load_weights(output))
    theirs = torchscale(config(384))
    body = {n.removeprefix("beit3."): t for n, t in state.items() if n.startswith("beit3.")}
    body["encoder.embed_positions.A.weight"] = resized_by_the_authors(state[VISION], 24)
    theirs.load_state_dict(body)
    images = torch.randn(1, 3, 384, 384)
    with torch.no_grad():
        first = theirs(visual_tokens=images)["encoder_out"][:, 0]
        expected = torch.nn.functional.normalize(first @ state["vision_head.weight"].T, dim=-1)
        torch.testing.assert_close(loaded.encode_images(images), expected, atol=1e-4, rtol=1e-4)


def dropped(state: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: dropped(s, "beit3.encoder.layers.1.ffn.A.fc1.weight"),
         "1 missing (blocks.1.experts.vision.fc1.weight 96x64)"),
        (lambda s: s | {"beit3.encoder.extra.weight": torch.zeros(3)},
         "beit3.encoder.extra.weight"),
        (lambda s: s | {"beit3.encoder.layers.1.ffn.B.fc2.bias": torch.zeros(9)},
         "blocks.1.experts.language.fc2.bias 9 given, 64 in the network"),
        (lambda s: dropped(s, "beit3.encoder.layers.0.self_attn.k_proj.A.weight"),
         "q, k and v must come together"),
        (lambda s: dropped(s, VISION), "the weights lack vision.positions"),
        (lambda s: s | {VISION: torch.zeros(200, 64)}, "197 patches, which form no square"),
        (lambda s: s | {VISION: torch.full((199, 64), torch.nan)}, "vision.positions holds values"),
        (lambda s: dropped(s, *(n for n in s if n.startswith("beit3."))), "no BEiT-3 network"),
        (lambda s: s | {"head.3.bias": torch.full((7,), torch.inf)}, None),
    ],
)  # fmt: skip
def test_missing_foreign_and_mismatched_names_are_said_before_work(tmp_path, given, change, words):
    params = given(change(released("vqa")))
    reason = start.requires(params)
    if words in (None, "vision.positions holds values"):  # a plan does not read values
        assert reason is None
        with pytest.raises(RecipeError, match="not finite"):
            start.write_start(Store(tmp_path), params)
        return
    assert reason is not None and reason.startswith("start_from: ") and words in reason
    assert "\n" not in reason
    assert list(start.plan_lines(params)) == []


def test_what_a_plan_says_of_a_released_file(given):
    state = released("imagenet") | {"classifier.weight": torch.zeros(3)}
    lines = "\n".join(start.plan_lines(given(state, image_size=480)))
    assert "interpolated (bicubic) from 14 x 14 to 30 x 30 patches" in lines
    assert "heads of tasks, for a task that has them: fc_norm.weight" in lines
    assert "not used: classifier.weight" in lines
    assert "attention heads: 1 are taken" in lines
    assert "released classifiers of ImageNet have mean (0.485, 0.456, 0.406)" in lines
    pixels = {"pixel_mean": (0.4, 0.5, 0.6), "pixel_std": (0.2, 0.2, 0.2)}
    params = given(state, **pixels)
    assert "normalization" not in "\n".join(start.plan_lines(params))
    found = start.configuration_of(params)
    assert found is not None and (found.pixel_mean, found.pixel_std) == tuple(pixels.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 250}, "network: image_size 250 is not a multiple of patch_size 16"),
        ({"pixel_std": (0.5, 0.0, 0.5)}, "network: pixel_std is (0.5, 0.0, 0.5)"),
    ],
)
def test_sizes_that_do_not_fit_the_weights_are_refused(given, changes, words):
    assert words in str(start.requires(given(released("vqa"), **changes)))


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("segmentation", {"head": "pyramid"}, "network.image_size = 208 is not a multiple of 32"),
        ("segmentation", {"head": "mask2former"}, "208 is not a multiple of 32, which the head"),
        ("detection", {}, "network.image_size = 208 is not a multiple of 64"),
        ("vqa", {}, None),
    ],
)
def test_a_plan_says_that_a_task_cannot_take_images_of_the_size(given, kind, changes, words):
    """Else only the training would, after all images of the task are read."""
    task, params = task_of(kind, **changes), given(released("vqa"), image_size=208)
    found = finetune.requires(params, task)
    assert words in found if words else found is None
    assert finetune.requires(given(released("vqa"), image_size=256), task) is None
    assert finetune.requires(StartParams(start_from="/nowhere"), task) is None


def test_a_width_that_no_released_network_has_needs_its_configuration(given):
    reason = start.requires(given(released("vqa", width=48)))
    assert "do not say their number of attention heads" in str(reason)


def test_a_bare_file_needs_its_vocabulary(tmp_path, given):
    state = released("vqa")
    assert "set text_tokenizer to the SentencePiece model" in str(
        start.requires(given(state, text_tokenizer=None))
    )
    other = file(tmp_path / "o", "spm.model", other_vocabulary())
    number = TextTokenizer.load(other).num_rows
    assert f"needs {number} rows of the token embedding, the weights have {rows()}" in str(
        start.requires(given(state, text_tokenizer=str(other)))
    )
    other.write_text("no model")
    assert "text_tokenizer: " in str(start.requires(given(state, text_tokenizer=str(other))))
    both = start.requires(given(dropped(state, VISION), text_tokenizer=str(other)))
    assert str(both).startswith("start_from: ") and "; text_tokenizer: " in str(both)


@cache
def other_vocabulary() -> bytes:
    from tokenizer.text import train

    return train(["b c d"] * 9, vocab_size=8, character_coverage=1)


def test_trainings_and_exports_bring_their_configuration_and_vocabulary(tmp_path):
    stage = workdir(tmp_path / "w")
    for place in (tmp_path / "w", stage, stage / "ray_train" / "step_00000010"):
        params = StartParams(start_from=str(place), image_size=64, pixel_mean=(0.4, 0.5, 0.6))
        assert "pixel_mean = (0.5, 0.5, 0.5), the recipe's is" in "\n".join(
            start.plan_lines(params)
        )
        output = started(tmp_path / place.name / "start", params)
        found = start.load_config(output)
        assert (found.num_heads, found.image_size, found.fusion_layers) == (3, 64, 1)
        loaded = ForRetrieval(BEiT3(found))
        (line,) = start.apply(loaded, start.load_weights(output))
        assert "vision_head.weight, language_head.weight" in line
        assert output.fetch("spm.model").read_bytes() == spm()
    folder = tmp_path / "export"
    folder.mkdir()
    export.write_network(folder, network(config(num_heads=4)))
    params = StartParams(start_from=str(folder))
    assert "does not come with its vocabulary" in str(start.requires(params))
    file(folder, "sentencepiece.bpe.model", spm())
    assert start.requires(params) is None
    found = start.configuration_of(params)
    assert found is not None and found.num_heads == 4
    other = params.model_copy(
        update={"text_tokenizer": str(file(tmp_path / "o", "spm.model", other_vocabulary()))}
    )
    assert "is another vocabulary than that of the weights" in str(start.requires(other))


def test_a_control_from_scratch_keeps_configuration_and_vocabulary_alone(tmp_path, given):
    params = given(released("vqa"), image_size=384, fresh_weights=True)
    assert "weights are left out" in "\n".join(start.plan_lines(params))
    output = started(tmp_path / "start", params)
    assert start.load_weights(output) == {}
    torch.manual_seed(0)
    made = ForVisualQuestionAnswering(BEiT3(start.load_config(output)), 7)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    assert "all parameters keep initial values" in start.apply(made, {})[0]
    assert all(torch.equal(tensor, before[n]) for n, tensor in made.state_dict().items())
    same = params.model_copy(update={"fresh_weights": False})
    assert semantic(params) != semantic(same)


def fine_tuned(root: Path, network: TaskNetwork, labels: list[str], params: StartParams) -> Path:
    """A workdir with a complete fine-tuning, as its stages write it; return the stage's folder."""
    output = started(root / "start" / "s0", params)
    stage = root / "finetune" / "f0"
    stage.mkdir(parents=True)
    save_file(
        {n: t.clone() for n, t in network.state_dict().items()}, stage / "network.safetensors"
    )
    (stage / "labels.json").write_text(json.dumps(labels))
    inputs = {"start": [["start", f"{output.folder.name}+abc"]]}
    (stage / "stage.json").write_text(json.dumps({"name": "finetune", "inputs": inputs}))
    commit(Store(stage), "finetune", ["network.safetensors", "labels.json"])
    for started_at, stages in ((2.0, {"finetune": "f0", "start": "s0"}), (3.0, {"embed": "e0"})):
        folder = root / "workflows" / next(iter(stages))
        folder.mkdir(parents=True)
        record = {"name": "own", "started_at": started_at, "stages": stages}
        (folder / "record.json").write_text(json.dumps(record))
    return stage


def tuned(make: Callable[[BEiT3], TaskNetwork], found: BEiT3Config) -> TaskNetwork:
    torch.manual_seed(3)
    made = make(BEiT3(found))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return made


def test_a_contrastive_tuning_starts_a_retrieval_at_a_larger_size(tmp_path, given):
    params = given(released("pretrained"), max_text_length=40)
    found = start.configuration_of(params)
    assert found is not None
    first = tuned(ForRetrieval, found)
    stage = fine_tuned(tmp_path / "w", first, [], params)
    for i, place in enumerate((tmp_path / "w", stage)):
        second = StartParams(start_from=str(place), image_size=384)
        output = started(tmp_path / f"second{i}", second)
        larger = ForRetrieval(BEiT3(start.load_config(output)))
        assert start.apply(larger, start.load_weights(output)) == []
        state, before = larger.state_dict(), first.state_dict()
        assert torch.equal(state["vision_head.weight"], before["vision_head.weight"])
        assert torch.equal(state["logit_scale"], before["logit_scale"])
        name = "network.blocks.1.attention.qkv.language.weight"
        assert torch.equal(state[name], before[name])
        assert len(state["network.vision.positions"]) == 1 + 24**2
    digest = semantic(second)["start_from"]
    assert digest == semantic(StartParams(start_from=str(tmp_path / "w")))["start_from"]


def test_a_classifier_starts_one_of_other_classes(tmp_path, given):
    params = given(released("pretrained"))
    found = start.configuration_of(params)
    assert found is not None
    unnormed = replace(found, final_norm=False)
    stage = fine_tuned(tmp_path / "w", tuned(MAKERS["imagenet"], unnormed), list("abcde"), params)
    output = started(tmp_path / "second", StartParams(start_from=str(stage)))
    assert not start.load_config(output).final_norm
    assert start.load_labels(output) == list("abcde")
    weights = start.load_weights(output)

    def applied(number: int, labels: list[str]) -> list[str]:
        made = ForImageClassification(BEiT3(unnormed), number)
        return start.apply(
            made, weights, given_labels=start.load_labels(output), labels=labels
        )  # fmt: skip

    assert applied(5, list("abcde")) == []
    (line,) = applied(3, list("abc"))
    assert "head.weight (5x64 given, 3x64 needed), head.bias" in line
    (line,) = applied(5, list("edcba"))
    assert "head.weight (trained for other labels)" in line and "fc_norm" not in line
    glue = ForTextClassification(BEiT3(replace(unnormed, final_norm=True)), 5)
    lines = start.apply(glue, weights)
    assert "initial values are kept by: network.norm.vision.weight" in lines[0]
    assert lines[1] == "not used: fc_norm.bias, fc_norm.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "finetune/f0/manifest.json").unlink(), "is not complete"),
        (lambda root: (root / "start/s0/manifest.json").unlink(), "is not in its workdir"),
        (lambda root: (root / "start/s0/network.json").write_text("{"), "network.json"),
    ],
)
def test_a_fine_tuning_that_is_not_whole_is_refused(tmp_path, given, change, words):
    params = given(released("pretrained"))
    found = start.configuration_of(params)
    assert found is not None
    fine_tuned(tmp_path / "w", tuned(ForRetrieval, found), [], params)
    change(tmp_path / "w")
    assert words in str(start.requires(StartParams(start_from=str(tmp_path / "w"))))


def test_the_output_of_a_start_is_no_weights_to_start_from(tmp_path, given):
    started(tmp_path / "start", given(released("pretrained")))
    with pytest.raises(RecipeError, match="neither a checkpoint"):
        open_folder(str(tmp_path / "start"))


def test_a_network_of_another_configuration_is_not_loaded_half(tmp_path, given):
    output = started(tmp_path / "start", given(released("vqa")))
    made = ForVisualQuestionAnswering(BEiT3(config(384, final_norm=False)), 7)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    with pytest.raises(ValueError, match=r"the encoder is not that .*network\.vision\.positions"):
        start.apply(made, start.load_weights(output))
    assert all(torch.equal(tensor, before[n]) for n, tensor in made.state_dict().items())


@pytest.mark.slow
def test_files_and_fine_tunings_on_s3_are_read(tmp_path, given, vocabulary, s3_of_environment):
    params = given(released("pretrained"))
    found = start.configuration_of(params)
    assert found is not None
    first = tuned(ForRetrieval, found)
    fine_tuned(tmp_path / "w", first, [], params)
    upload(tmp_path, s3_of_environment)
    for place in ("w", "w/finetune/f0"):
        remote = StartParams(start_from=f"{s3_of_environment}/{place}", image_size=384)
        assert semantic(remote)["start_from"] == semantic(
            StartParams(start_from=str(tmp_path / "w"))
        )["start_from"]  # fmt: skip
        output = started(tmp_path / f"from-{place.replace('/', '-')}", remote)
        made = ForRetrieval(BEiT3(start.load_config(output)))
        assert start.apply(made, start.load_weights(output)) == []
        assert torch.equal(made.vision_head.weight, first.vision_head.weight)
    name = vocabulary.relative_to(tmp_path).as_posix()
    remote = StartParams(
        start_from=f"{s3_of_environment}/released.pth",
        text_tokenizer=f"{s3_of_environment}/{name}",
    )
    assert start.configuration_of(remote) is None
    assert "compared after it is fetched" in "".join(start.plan_lines(remote))
    output = started(tmp_path / "from-file", remote)
    assert start.load_config(output) == found
    assert output.fetch("spm.model").read_bytes() == spm()
    missing = remote.model_copy(update={"text_tokenizer": f"{s3_of_environment}/none.spm"})
    assert "text_tokenizer: " in str(start.requires(missing))
