"""What is no model, or cannot do what is asked, is refused in one sentence."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model import BEiT3
from model.network.pretrained import NotAModel
from pipelines import PretrainedModel
from pipelines.builtin_recipes import builtin_recipes
from pipelines.inference.uses import USES, CannotDo
from tests.pipelines.inference.models import KINDS, builder_of, fine_tuned, pretrained
from tokenizer.text import train
from tokenizer.vqkd import VQKD

SMALL = train(["x y z a b c"] * 9, vocab_size=11, character_coverage=1)
IMAGE = np.zeros((8, 8, 3), np.uint8)
CALLS = {
    "similarity": lambda model: model.similarity([IMAGE], ["a"]),
    "caption": lambda model: model.caption([IMAGE]),
    "answer": lambda model: model.answer([IMAGE], ["a"]),
    "classify": lambda model: model.classify([IMAGE]),
    "classify_pairs": lambda model: model.classify_pairs([(IMAGE, IMAGE)], ["a"]),
    "detect": lambda model: model.detect([IMAGE]),
    "segment": lambda model: model.segment([IMAGE]),
    "fill_mask": lambda model: model.fill_mask(["<mask>"]),
    "fill_patches": lambda model: model.fill_patches([IMAGE], np.ones((1, 16), bool)),
    "codes": lambda model: model.codes([IMAGE]),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[[str], Path]:
    """A function from a kind to its export, for reading alone."""
    root, folders = tmp_path_factory.mktemp("exports"), {}

    def make(kind: str) -> Path:
        if kind not in folders:
            folder = root / kind.replace(" ", "_") / "export"
            folders[kind] = (
                pretrained(folder) if kind == "pretrained" else fine_tuned(folder, builder_of(kind))
            )
        return folders[kind]

    return make


@pytest.mark.parametrize("kind", ["pretrained", "detection", "segmentation", *KINDS])
def test_a_method_that_the_model_cannot_do_names_the_recipe(made, kind):
    model = PretrainedModel.from_pretrained(made(kind))
    for method, call in CALLS.items():
        if method in model.methods:
            if (method == "classify") <= (model.task is None or model.task.num_images > 0):
                call(model)
            continue
        with pytest.raises(CannotDo) as refused:
            call(model)
        words = str(refused.value)
        assert "\n" not in words and words.startswith(f"{method}: {made(kind)} is ")
        assert USES[method].recipe in words
    assert model.methods


def test_the_recipes_of_the_refusals_exist():
    words = " ".join(use.recipe for use in USES.values()).replace(",", " ").split()
    named = {word for word in words if word == "base" or word.startswith("finetune/")}
    assert named <= {*builtin_recipes(), "finetune/coco-captioning-base"}


def change_json(name: str, **changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return changed


def drop(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(state: dict[str, torch.Tensor]) -> None:
        del state[name]

    return change


def codebook(num_codes: int, value: float) -> Callable[[Path], None]:
    """Write an image tokenizer with a number of codes, one of which has a value."""

    def change(folder: Path) -> None:
        config = replace(VQKD.load(folder / "vqkd.pt").config, num_codes=num_codes)
        tokenizer = VQKD(config)
        tokenizer.quantize.embedding.weight.data[3, 5] = value
        tokenizer.save(folder / "vqkd.pt")

    return change


def without(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def foreign(config: dict[str, object], name: str = "config.json") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        without(folder, "network.json")
        (folder / name).write_text(json.dumps(config))

    return change


PRETRAINED = {
    "cut weights": (cut("model.safetensors"), "damaged"),
    "no weights": (remove("model.safetensors"), "has network.json but no model.safetensors"),
    "no configuration": (remove("network.json"), "network.json is missing"),
    "cut configuration": (cut("network.json"), "network.json: no JSON .*; copy the file again"),
    "newer configuration": (
        change_json("network.json", format=2), "format 2, this version reads 1",
    ),
    "unknown field": (change_json("network.json", rotary=True), "fields .*rotary; correct"),
    "another type": (change_json("network.json", width="48"), "no configuration of a network"),
    "no number of pixels": (change_json("network.json", image_size=64.0), "give a whole number"),
    "two means": (change_json("network.json", pixel_mean=[0.5, 0.5]), "give 3 numbers"),
    "no finite mean": (change_json("network.json", pixel_mean=[0, 0, 1e400]), "must be finite"),
    "no truth": (change_json("network.json", subln="no"), "subln is 'no'; give true or false"),
    "another attention": (
        change_json("network.json", attention="Shared"), "'Shared'; give one of shared, decoupled",
    ),
    "many codes": (change_json("network.json", num_codes=10**15), "of another shape"),
    "a large image": (change_json("network.json", image_size=8 * 10**8), "of another shape"),
    "many blocks": (change_json("network.json", depth=10**9), "blocks 3 to 999999999 are missing"),
    "a list": (write("network.json", b"[]"), "no configuration of a network"),
    "another width": (change_json("network.json", width=96), "of another shape"),
    "another depth": (change_json("network.json", depth=4), "missing"),
    "no number": (
        weights(lambda state: state["vision.class_token"].fill_(torch.nan)), "not finite",
    ),
    "a tensor less": (weights(drop("norm.vision.weight")), "missing"),
    "vocabulary of another": (
        write("sentencepiece.bpe.model", SMALL),
        "rows of the token embedding, the weights have",
    ),
    "cut vocabulary": (cut("sentencepiece.bpe.model"), "not a SentencePiece model"),
    "cut codebook": (cut("vqkd.pt"), "vqkd.pt: neither a torch nor"),
    "codebook without a number": (
        codebook(20, torch.nan), "not a VQ-KD tokenizer: .* holds values that are not finite",
    ),
    "codebook of another": (
        codebook(21, 0.5), "vqkd.pt: 21 codes, the network predicts 20; copy the whole export",
    ),
    "card of another encoding": (
        write("README.md", b"caf\xe9"), "README.md is not UTF-8 text; copy the whole folder again",
    ),
    "transformers": (foreign({"model_type": "bert"}), r"model of transformers \(bert\)"),
    "clip": (foreign({"model_type": "clip"}), r"model of transformers \(clip\)"),
    "timm": (foreign({"architecture": "vit_base_patch16"}), "timm's model vit_base_patch16"),
    "lora": (foreign({"peft_type": "LORA"}, "adapter_config.json"), "adapter"),
}  # fmt: skip


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_damaged_or_foreign_folder_is_refused(made, tmp_path, name):
    change, words = PRETRAINED[name]
    folder = Path(shutil.copytree(made("pretrained"), tmp_path / "export"))
    change(folder)
    assert_refused(folder, words)
    if not any(part in name for part in ("vocabulary", "codebook", "card")):
        assert_refused(folder, words, BEiT3)


TASK = {
    "newer task": (
        change_json("task.json", format=9), "task.json has format 9, this version reads 1",
    ),
    "no such task": (change_json("task.json", task={"name": "grounding"}), "task.json: task"),
    "another parameter": (
        change_json("task.json", task={"name": "vqa", "beams": 3}), "task.json: task.vqa.beams",
    ),
    "cut task": (cut("task.json"), "task.json"),
    "no labels": (remove("labels.txt"), "head.3.weight is 5x96, not 0x96 as 0 labels need"),
    "cut labels": (cut("labels.txt"), "no list of labels|5x96"),
    "a label twice": (
        write("labels.txt", b"".join(
            b'{"answer": "%d", "label": %d}\n' % (i, min(i, 3)) for i in range(5)
        )), "no list of labels: .* from 0 to 4, each once",
    ),
    "no text": (
        write("labels.txt", b"".join(b'{"answer": null, "label": %d}\n' % i for i in range(5))),
        "a label is no text",
    ),
    "many blocks": (change_json("network.json", depth=10**9), "blocks 3 to 999999999 are missing"),
    "a large image": (change_json("network.json", image_size=8 * 10**8), "17x48, not .* as net"),
    "no vocabulary": (
        remove("sentencepiece.bpe.model"), "no text tokenizer; copy the whole export",
    ),
    "no task": (remove("task.json"), "a fine-tuned network without its task.json"),
    "a pretraining's weights": (
        weights(drop("head.3.bias")),
        "not those of the task vqa: missing: head.3.bias",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TASK)
def test_a_damaged_fine_tuning_is_refused(made, tmp_path, name):
    change, words = TASK[name]
    folder = Path(shutil.copytree(made("vqa"), tmp_path / "export"))
    change(folder)
    assert_refused(folder, words)


def test_a_pretraining_beside_a_task_is_not_taken_for_either(made, tmp_path):
    folder = Path(shutil.copytree(made("pretrained"), tmp_path / "export"))
    shutil.copyfile(made("vqa") / "task.json", folder / "task.json")
    assert_refused(folder, "weights of a pretraining beside the task.json of a fine-tuning")


def test_a_file_that_the_task_names_is_not_forgotten(tmp_path):
    names = tmp_path / "names.tsv"
    names.write_text("".join(f"{label}\tthe {label}\n" for label in builder_of("dual").numbers))
    folder = fine_tuned(tmp_path / "export", builder_of("dual", class_names=str(names)))
    (folder / "class_names.tsv").unlink()
    assert_refused(folder, "task.json names .*class_names.tsv, which is not there; copy the whole")
    task = json.loads((folder / "task.json").read_text())["task"]
    change_json("task.json", task=task | {"class_names": "../../names.tsv"})(folder)
    assert_refused(folder, "task.json names ../../names.tsv, which is not a file beside it")


@pytest.mark.parametrize("source", ["/no/such/folder", "./no-such", "nothing", "a/b/c"])
def test_what_does_not_exist_is_named(source):
    assert_refused(source, "there is no such folder or file")


def test_an_empty_folder_and_other_files_are_named(tmp_path, made):
    assert_refused(tmp_path, "the folder is empty")
    (tmp_path / "notes.txt").write_text("x")
    assert_refused(tmp_path, "neither network.json nor model.safetensors")
    assert_refused(tmp_path / "notes.txt", "neither a torch nor a safetensors file")
    assert_refused(made("pretrained") / "timm", "timm's model")
    torch.save({"bert.embeddings.word_embeddings.weight": torch.zeros(3, 3)}, tmp_path / "b.bin")
    assert_refused(tmp_path / "b.bin", "no BEiT-3 network")


def test_no_code_of_a_file_is_run(tmp_path):
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    assert_refused(tmp_path / "evil.pth", "could run code")
    assert not (tmp_path / "ran").exists()


def test_predicted_pixels_are_not_taken_for_codes(tmp_path):
    """A head for pixels has outputs that look like scores of codes."""
    model = PretrainedModel.from_pretrained(pretrained(tmp_path / "export", image_target="pixels"))
    assert "fill_patches" not in model.methods and "codes" in model.methods
    with pytest.raises(CannotDo, match="has no head for the codes of masked patches"):
        model.fill_patches([IMAGE], np.ones((1, 16), bool))


NO_VALUES = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "without values": lambda tensor: tensor.to("meta"),
}


@pytest.mark.parametrize("kind", NO_VALUES)
def test_weights_that_are_no_plain_numbers_are_refused(made, tmp_path, kind):
    state = load_file(made("pretrained") / "model.safetensors")
    name = "vision.class_token"
    torch.save({"model": state | {name: NO_VALUES[kind](state[name])}}, tmp_path / "w.pth")
    for loaded in (PretrainedModel, BEiT3):
        assert_refused(tmp_path / "w.pth", f"{name} is {kind}; save plain tensors", loaded)


def test_one_input_instead_of_a_list_is_refused(made):
    model = PretrainedModel.from_pretrained(made("pretrained"))
    for call in (
        lambda: model.embed_texts("a red circle"),
        lambda: model.embed_images("a.jpg"),
        lambda: model.embed_images(IMAGE),
        lambda: model.processor.texts("a red circle"),
        lambda: model.processor.images("a.jpg"),
        lambda: model.processor.pixels(IMAGE),
    ):
        with pytest.raises(TypeError, match=r"; give a list, even of one: \["):
            call()
    ids, padding = model.processor.texts([])
    assert ids.shape == padding.shape == (0, 0)
    with pytest.raises(ValueError, match="precision is 'fp16'; give one of"):
        PretrainedModel.from_pretrained(made("pretrained"), precision="fp16")
    with pytest.raises(ValueError, match="batch_size is 0"):
        model.embed_images([IMAGE], batch_size=0)
    with pytest.raises(ValueError, match="top_k is 0"):
        model.fill_mask(["<mask>"], top_k=0)


def assert_refused(source: Path | str, words: str, kind: type = PretrainedModel) -> None:
    with pytest.raises(NotAModel, match=words) as refused:
        kind.from_pretrained(source)
    assert "\n" not in str(refused.value) and str(source) in str(refused.value)


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "vqkd.pt", "model.safetensors"])
def test_a_file_that_is_a_broken_link_is_not_taken_for_none(made, tmp_path, name):
    folder = Path(shutil.copytree(made("pretrained"), tmp_path / "export"))
    (folder / name).unlink()
    (folder / name).symlink_to("gone")
    assert_refused(folder, f"{name} is a broken link to gone; copy the whole export")


def test_texts_given_as_images_are_one_sentence(made):
    of_images = PretrainedModel.from_pretrained(made("linear"))
    pairs = PretrainedModel.from_pretrained(made("nlvr2"))
    for text in ("a red square", "a\0b", "long " * 2000):
        for call in (
            lambda text=text: of_images.classify([text]),
            lambda text=text: pairs.classify_pairs([(text, text)], ["a"]),
        ):
            with pytest.raises((OSError, ValueError), match="an image is expected") as refused:
                call()
            assert "\n" not in str(refused.value)


EXTREME = {
    "retrieval": lambda model: model.embed_images([IMAGE]),
    "linear": lambda model: model.classify([IMAGE]),
    "vqa": lambda model: model.answer([IMAGE], ["a"]),
    "sentences": lambda model: model.classify([("a", "b")]),
    "pretrained": lambda model: model.fill_mask(["<mask>"]),
}


@pytest.mark.parametrize("kind", EXTREME)
def test_weights_that_give_no_finite_numbers_give_no_results(made, tmp_path, kind):
    folder = Path(shutil.copytree(made(kind), tmp_path / "export"))
    weights(lambda state: [tensor.fill_(1e30) for tensor in state.values()] and None)(folder)
    model = PretrainedModel.from_pretrained(folder)
    for call in (EXTREME[kind], lambda model: model.embed_texts(["a"], normalize=False)):
        with pytest.raises(CannotDo, match="are not finite; check the weights"):
            call(model)


def test_features_too_long_for_a_length_are_not_zeros(made, tmp_path):
    folder, name = tmp_path / "export", "vision_head.weight"
    shutil.copytree(made("retrieval"), folder)
    weights(lambda state: state.update({name: state[name] * 1e25}))(folder)
    model = PretrainedModel.from_pretrained(folder)
    with pytest.raises(CannotDo, match="features are not finite"):
        model.embed_images([IMAGE])


@pytest.mark.parametrize("name", ["runs/nothing", "other/step.pth"])
def test_a_path_with_a_typing_error_is_not_looked_up_on_the_hub(tmp_path, monkeypatch, name):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("model.network.pretrained._from_hub", lambda *_: pytest.fail("looked up"))
    assert_refused(name, f"there is no such folder or file; .* hub is {name}@main")


@pytest.mark.parametrize("name", ["", "  ", "a\0b", "~no-such-user/x", "a/" + "long" * 2000])
def test_a_name_that_no_path_has_is_one_sentence(name):
    for kind in (PretrainedModel, BEiT3):
        with pytest.raises(NotAModel) as refused:
            kind.from_pretrained(name)
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
