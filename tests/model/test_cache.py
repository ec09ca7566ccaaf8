"""Keys and values of earlier positions: texts token by token equal one forward over the whole."""

import pytest
import torch

from model.network.cache import Cache
from tests.model.networks import RELEASED, SHARED, network, random_images


@pytest.mark.parametrize("config", [SHARED, RELEASED], ids=["paper", "released"])
@pytest.mark.parametrize("first", [0, 1, 4])
def test_generation_with_a_cache_equals_one_forward(config, first):
    """``first`` tokens are given with the image, the others one by one."""
    made = network(config)
    images, ids = random_images(config), torch.randint(4, 60, (2, 9))
    with torch.no_grad():
        whole = made(images, ids, attention="seq2seq")
        cache = Cache(config.depth, 9)
        prefix = ids[:, :first] if first else None
        begun = made(images, prefix, attention="seq2seq", cache=cache)
        steps = [begun.text] if first else []
        for i in range(first, 9):
            steps.append(made(text_ids=ids[:, i : i + 1], attention="seq2seq", cache=cache).hidden)
    torch.testing.assert_close(
        begun.hidden[:, : begun.image_length], whole.hidden[:, : whole.image_length]
    )
    torch.testing.assert_close(torch.cat(steps, 1), whole.text, atol=1e-5, rtol=1e-5)
    assert (cache.image_length, cache.text_length) == (1 + config.num_patches, 9)


def test_an_appended_mask_token_can_be_dropped_from_the_cache():
    made, mask_id = network(SHARED), 59
    images, ids = random_images(SHARED), torch.randint(4, 59, (2, 5))
    asked = torch.full((2, 1), mask_id)
    cache = Cache(SHARED.depth, 6)
    with torch.no_grad():
        made(images, attention="seq2seq", cache=cache)
        for i in range(5):
            new = torch.cat([ids[:, i : i + 1], asked], 1)
            found = made(text_ids=new, attention="seq2seq", cache=cache).hidden[:, -1]
            cache.drop_last(1)
            whole = made(images, torch.cat([ids[:, : i + 1], asked], 1), attention="seq2seq")
            torch.testing.assert_close(found, whole.text[:, -1], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="6 tokens to drop, the cache holds 5"):
        cache.drop_last(6)


def test_a_cache_refuses_calls_that_do_not_fit_it():
    made, ids = network(SHARED), torch.randint(4, 60, (2, 3))
    with pytest.raises(ValueError, match="seq2seq"):
        made(text_ids=ids, cache=Cache(SHARED.depth, 9))
    cache = Cache(SHARED.depth, 5)
    made(random_images(SHARED), attention="seq2seq", cache=cache)
    with pytest.raises(ValueError, match=r"texts of 6 tokens are longer than the cache's .* 5"):
        made(text_ids=ids.repeat(1, 2), attention="seq2seq", cache=cache)
    with pytest.raises(ValueError, match="first call"):
        made(random_images(SHARED), ids, attention="seq2seq", cache=cache)
    padding = torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="no padding"):
        made(None, ids, padding, attention="seq2seq", cache=cache)
    with pytest.raises(ValueError, match="a text of 41 tokens is longer than max_text_length 40"):
        made(text_ids=torch.zeros(2, 41, dtype=torch.long))


@pytest.mark.parametrize("config", [SHARED, RELEASED], ids=["paper", "released"])
@pytest.mark.parametrize("given", [0, 2], ids=["image first", "image and tokens first"])
def test_a_cache_follows_the_beams_of_a_search(config, given):
    """Texts are repeated, reordered and dropped, images dropped; each text equals its whole."""
    made, images = network(config), random_images(config, 3)
    cache = Cache(config.depth, given + 6, num_texts=3)
    ids = torch.randint(4, 60, (3, 1, given))
    continued = ([[0, 0, 0]] * 3, [[2, 0, 0], [1, 1, 2], [0, 1, 2]], [[1, 1, 2]] * 3, [[2, 1, 0]])
    with torch.no_grad():
        made(images, ids[:, 0] if given else None, attention="seq2seq", cache=cache)
        for selection in continued:
            if len(selection) < len(images):
                order = torch.tensor([2])
                cache.keep(order)
                ids, images = ids[order], images[order]
            texts = torch.tensor(selection)
            cache.select(texts)
            new = torch.randint(4, 60, (*texts.shape, 2))
            before = ids.expand(-1, 3, -1).gather(1, texts[..., None].expand(-1, -1, ids.shape[2]))
            ids = torch.cat([before, new], dim=2)
            fed = new.flatten(0, 1)
            found = made(text_ids=fed, attention="seq2seq", cache=cache).hidden
            cache.drop_last(1)
            repeated = images.repeat_interleave(3, dim=0)
            whole = made(repeated, ids.flatten(0, 1), attention="seq2seq").text[:, -2:]
            torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
            ids = ids[:, :, :-1]


