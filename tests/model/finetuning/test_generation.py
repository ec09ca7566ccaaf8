"""Captions: the authors' decoding on torchscale, brute force, and what must not matter."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from model import BEiT3, BEiT3Config
from model.finetuning.generation import Decoding, Generated, generate
from model.finetuning.released import to_released
from model.finetuning.sampling import draw, token_probabilities
from model.finetuning.task_networks import ForCaptioning
from tests.model.finetuning.official_decoding import OfficialCaptioner
from tests.model.networks import RELEASED, SHARED, random_images

MASK = 51
"With pieces up to 50; rows 52 to 59 of the embedding are unused."
LARGER = replace(RELEASED, width=64, depth=4, ffn_width=128, image_size=48)


def captioner(seed: int, config: BEiT3Config = RELEASED, mask_id: int = MASK) -> ForCaptioning:
    """A network whose next token depends on the image and on all tokens before it."""
    torch.manual_seed(seed)
    made = ForCaptioning(BEiT3(config), mask_id).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        made.mlm_head.weight.mul_(4)
        made.mlm_head.bias[2] += 1.5 * (seed % 3)
        made.network.language.positions.mul_(40)
        made.network.language.tokens.weight.mul_(5)
    return made


def images_of(config: BEiT3Config, number: int) -> Tensor:
    return 3 * random_images(config, number)


def same(mine: Generated, other: Generated, tolerance: float = 1e-4) -> bool:
    alike = mine.ids == other.ids and mine.ended == other.ended
    return alike and abs(mine.score - other.score) < tolerance


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "not cached"])
@pytest.mark.parametrize(
    ("config", "num_beams", "max_length", "penalty"),
    [(RELEASED, 1, 11, 0.6), (RELEASED, 3, 11, 0.6), (LARGER, 3, 20, 0.6), (LARGER, 5, 6, 1.0)],
    ids=["greedy", "three beams", "larger", "five beams"],
)
def test_captions_are_those_of_the_authors_decoding(config, num_beams, max_length, penalty, cached):
    """Their limit is one more: their loop ends a token before it."""
    lengths, ended = set[int](), set[bool]()
    for seed in range(6):
        ours, images = captioner(seed, config), images_of(config, 5)
        official, omitted = to_released(ours)
        assert not omitted
        theirs = OfficialCaptioner(official, config, MASK)
        decoding = Decoding(num_beams, penalty, max_length, cached=cached)
        expected = theirs.generate(images, num_beams, max_length + 1, penalty)
        for mine, (ids, score) in zip(generate(ours, images, decoding), expected, strict=True):
            assert mine[0].ids == ids
            assert abs(mine[0].score - score) < 1e-4
            lengths.add(len(ids))
            ended.add(mine[0].ended)
    assert len(lengths) > 3 and ended == {True, False}  # not degenerate


TINY = BEiT3Config(
    16, 2, 2, 32, image_size=16, patch_size=8, fusion_layers=1, vocab_size=9, max_text_length=8
)
"With [MASK] 7: ``</s>`` 2, ``<unk>`` 3 and the pieces 4 to 6 may be generated."


def log_probabilities(network: ForCaptioning, image: Tensor, ids: list[int]) -> Tensor:
    """Log-probabilities (V,) of the token after ``ids``, by one forward without a cache."""
    text = torch.tensor([[0, *ids, network.mask_id]])
    return network(image[None], text, torch.tensor([len(ids) + 1]))[0].log_softmax(dim=-1)


def all_captions(network: ForCaptioning, image: Tensor, decoding: Decoding) -> list[Generated]:
    """Every caption that could be generated, with its score."""
    found: list[Generated] = []

    def extend(ids: list[int], total: float) -> None:
        after = log_probabilities(network, image, ids)
        divisor = (len(ids) + 2) ** decoding.length_penalty
        words = range(3, network.mask_id)
        if len(ids) + 2 == decoding.max_length:
            best = max(float(after[word]) for word in (2, *words))
            found.append(Generated(ids, (total + best) / divisor, best == float(after[2])))
            return
        found.append(Generated(ids, (total + float(after[2])) / divisor, True))
        for word in words:
            extend([*ids, word], total + float(after[word]))

    extend([], 0.0)
    return sorted(found, key=lambda caption: -caption.score)


@torch.no_grad()
@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
def test_a_search_with_many_beams_finds_the_best_of_all_captions(penalty):
    """More beams than the vocabulary has tokens; every caption that is returned has its score."""
    decoding, ids_found = Decoding(200, penalty, 5), set[tuple[int, ...]]()
    for seed in range(4):
        network, images = captioner(seed, TINY, 7), images_of(TINY, 2)
        for image, captions in zip(images, generate(network, images, decoding), strict=True):
            every = all_captions(network, image, decoding)
            assert same(captions[0], every[0])
            for caption in captions:
                assert any(same(caption, other) for other in every)
            scores = [caption.score for caption in captions]
            assert scores == sorted(scores, reverse=True)
            assert len({tuple(caption.ids) for caption in captions}) == len(captions)
            ids_found.add(tuple(captions[0].ids))
    assert len(ids_found) > 1


def test_greedy_search_takes_the_most_likely_token_until_the_end():
    decoding = Decoding(1, 0.0, 9)
    for seed in range(4):
        network, image = captioner(seed), images_of(RELEASED, 1)
        ids: list[int] = []
        with torch.no_grad():
            while len(ids) < 7:
                after = log_probabilities(network, image[0], ids)[2:MASK]
                if int(after.argmax()) == 0:
                    break
                ids.append(int(after.argmax()) + 2)
        assert generate(network, image, decoding)[0][0].ids == ids


@pytest.mark.parametrize("config", [SHARED, RELEASED], ids=["paper", "released"])
@pytest.mark.parametrize("kind", ["beams", "sampling"])
def test_a_caption_depends_neither_on_other_images_nor_on_the_cache(config, kind):
    network, images = captioner(1, config), images_of(config, 6)
    seeds = [11, 3, 7, 11, 0, 2**40] if kind == "sampling" else None
    options = {"num_beams": 3} if kind == "beams" else {"num_beams": 1, "temperature": 1.5}
    cached = Decoding(max_length=12, **options)
    together = generate(network, images, cached, seeds=seeds)
    assert len({len(captions[0].ids) for captions in together}) > 1  # some end earlier
    others = generate(
        network, images, Decoding(max_length=12, cached=False, **options), seeds=seeds
    )
    order = [4, 2, 5, 0, 3, 1]
    shuffled = generate(network, images[order], cached, seeds=seeds and [seeds[i] for i in order])
    for i, captions in enumerate(together):
        own = seeds and seeds[i : i + 1]
        alone = generate(network, images[i : i + 1], cached, seeds=own)[0]
        for found in (alone, others[i], shuffled[order.index(i)]):
            assert len(found) == len(captions)
            assert all(same(a, b) for a, b in zip(captions, found, strict=True))


def test_images_whose_captions_have_ended_leave_the_batch(monkeypatch):
    network, images = captioner(1), images_of(RELEASED, 6)
    rows: list[int] = []
    inner = network.network.forward

    def counted(images, ids, **options):
        rows.append(len(ids))
        return inner(images, ids, **options)

    monkeypatch.setattr(network.network, "forward", counted)
    found = generate(network, images, Decoding(1, 0.0, 12))
    steps = [len(captions[0].ids) + 1 for captions in found]  # of each image
    assert len(set(steps)) > 1
    assert rows == [sum(number > step for number in steps) for step in range(max(steps))]


def expected_outcomes(network: ForCaptioning, image: Tensor, temperature: float, top_p: float):
    """Probability of each (ids, ended) with at most one word, by definition."""

    def nucleus(ids: list[int]) -> dict[int, float]:
        scores = log_probabilities(network, image, ids)[2 : network.mask_id] / temperature
        probabilities = dict(enumerate(scores.double().softmax(dim=0).tolist(), start=2))
        kept: dict[int, float] = {}
        for token in sorted(probabilities, key=lambda token: -probabilities[token]):
            if sum(kept.values()) < top_p:
                kept[token] = probabilities[token]
        return {token: value / sum(kept.values()) for token, value in kept.items()}

    outcomes: dict[tuple[tuple[int, ...], bool], float] = {}
    for word, probability in nucleus([]).items():
        if word == 2:
            outcomes[(), True] = probability
            continue
        end = nucleus([word]).get(2, 0.0)
        outcomes[(word,), True] = probability * end
        outcomes[(word,), False] = probability * (1 - end)
    return {outcome: value for outcome, value in outcomes.items() if value > 0}


@torch.no_grad()
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (2.5, 1.0), (1.5, 0.7)])
def test_sampled_captions_have_the_frequencies_of_their_probabilities(temperature, top_p):
    network, image, number = captioner(1, TINY, 7), images_of(TINY, 1), 4000
    expected = expected_outcomes(network, image[0], temperature, top_p)
    decoding = Decoding(1, max_length=3, temperature=temperature, top_p=top_p)
    drawn = generate(network, image.expand(number, -1, -1, -1), decoding, seeds=range(number))
    counts = dict.fromkeys(expected, 0)
    for (caption,) in drawn:
        counts[tuple(caption.ids), caption.ended] += 1  # KeyError outside the nucleus
    likely = [outcome for outcome, value in expected.items() if value * number >= 5]
    rest = number - sum(counts[outcome] for outcome in likely)
    total = sum(expected[outcome] for outcome in likely)
    found = [counts[outcome] for outcome in likely] + ([rest] if rest else [])
    wanted = [expected[outcome] * number for outcome in likely]
    wanted += [(1 - total) * number] if rest else []
    assert len(found) >= 3
    assert chisquare(found, wanted, sum_check=False).pvalue > 1e-3


@pytest.mark.parametrize(
    ("probabilities", "top_p", "kept"),
    [
        ([0.5, 0.3, 0.15, 0.05], 1.0, [0, 1, 2, 3]),
        ([0.5, 0.3, 0.15, 0.05], 0.79, [0, 1]),
        ([0.15, 0.5, 0.05, 0.3], 0.81, [0, 1, 3]),
        ([0.5, 0.3, 0.15, 0.05], 0.5, [0]),
        ([0.5, 0.3, 0.15, 0.05], 1e-9, [0]),
        ([0.25, 0.25, 0.25, 0.25], 0.5, [0, 1]),
    ],
)
def test_only_the_most_likely_tokens_are_drawn_from(probabilities, top_p, kept):
    scores = torch.tensor([probabilities], dtype=torch.float64).log()
    found = token_probabilities(scores, 1.0, top_p)[0]
    assert found.nonzero()[:, 0].tolist() == kept
    total = sum(probabilities[token] for token in kept)
    for token in kept:
        assert abs(float(found[token]) - probabilities[token] / total) < 1e-12
    numbers = torch.linspace(0, 1 - 2**-53, 101, dtype=torch.float64)
    assert set(draw(found.expand(101, -1), numbers).tolist()) == set(kept)


@pytest.mark.parametrize("temperature", [5e-324, 1e-308, 1e-30])
def test_with_the_smallest_temperatures_the_most_likely_token_is_drawn(temperature):
    scores = torch.tensor([[3.0, 900.0, -900.0, 4.0], [0.0, -1.0, -2.0, 5e-9]]).double()
    found = token_probabilities(scores, temperature, 1.0)
    assert found.isfinite().all() and found.argmax(1).tolist() == [1, 3]
    network, images = captioner(1), images_of(RELEASED, 3)
    sampled = Decoding(1, 0.0, 8, temperature=temperature)
    made = generate(network, images, sampled, seeds=np.arange(3))
    for mine, searched in zip(made, generate(network, images, Decoding(1, 0.0, 8)), strict=True):
        assert same(mine[0], searched[0])


@pytest.mark.parametrize("options", [{}, {"num_beams": 1, "temperature": 5.0}])
def test_tokens_that_no_caption_holds_are_never_generated(options):
    network, images = captioner(0), images_of(RELEASED, 3)
    with torch.no_grad():
        network.mlm_head.bias[[0, 1, *range(MASK, RELEASED.vocab_size)]] += 30
    seeds = [1, 2, 3] if options else None
    for captions in generate(network, images, Decoding(max_length=20, **options), seeds=seeds):
        for caption in captions:
            assert all(3 <= token < MASK for token in caption.ids)
            assert caption.score < -30  # log-probabilities are over all rows


def test_no_images_give_no_captions_and_one_beam_holds_one_caption():
    network = captioner(0)
    assert generate(network, images_of(RELEASED, 0), Decoding(max_length=9)) == []
    (captions,) = generate(network, images_of(RELEASED, 1), Decoding(1, max_length=3))
    assert len(captions) == 1 and len(captions[0].ids) <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_beams": 0}, "num_beams is 0; give 1 or more"),
        ({"num_beams": 1001}, "num_beams is 1001; give at most 1000"),
        ({"length_penalty": -0.1}, "length_penalty is -0.1; give 0 or more"),
        ({"length_penalty": float("nan")}, "length_penalty is nan"),
        ({"length_penalty": 400.0}, "length_penalty is 400.0; give 0 or more, at most 10"),
        ({"max_length": 2}, "max_length is 2; give 3 or more"),
        ({"top_p": 0.0, "temperature": 1.0, "num_beams": 1}, "top_p is 0.0; give more than 0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_p": 0.9}, "without a temperature"),
        ({"temperature": 0.0, "num_beams": 1}, "temperature is 0.0; give more than 0"),
        ({"temperature": 1.0}, "temperature is 1.0 with num_beams 3"),
    ],
)
def test_a_decoding_that_makes_no_sense_is_refused(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Decoding(**options)


def test_what_does_not_fit_the_network_is_refused_in_one_sentence():
    network, images = captioner(0, SHARED), images_of(SHARED, 2)
    with pytest.raises(ValueError, match="max_length is 41, the network has 40 text positions"):
        generate(network, images, Decoding(max_length=41))
    sampled = Decoding(1, max_length=9, temperature=1.0)
    for decoding, seeds in ((sampled, None), (Decoding(max_length=9), [1, 2])):
        with pytest.raises(ValueError, match="seeds are for sampling"):
            generate(network, images, decoding, seeds=seeds)
    with pytest.raises(ValueError, match="1 seeds for 2 images"):
        generate(network, images, sampled, seeds=[1])
    with pytest.raises(ValueError, match="mask_id is 60, the network has 60 rows"):
        ForCaptioning(BEiT3(SHARED), 60)
    for decoding, seeds in ((sampled, [1, 2]), (Decoding(max_length=9), None)):
        with pytest.raises(ValueError, match="scores of tokens are not finite"):
            generate(network, images * torch.nan, decoding, seeds=seeds)
