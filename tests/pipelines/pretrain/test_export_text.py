"""The exported text tokenizer gives its own ids in transformers, or is not found by it."""

import io

import pytest
import sentencepiece

from pipelines.pretrain.export import write_text_tokenizer
from tokenizer.text import BOS, EOS, FILE_NAME, TextTokenizer

LINES = ["a red circle, a blue square. café", "a blue circle; a red square!"]
OURS = {
    "vocab_size": 22,
    "character_coverage": 1.0,
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": -1,
}


@pytest.mark.parametrize(
    ("other", "is_read"),
    [
        ({}, True),
        ({"character_coverage": 0.98}, True),
        ({"normalization_rule_name": "nmt_nfkc_cf"}, True),
        ({"byte_fallback": True, "vocab_size": 22 + 256}, False),
        ({"normalization_rule_name": "identity"}, False),
        ({"normalization_rule_name": "nfkc"}, False),
        ({"add_dummy_prefix": False}, False),
        ({"remove_extra_whitespaces": False}, False),
        ({"treat_whitespace_as_suffix": True}, False),
        ({"split_by_whitespace": False}, False),
        ({"user_defined_symbols": ["circle"]}, False),
        ({"control_symbols": ["<sep>"]}, False),
        ({"pad_id": 3}, False),
        ({"model_type": "bpe", "vocab_size": 40}, False),
        ({"model_type": "word", "vocab_size": 8}, False),
    ],
)
def test_autotokenizer_gives_the_same_ids_or_refuses(tmp_path, other, is_read):
    from transformers import AutoTokenizer

    model, folder = io.BytesIO(), tmp_path / "export"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 40), model_writer=model, minloglevel=2, **OURS | other
    )
    (tmp_path / "given").write_bytes(model.getvalue())
    folder.mkdir()
    write_text_tokenizer(folder, tmp_path / "given", 1022)
    assert (folder / FILE_NAME).exists() is is_read
    if not is_read:
        with pytest.raises((OSError, ValueError)):
            AutoTokenizer.from_pretrained(folder)
        return
    ours, theirs = TextTokenizer.load(folder / FILE_NAME), AutoTokenizer.from_pretrained(folder)
    for line in (*LINES, "東京 🎉 café", "  a  b\n", "a red\ncircle\t"):
        assert theirs(line)["input_ids"] == [BOS, *ours.encode(line), EOS]
    assert theirs.mask_token_id == ours.mask