def test_keys_and_values_of_an_image_are_kept_once_for_all_its_texts():
    made, images = network(SHARED), random_images(SHARED)
    cache = Cache(SHARED.depth, 5, num_texts=7)
    with torch.no_grad():
        made(images, attention="seq2seq", cache=cache)
        made(text_ids=torch.full((14, 2), 5), attention="seq2seq", cache=cache)
    keys = cache.layers[0].keys
    assert keys is not None
    assert keys.shape[0] == 2 and keys.shape[2] == 1 + SHARED.num_patches + 5 * 7


def test_numbers_that_a_cache_does_not_hold_are_refused():
    made, cache = network(SHARED), Cache(SHARED.depth, 5, num_texts=3)
    for call in (cache.select, cache.keep):
        with pytest.raises(ValueError, match="the cache is empty"):
            call(torch.tensor([0]))
    made(random_images(SHARED), attention="seq2seq", cache=cache)
    for texts in ([[0, 1, 3]] * 2, [[0, -1, 2]] * 2, [[0, 1, 2]], [[0, 1]] * 2):
        with pytest.raises(ValueError, match=r"texts are .*; give \(2, 3\) numbers from 0 to 2"):
            cache.select(torch.tensor(texts))
    for images in ([2], [-1], [0, 5]):
        with pytest.raises(ValueError, match=r"images are .* numbers from 0 to 1"):
            cache.keep(torch.tensor(images))
    with pytest.raises(ValueError, match="a cache holds an image once"):
        cache.keep(torch.tensor([0, 0]))
    for numbers in ([True, False], [0.0, 1.0]):
        with pytest.raises(ValueError, match="give numbers as int64"):
            cache.keep(torch.tensor(numbers))
    with pytest.raises(ValueError, match="give numbers as int64"):
        cache.keep(torch.tensor([1, 0], dtype=torch.uint8))
    with pytest.raises(ValueError, match="text_ids have 4 rows, the cache holds 2 images with 3 t"):
        made(text_ids=torch.zeros(4, 1, dtype=torch.long), attention="seq2seq", cache=cache)


@pytest.mark.parametrize("config", [SHARED, RELEASED], ids=["paper", "released"])
@pytest.mark.parametrize("cached", [True, False])
def test_the_last_token_alone_has_the_state_that_it_has_among_all(config, cached):
    made, images = network(config), random_images(config)
    ids = torch.randint(4, 60, (2, 5))
    caches = [Cache(config.depth, 7, num_texts=3) if cached else None for _ in range(2)]
    one, every = (
        made(images, ids, attention="seq2seq", cache=caches[i], last_token=i == 0) for i in range(2)
    )
    assert one.hidden.shape == (2, 1, config.width) and one.image_length == 0
    torch.testing.assert_close(one.hidden, every.hidden[:, -1:])
    if cached:
        new = torch.randint(4, 60, (6, 2))
        one, every = (
            made(text_ids=new, attention="seq2seq", cache=caches[i], last_token=i == 0)
            for i in range(2)
        )
        torch.testing.assert_close(one.hidden, every.hidden[:, -1:])
    with pytest.raises(ValueError, match="last_token is set without text_ids"):
        made(images, last_token=True)
    if config is RELEASED and not cached:
        padding = torch.arange(5) >= torch.tensor([5, 4])[:, None]
        for attention in ("bidirectional", "seq2seq"):
            one, every = (
                made(images, ids, padding, attention=attention, last_token=i == 0) for i in range(2)
            )
            torch.testing.assert_close(one.hidden, every.hidden[:, -1:])
