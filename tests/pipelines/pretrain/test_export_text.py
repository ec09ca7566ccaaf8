"""The exported text tokenizer gives its own ids in transformers, or is not found by it."""

import pytest

from pipelines.pretrain.export import write_text_tokenizer
from tokenizer.text import BOS, EOS, FILE_NAME, TextTokenizer, train

LINES = ["a red circle, a blue square. café", "a blue circle; a red square!"]


@pytest.mark.parametrize("coverage", [1.0, 0.98])
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_autotokenizer_gives_the_same_ids_or_refuses(tmp_path, byte_fallback, coverage):
    from transformers import AutoTokenizer

    model = tmp_path / "given"
    size = 22 + 256 * byte_fallback
    model.write_bytes(
        train(LINES * 40, vocab_size=size, character_coverage=coverage, byte_fallback=byte_fallback)
    )
    folder = tmp_path / "export"
    folder.mkdir()
    write_text_tokenizer(folder, model, 1022)
    if byte_fallback:
        assert not (folder / FILE_NAME).exists()
        with pytest.raises((OSError, ValueError)):
            AutoTokenizer.from_pretrained(folder)
        return
    ours, theirs = TextTokenizer.load(folder / FILE_NAME), AutoTokenizer.from_pretrained(folder)
    for line in (*LINES, "東京 🎉 café", "  a  b\n"):
        assert theirs(line)["input_ids"] == [BOS, *ours.encode(line), EOS]
    assert theirs.mask_token_id == ours.mask
