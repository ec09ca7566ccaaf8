"""Masked words and patches: where they stand in the input, and what is said of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines import PretrainedModel
from pipelines.inference.masked_texts import masked_ids
from tests.model.networks import network
from tests.pipelines.finetune.examples import WORDS, examples, text_tokenizer
from tests.pipelines.inference.models import config_of, pretrained
from tokenizer.text import BOS, EOS, FIRST_PIECE

TOKENIZER = text_tokenizer()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> PretrainedModel:
    return PretrainedModel.from_pretrained(pretrained(tmp_path_factory.mktemp("m") / "export"))


@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), data=st.data())
def test_a_marker_replaces_exactly_the_tokens_of_a_word(words, data):
    """Wherever the word stands: the ids are those of the whole text, up to the masked ones."""
    at = data.draw(st.integers(0, len(words) - 1))
    before, after = (
        TOKENIZER.encode(" ".join(words[:at])),
        TOKENIZER.encode(" ".join(words[at + 1 :])),
    )
    text = " ".join([*words[:at], "<mask>", *words[at + 1 :]])
    expected = [BOS, *before, TOKENIZER.mask, *after, EOS]
    assert masked_ids(text, TOKENIZER, 64) == expected


def test_what_follows_a_marker_at_once_continues_its_word():
    whole = TOKENIZER.encode("one squares")
    assert whole[-1:] == TOKENIZER.encode("circles")[-1:]  # a piece of one letter
    assert masked_ids("one <mask>s", TOKENIZER, 64)[-3:] == [TOKENIZER.mask, whole[-1], EOS]
    assert (
        masked_ids("one <mask> s", TOKENIZER, 64)[-3:]
        != masked_ids("one <mask>s", TOKENIZER, 64)[-3:]
    )


@pytest.mark.parametrize(
    ("text", "marker", "words"),
    [
        ("a red circle", "<mask>", r"'a red circle' has no '<mask>'"),
        ("a <mask>", "", "has no ''"),
        ("a <mask>", "[MASK]", r"has no '\[MASK\]'"),
        ("red " * 30 + "<mask>", "<mask>", r"has \d+ tokens, the network reads 24; shorten it"),
    ],
)
def test_a_text_without_a_marker_or_too_long_is_refused(model, text, marker, words):
    with pytest.raises(ValueError, match=words):
        model.fill_mask([text], marker=marker)


def test_a_text_may_stand_in_a_group_of_one_as_elsewhere(model):
    (alone,), (grouped,) = model.fill_mask(["one <mask>"]), model.fill_mask([("one <mask>",)])
    assert alone == grouped


@torch.inference_mode()
@pytest.mark.parametrize("with_images", [False, True])
def test_words_are_those_of_the_head_at_each_marker(model, with_images):
    texts = ["a [MASK] circle on [MASK]", "the <mask> is [MASK]"]
    jpegs = [row["images"][0] for row in examples("linear", 2).to_pylist()] if with_images else None
    found = model.fill_mask(texts, jpegs, top_k=3, marker="[MASK]", batch_size=1)
    assert [len(some) for some in found] == [2, 1]
    theirs = network(config_of())
    for i, text in enumerate(texts):
        ids = torch.tensor([masked_ids(text, TOKENIZER, 64, "[MASK]")])
        images = None if jpegs is None else model.processor.images([jpegs[i]])
        hidden = theirs(images, ids).text[ids == TOKENIZER.mask]
        scores = theirs.mlm_head(hidden).softmax(-1)
        pieces = scores[:, FIRST_PIECE : TOKENIZER.last_piece + 1]
        best = pieces.topk(3, dim=-1)
        for one, values, indices in zip(found[i], *best, strict=True):
            np.testing.assert_allclose([c.score for c in one], values, rtol=1e-4)
            assert [c.label for c in one] == [
                TOKENIZER.decode([int(k) + FIRST_PIECE]) for k in indices
            ]
    everything = model.fill_mask(texts[:1], jpegs and jpegs[:1], top_k=10**6, marker="[MASK]")
    assert len(everything[0][0]) == TOKENIZER.last_piece - FIRST_PIECE + 1


@torch.inference_mode()
@pytest.mark.parametrize("with_texts", [False, True])
def test_codes_are_those_of_the_head_at_masked_patches(model, with_texts):
    jpegs = [row["images"][0] for row in examples("linear", 3).to_pylist()]
    masks = np.random.default_rng(0).random((3, 4, 4)) < 0.4
    masks[1] = False
    texts = ["a red circle", "one", "blue square"] if with_texts else None
    found = model.fill_patches(jpegs, masks, texts, top_k=4, batch_size=2)
    theirs, flat = network(config_of()), torch.from_numpy(masks.reshape(3, 16))
    ids, padding = model.processor.texts(texts) if texts else (None, None)
    hidden = theirs(model.processor.images(jpegs), ids, padding, image_mask=flat).patches
    for i, one in enumerate(found):
        assert one.positions.tolist() == np.flatnonzero(masks[i]).tolist()
        best = theirs.mim_head(hidden[i][flat[i]]).softmax(-1).topk(4, dim=-1)
        np.testing.assert_allclose(one.probabilities, best.values, rtol=1e-4)
        assert np.array_equal(one.codes, best.indices)
    codes = model.codes(jpegs, batch_size=2)
    assert codes.shape == (3, 16) and codes.max() < 20
    assert np.array_equal(model.codes(jpegs[2:]), codes[2:])


def test_masks_of_another_number_of_patches_are_refused(model):
    jpegs = [row["images"][0] for row in examples("linear", 2).to_pylist()]
    for shape in ((2, 9), (1, 16), (2, 4, 5)):
        with pytest.raises(ValueError, match=r"masks have the shape .*; give \(2, 16\)"):
            model.fill_patches(jpegs, np.zeros(shape, bool))
    with pytest.raises(ValueError, match="2 images and 1 texts"):
        model.fill_patches(jpegs, np.zeros((2, 16), bool), ["one"])
