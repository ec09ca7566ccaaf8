"""Shown samples: predictions against those that are measured, and drawings against plain loops."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from model import BEiT3
from model.training import objectives
from pipelines.pretrain.evaluation import shown
from pipelines.pretrain.evaluation.inputs import MaskedPairs
from pipelines.pretrain.evaluation.patch_drawings import (
    MeanPatches,
    attended,
    from_patches,
    hidden,
    to_patches,
    with_pixels,
)
from tests.pipelines.pretrain.evaluation.scripted_networks import colored_pairs
from tests.pipelines.pretrain.test_feed import NETWORK
from tokenizer.text import FIRST_PIECE, TextTokenizer, train

NUM, N = 4, NETWORK.num_patches
ABOUT = [{"sample_id": f"own/{i}", "source": "own", "caption": f"caption {i}"} for i in range(NUM)]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> TextTokenizer:
    path = tmp_path_factory.mktemp("text") / "spm.model"
    words = ["a red circle, a blue square.", "the blue circle; one red square!"] * 30
    path.write_bytes(train(words, vocab_size=25, character_coverage=1.0))
    return TextTokenizer.load(path)


@pytest.fixture(scope="module")
def network() -> BEiT3:
    torch.manual_seed(1)
    return BEiT3(NETWORK).eval()


def pairs() -> MaskedPairs:
    draw = torch.Generator().manual_seed(2)
    made = colored_pairs(NUM)
    batch = replace(
        made.batch,
        images=torch.randn(NUM, 3, NETWORK.image_size, NETWORK.image_size, generator=draw),
        codes=torch.randint(0, NETWORK.num_codes, (NUM, N), generator=draw),
        image_mask=torch.rand(NUM, N, generator=draw) < 0.4,
    )
    return MaskedPairs(batch, made.words)


def crops(number: int = NUM) -> np.ndarray:
    side = NETWORK.image_size
    return np.random.default_rng(0).integers(0, 256, (number, side, side, 3), dtype=np.uint8)


def means() -> MeanPatches:
    codes = np.random.default_rng(1).integers(0, NETWORK.num_codes, (NUM, N))
    return MeanPatches([(crops(), codes)], NETWORK.num_codes)


def test_as_many_codes_are_right_as_the_evaluation_measures(network):
    """The measured batch has the captions unmasked, as the shown one."""
    batch = pairs().batch
    rows = shown.image_rows(network, batch, crops(), means(), ABOUT).to_pylist()
    alone = replace(batch, text_ids=batch.text_targets, text_mask=None)
    with torch.no_grad():
        (made,) = objectives.predict(network, alone).values()
    for i, row in enumerate(rows):
        assert row["num_correct"] == int(made.is_correct[made.samples == i].sum())
        assert row["num_masked"] == int(batch.image_mask[i].sum())
        assert row["caption"] == f"caption {i}" and row["num_correct_other"] is not None
        for name in ("crop", "masked", "target", "predicted", "attention"):
            assert Image.open(io.BytesIO(row[name])).size == (32, 32)


def test_the_first_piece_is_the_prediction_that_the_evaluation_judges(network, text):
    given = pairs()
    rows = shown.word_rows(network, given, crops(), text, ABOUT).to_pylist()
    alone = replace(given.batch, image_mask=None)
    with torch.no_grad():
        encoded = network(alone.images, alone.text_ids)
        logits = network.mlm_head(encoded.text)[:, :, FIRST_PIECE : text.last_piece + 1]
        unseen = network(None, alone.text_ids)
        blind = network.mlm_head(unseen.text)[:, :, FIRST_PIECE : text.last_piece + 1]
    for i, row in enumerate(rows):
        assert row["other_id"] == f"own/{(i + 1) % NUM}"
        assert row["pieces"] == [text.piece(FIRST_PIECE + i)] * 5
        assert [word["position"] for word in row["words"]] == [2, 3]
        for word in row["words"]:
            for name, found in (("right", logits), ("none", blind)):
                best = found[i, word["position"] + 1].argmax().item() + FIRST_PIECE
                assert word[name][0]["piece"] == text.piece(best)
                probabilities = [each["probability"] for each in word[name]]
                assert probabilities == sorted(probabilities, reverse=True)
        assert rows[i]["words"][0]["other"] != rows[i]["words"][0]["right"]


def test_a_network_of_pixels_has_no_codes_to_show(network):
    torch.manual_seed(0)
    pixels = BEiT3(replace(NETWORK, image_target="pixels")).eval()
    batch = replace(pairs().batch, codes=None, text_ids=None, text_targets=None, text_mask=None)
    for row in shown.image_rows(pixels, batch, crops(), None, ABOUT).to_pylist():
        assert row["target"] is None and row["num_correct"] is None
        assert Image.open(io.BytesIO(row["predicted"])).size == (32, 32)


def test_the_patch_of_a_code_is_the_mean_of_all_that_have_it():
    codes = np.array([[0, 0, 1, 3], [0, 1, 1, 1]])
    images = np.random.default_rng(3).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    batches = [(images[:1], codes[:1]), (images[1:], codes[1:])]
    made = MeanPatches(batches, 5)
    assert made.counts.tolist() == [3, 4, 0, 1, 0]
    for code in (0, 1, 3):
        mine = [
            images[i, 2 * (n // 2) : 2 * (n // 2) + 2, 2 * (n % 2) : 2 * (n % 2) + 2]
            for i in range(2) for n in range(4) if codes[i, n] == code
        ]  # fmt: skip
        np.testing.assert_array_equal(made.patches[code], np.rint(np.mean(mine, axis=0)))
    drawn = made.drawn(images[0], np.array([True, False, False, True]), np.array([1, 9, 9, 3]))
    np.testing.assert_array_equal(drawn[:2, :2], made.patches[1])
    np.testing.assert_array_equal(drawn[:2, 2:], images[0, :2, 2:])
    with pytest.raises(ValueError, match="no images"):
        MeanPatches([], 5)


def test_patches_are_put_back_where_they_were():
    image = crops(1)
    patches = to_patches(image, N)
    np.testing.assert_array_equal(from_patches(patches[0]), image[0])
    np.testing.assert_array_equal(patches[0, 1], image[0, :8, 8:16])


def test_only_masked_patches_are_hidden():
    image, mask = crops(1)[0], np.zeros(N, bool)
    mask[5] = True
    gray = hidden(image, mask)
    assert set(gray[8:16, 8:16].ravel()) == {128}
    gray[8:16, 8:16] = image[8:16, 8:16]
    np.testing.assert_array_equal(gray, image)


def test_perfect_pixels_give_the_image_back():
    image, mask = crops(1)[0], np.ones(N, bool)
    flat = to_patches(image[None], N)[0].reshape(N, -1).astype(np.float32)
    values = (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)
    assert np.abs(with_pixels(image, mask, values).astype(int) - image).max() <= 1


def test_an_image_keeps_its_brightness_where_the_attention_is():
    image, weights = np.full((32, 32, 3), 200, np.uint8), np.zeros(N, np.float32)
    weights[0] = 0.5
    drawn = attended(image, weights)
    assert drawn[0, 0].max() == 200 and drawn[-1, -1].max() == 30
    assert (attended(image, np.zeros(N, np.float32)) == 30).all()  # no division by zero
