"""Pair tokens: as ``image_tokens``, with the ids of each caption.

Out: the columns of ``image_tokens`` and captions: list<list<uint16>>, ids without ``<s>`` and
``</s>``; training truncates them.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from orchestration import Context, Dataset, Output, Slice
from pipelines.tokens import image_tokens
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.text import TextTokenizer


class Params(image_tokens.Params):
    """Views and their codes, for pairs."""


def run(context: Context, params: Params) -> None:
    """Encode curated pairs."""
    text = context.input("text_tokenizer")
    image_tokens.tokenize(context, params, "pairs", partial(PairTokenizer, text))


class PairTokenizer(image_tokens.ViewTokenizer):
    """Encodes images and captions of a slice."""

    def __init__(
        self,
        text: Dataset,
        params: Params,
        seed: int,
        tokenizer: Dataset,
        kept: Dataset,
        images: Sequence[Dataset],
    ) -> None:
        super().__init__(params, seed, tokenizer, kept, images)
        self.text = TextTokenizer.load(text.fetch(MODEL_FILE))

    def __call__(self, piece: Slice) -> Output:
        """Process one slice."""
        table = self.read(piece)
        views, codes = self.encode(table)
        captions: list[Any] = [
            [ids.tolist() for ids in self.text.encode_batch(texts)]
            for texts in table["captions"].to_pylist()
        ]
        return self.split(
            pa.table(
                {
                    "sample_id": table["sample_id"],
                    "label": table["label"],
                    "jpeg": table["jpeg"],
                    "views": views,
                    "codes": codes,
                    "captions": pa.array(captions, pa.list_(pa.list_(pa.uint16()))),
                }
            )
        )
