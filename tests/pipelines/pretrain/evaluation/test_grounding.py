"""The gap and its control, with networks that look at the partner, and with those that do not."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from model import BEiT3
from pipelines.pretrain.evaluation.grounding import grounding_numbers, grounding_rows
from pipelines.pretrain.evaluation.inputs import MaskedPairs
from pipelines.pretrain.evaluation.likelihood import likelihood_rows, score_matrix
from pipelines.pretrain.evaluation.retrieval import likelihood_numbers
from tests.pipelines.pretrain.evaluation.scripted_networks import MASK, Scripted, colored_pairs
from tests.pipelines.pretrain.test_feed import NETWORK


def numbers_of(network, pairs) -> dict[str, float]:
    with torch.no_grad():
        return grounding_numbers(grounding_rows(network, pairs), 0)


def test_a_network_that_looks_at_the_partner_has_the_whole_gap():
    found = numbers_of(Scripted(), colored_pairs(9))
    for kind in ("words", "patches"):
        of_kind = {k.split("/")[2]: v for k, v in found.items() if k.split("/")[1] == kind}
        assert of_kind["accuracy"] == 1.0 and of_kind["accuracy_other"] == 0.0
        assert of_kind["gap"] == of_kind["gap_low"] == of_kind["gap_high"] == 1.0
        assert of_kind["control"] == of_kind["control_low"] == of_kind["control_high"] == 0.0
        assert of_kind["num_pairs"] == 9 and of_kind["num_targets"] == 18


def test_a_network_that_does_not_look_has_no_gap_whatever_it_guesses():
    found = numbers_of(Scripted(looks=False), colored_pairs(9))
    for kind in ("words", "patches"):
        assert found[f"grounding/{kind}/accuracy"] == pytest.approx(1 / 9)
        assert found[f"grounding/{kind}/gap"] == found[f"grounding/{kind}/gap_high"] == 0


def test_a_word_counts_once_and_only_if_all_of_its_pieces_are_right():
    pairs = colored_pairs(4)
    # The masked pieces 2 and 3 are one word, the second of which the network gets wrong in pair 0.
    words = torch.where(pairs.words >= 3, pairs.words - 1, pairs.words)
    targets = pairs.batch.text_targets.clone()
    targets[0, 4] += 1
    one_word = MaskedPairs(replace(pairs.batch, text_targets=targets), words)
    found = grounding_rows(Scripted(), one_word)
    of_words = found.filter(pa.compute.equal(found["kind"], "words"))
    assert of_words["num_targets"].to_pylist() == [1, 1, 1, 1]
    assert of_words["right"].to_pylist() == [0, 1, 1, 1]


def test_two_masked_words_side_by_side_are_two():
    found = grounding_rows(Scripted(), colored_pairs(3))
    assert found["num_targets"].to_pylist() == [2] * 6


def test_the_control_of_a_network_with_random_weights_holds_zero():
    """So does its gap: it has learned nothing."""
    torch.manual_seed(1)
    network = BEiT3(NETWORK).eval()
    pairs = colored_pairs(40)
    images = torch.randn(40, 3, NETWORK.image_size, NETWORK.image_size)
    codes = torch.randint(0, NETWORK.num_codes, (40, NETWORK.num_patches))
    mask = torch.rand(40, NETWORK.num_patches) < 0.4
    batch = replace(pairs.batch, images=images, codes=codes, image_mask=mask)
    found = numbers_of(network, MaskedPairs(batch, pairs.words))
    for kind in ("words", "patches"):
        for what in ("gap", "control"):
            low, high = (found[f"grounding/{kind}/{what}_{end}"] for end in ("low", "high"))
            assert low <= 0 <= high


def test_a_pair_without_masked_words_does_not_count():
    pairs = colored_pairs(5)
    mask = pairs.batch.text_mask.clone()
    mask[2] = False
    found = numbers_of(Scripted(), MaskedPairs(replace(pairs.batch, text_mask=mask), pairs.words))
    assert found["grounding/words/num_pairs"] == 4
    assert found["grounding/words/num_targets"] == 8


@pytest.mark.parametrize("looks", [True, False])
def test_retrieval_by_likelihood_ranks_by_what_the_image_says_of_each_word(looks):
    pairs = colored_pairs(7)
    rows = [
        likelihood_rows(Scripted(looks), pairs, range(7), some, MASK, batch_size=3)
        for some in ([4, 5, 6], [0, 1], [2, 3])
    ]
    found = likelihood_numbers(pa.concat_tables(rows))
    assert found["retrieval/likelihood/chance/recall_at_1"] == pytest.approx(1 / 7)
    assert found["retrieval/likelihood/num_pairs"] == 7
    for way in ("image_to_text", "text_to_image"):
        # A network that does not look gives all the same score: the order is that of the pairs.
        expected = 1.0 if looks else pytest.approx(1 / 7)
        assert found[f"retrieval/likelihood/{way}/recall_at_1"] == expected


def test_each_word_is_scored_once_given_the_others():
    pairs = colored_pairs(2, length=5)
    (row,) = likelihood_rows(Scripted(), pairs, [9, 8], [0], MASK, batch_size=8).to_pylist()
    right = torch.log_softmax(torch.eye(1, 60)[0] * 1.0, 0)[0]
    wrong = torch.log_softmax(torch.eye(1, 60)[0] * 1.0, 0)[1]
    assert row["row"] == 9
    assert row["scores"] == pytest.approx([5 * float(right), 5 * float(wrong)], rel=1e-5)


def test_the_mean_over_images_is_taken_off_each_caption():
    rows = pa.table({"caption": [1, 0], "scores": [[1.0, 3.0], [0.0, -8.0]]})
    matrix = score_matrix(rows)
    assert matrix.tolist() == [[4.0, -1.0], [-4.0, 1.0]]
    assert np.allclose(matrix.mean(0), 0)
