"""Recall at K against a ranking in plain Python, candidate by candidate."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.metrics import retrieval
from model.metrics.retrieval import KS, retrieval_recalls


def ranked(scores: list[float]) -> list[int]:
    """Candidates from best to worst; equal scores by position."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def by_ranking(images, texts, image_of_text):
    scores = images @ texts.T
    result = {}
    for k in KS:
        found = [
            any(image_of_text[t] == i for t in ranked(scores[i].tolist())[:k])
            for i in range(len(images))
        ]
        result[f"image_to_text/recall_at_{k}"] = sum(found) / len(found)
        found = [image_of_text[t] in ranked(scores[:, t].tolist())[:k] for t in range(len(texts))]
        result[f"text_to_image/recall_at_{k}"] = sum(found) / len(found)
    return result


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), num_images=st.integers(1, 30), levels=st.integers(1, 5))
def test_recalls_equal_a_plain_ranking(seed, num_images, levels):
    """Features are small whole numbers, so many scores are equal."""
    draw = torch.Generator().manual_seed(seed)
    extra = torch.randint(num_images, (2 * num_images,), generator=draw)
    image_of_text = torch.cat([torch.arange(num_images), extra])
    image_of_text = image_of_text[torch.randperm(len(image_of_text), generator=draw)]
    images = torch.randint(levels, (num_images, 3), generator=draw).float()
    texts = torch.randint(levels, (len(image_of_text), 3), generator=draw).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_BLOCK", 7)
        found = retrieval_recalls(images, texts, image_of_text)
    assert found == pytest.approx(by_ranking(images, texts, image_of_text.tolist()))


def test_an_image_without_captions_is_refused():
    with pytest.raises(ValueError, match="1 images have no caption, the first is row 1"):
        retrieval_recalls(torch.eye(3), torch.eye(3)[[0, 2]], torch.tensor([0, 2]))


def test_a_caption_of_an_unknown_image_is_refused():
    with pytest.raises(ValueError, match="beyond the 3 images"):
        retrieval_recalls(torch.eye(3), torch.eye(3), torch.tensor([0, 1, 3]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_are_no_perfect_recall(value):
    broken = torch.eye(3)
    broken[1, 1] = value
    own = torch.arange(3)
    with pytest.raises(ValueError, match="features of 1 images are not finite, the first is row 1"):
        retrieval_recalls(broken, torch.eye(3), own)
    with pytest.raises(ValueError, match="features of 1 captions are not finite"):
        retrieval_recalls(torch.eye(3), broken, own)


@pytest.mark.parametrize(("num_texts", "num_numbers"), [(3, 1), (1, 3), (0, 0)])
def test_captions_without_features_or_without_an_image_are_refused(num_texts, num_numbers):
    own = torch.zeros(num_numbers, dtype=torch.long)
    with pytest.raises(ValueError, match=f"{num_texts} captions have features and {num_numbers} "):
        retrieval_recalls(torch.eye(1, 3), torch.eye(3)[:num_texts], own)
