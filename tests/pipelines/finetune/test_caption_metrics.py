"""Metrics of captions against direct calls of ``pycocoevalcap``, with and without its programs."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from dataprep.miniweb.grammar import capital, caption, random_scene
from pipelines.finetune import caption_java
from pipelines.finetune.caption_java import JavaError
from pipelines.finetune.caption_metrics import (
    NAMES,
    OWN,
    PUBLISHED_NAMES,
    own_scores,
    own_tokens,
    published_scores,
)

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
MARKS = ["", ".", " !", ', "so to say".', " (it's one)", " -- a 2-colored café's", "..."]


def drawn(number=200, seed=0):
    """Generated captions, some of them right, and the references of each image."""
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng) for _ in range(number)]
    captions = [caption(s if rng.random() < 0.5 else random_scene(rng), rng) for s in scenes]
    captions[3] = ""
    references = [
        [f"{capital(caption(scene, rng))}{rng.choice(MARKS)}" for _ in range(rng.integers(1, 6))]
        for scene in scenes
    ]
    return captions, references


def as_scored(captions, references, tokenize):
    """The two arguments of a scorer."""
    given = {i: [{"caption": text} for text in some] for i, some in enumerate(references)}
    found = {i: [{"caption": text}] for i, text in enumerate(captions)}
    return tokenize(given), tokenize(found)


def words(by_image):
    return {i: [own_tokens(each["caption"]) for each in some] for i, some in by_image.items()}


@needs_java
def test_published_metrics_are_those_of_a_direct_call(monkeypatch):
    captions, references = drawn()
    monkeypatch.setattr(caption_java, "meteor", lambda *texts: 0.25)
    found, missing = published_scores(captions, references, {"near-domain": range(7, 90)})
    texts = as_scored(captions, references, PTBTokenizer().tokenize)
    assert caption_java.tokenized(captions, references) == (
        [some[0] for some in texts[1].values()],
        list(texts[0].values()),
    )
    bleus, _ = Bleu().compute_score(*texts, verbose=0)
    assert [found[f"bleu_{n}"] for n in range(1, 5)] == pytest.approx(bleus, abs=1e-12)
    assert found["cider"] == pytest.approx(Cider().compute_score(*texts)[0], abs=1e-12)
    assert found["rouge_l"] == pytest.approx(Rouge().compute_score(*texts)[0], abs=1e-12)
    part = [{i: some[i] for i in range(7, 90)} for some in texts]
    assert found["near-domain/cider"] == pytest.approx(Cider().compute_score(*part)[0])
    assert 0 <= found["chance/cider"] < 0.2 * found["cider"]
    assert found["meteor"] == 0.25 and {*found, *missing} >= {*PUBLISHED_NAMES}
    assert missing.keys() <= {"spice"}


def test_metrics_of_our_own_tokens_are_those_of_a_direct_call():
    captions, references = drawn(seed=1)
    found = own_scores(captions, references)
    texts = as_scored(captions, references, words)
    expected = Cider().compute_score(*texts)[0]
    assert found[f"{OWN}/cider"] == pytest.approx(expected, abs=1e-12) and expected > 1
    expected = Bleu().compute_score(*texts, verbose=0)[0][3]
    assert found[f"{OWN}/bleu_4"] == pytest.approx(expected, abs=1e-12)
    assert not found.keys() & {*PUBLISHED_NAMES} and {*found} - {*NAMES} == {
        f"chance/{OWN}/cider", f"chance/{OWN}/bleu_4",
    }  # fmt: skip


def test_chance_is_the_most_frequent_caption_for_every_image():
    references = [["a dog", "A cat."], ["the cat", "a cat"], ["a dog", "a bird"], ["A dog!"]]
    found = own_scores(["x", "y", "z", "w"], references)
    same = own_scores(["A DOG"] * 4, references)
    assert found[f"chance/{OWN}/cider"] == same[f"{OWN}/cider"] > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man's two-story House, 3 dogs; (red)!", "a man's two-story house 3 dogs red"),
        ("Ein Käfer -- 日本語 under_score", "ein käfer 日本語 under score"),
        ("हिन्दी की का; กินข้าว", "हिन्दी की का กินข้าว"),
        ("...", ""),
    ],
)
def test_our_own_tokens_are_lower_case_words_without_punctuation(text, expected):
    assert own_tokens(text) == expected


def test_of_one_image_cider_is_left_out_and_the_reason_is_given(monkeypatch):
    """A direct call gives 0, however good the caption is."""
    assert Cider().compute_score({0: ["a dog"]}, {0: ["a dog"]})[0] == 0
    assert own_scores(["a dog"], [["a dog"]]).keys() == {f"{OWN}/bleu_4", f"chance/{OWN}/bleu_4"}
    monkeypatch.setattr(caption_java, "tokenized", lambda *texts: texts)
    monkeypatch.setattr(caption_java, "meteor", lambda *texts: 1.0)
    found, missing = published_scores(["a dog"], [["a dog"]], {"in-domain": [0]})
    assert "cider" not in found and missing["cider"].startswith("of one image CIDEr is 0")
    assert "in-domain/cider" in missing


def test_references_without_a_word_give_no_cider_but_no_error():
    assert own_scores(["a dog", "b"], [["..."], ["!"]])[f"{OWN}/cider"] == 0


def test_without_java_no_published_metric_is_given_and_each_has_the_reason(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    found, missing = published_scores(["a", "b"], [["a"], ["b"]], {})
    assert found == {} and missing.keys() == {*PUBLISHED_NAMES}
    assert set(missing.values()) == {"published tokenization: java is not on the PATH"}


def fake_java(folder: Path, monkeypatch, script: str) -> None:
    folder.mkdir()
    java = folder / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin{os.pathsep}/usr/bin")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("cat >/dev/null; echo no heap >&2; exit 3", "failed with code 3: no heap"),
        ("cat >/dev/null; echo one; exit 0", "returned 2 lines of 4 captions"),
    ],
)
def test_a_tokenizer_that_fails_is_a_reason_and_no_crash(tmp_path, monkeypatch, script, message):
    fake_java(tmp_path / "bin", monkeypatch, script)
    with pytest.raises(JavaError, match=message):
        caption_java.tokenized(["a", "b"], [["a"], ["b"]])
    assert not published_scores(["a", "b"], [["a"], ["b"]], {})[0]


def test_a_meteor_that_fails_is_a_reason_and_no_crash(tmp_path, monkeypatch):
    fake_java(tmp_path / "bin", monkeypatch, "exit 1")
    with pytest.raises(JavaError, match="METEOR failed"):
        caption_java.meteor({0: ["a"]}, {0: ["a"]})


def test_a_meteor_that_does_not_end_is_ended(tmp_path, monkeypatch):
    fake_java(tmp_path / "bin", monkeypatch, "exec sleep 1000")
    monkeypatch.setattr(caption_java, "_TIMEOUT_S", 0.2)
    with pytest.raises(JavaError, match=r"METEOR failed: it ran longer than 0\.2 seconds"):
        caption_java.meteor({0: ["a"]}, {0: ["a"]})


def test_spice_is_never_downloaded(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("a download")

    monkeypatch.setattr("pycocoevalcap.spice.get_stanford_models.urlretrieve", refused)
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    with pytest.raises(JavaError, match=r"SPICE needs stanford-corenlp-3\.6\.0\.jar"):
        caption_java.spice({0: ["a"]}, {0: ["a"]})


@needs_java
def test_nothing_is_written_into_the_package(tmp_path, monkeypatch):
    """A read-only install: the tokenizer's folder is a copy in which no file can be made."""
    part = caption_java._package("tokenizer")
    copy = tmp_path / "tokenizer"
    copy.mkdir()
    for jar in part.glob("*.jar"):
        (copy / jar.name).symlink_to(jar)
    before = sorted(path.name for path in copy.iterdir())
    copy.chmod(0o555)
    monkeypatch.setattr(caption_java, "_package", lambda name: tmp_path / name)
    assert caption_java.tokenized(["A dog."], [["A cat's."]]) == (["a dog"], [["a cat 's"]])
    assert sorted(path.name for path in copy.iterdir()) == before


@pytest.mark.exhaustive  # METEOR reads its paraphrases for ten seconds, twice
@needs_java
def test_meteor_is_that_of_a_direct_call():
    captions, references = drawn(20)
    tokens, given = caption_java.tokenized(captions, references)
    texts = dict(enumerate(given)), {i: [text] for i, text in enumerate(tokens)}
    assert caption_java.meteor(*texts) == pytest.approx(Meteor().compute_score(*texts)[0])
