"""Pair tokens: curated pairs → JPEG, views with their codes, and the ids of each caption.

In: curated pairs, both tokenizers. Out: the columns of ``image_tokens``, and captions:
list<list<uint16>>, ids without ``<s>`` and ``</s>``, which training adds when it truncates.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from orchestration import Context, Dataset, Stage, feeding
from pipelines.tokens import image_tokens
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.text import TextTokenizer


class Params(image_tokens.Params):
    """Views of the images of pairs, and their codes."""


def stage(
    params: Params,
    *,
    seed: int,
    curated: Stage,
    images: Sequence[Stage],
    tokenizer: Stage,
    text_tokenizer: Stage,
) -> Stage:
    """Return the stage ``pair_tokens``.

    Args:
        params: the recipe's section.
        seed: of the recipe.
        curated: ``curate``.
        images: the stages whose images curation read, in its order.
        tokenizer: ``image_tokenizer``.
        text_tokenizer: ``text_tokenizer``.
    """
    return Stage(
        "pair_tokens",
        lambda context: run(context, params),
        params,
        feeding(curated=curated, images=images, tokenizer=tokenizer, text_tokenizer=text_tokenizer),
        seed=seed,
    )


def run(context: Context, params: Params) -> None:
    """Encode curated pairs."""
    text = context.input("text_tokenizer")
    image_tokens.tokenize(context, params, "pairs", partial(PairTokenizer, text))


class PairTokenizer(image_tokens.ViewTokenizer):
    """Cuts and encodes the views of a slice, and encodes its captions."""

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

    def columns(self, rows: pa.Table) -> dict[str, pa.Array | pa.ChunkedArray]:
        """Return the output columns of some pairs."""
        captions: list[Any] = [
            [ids.tolist() for ids in self.text.encode_batch(texts)]
            for texts in rows["captions"].to_pylist()
        ]
        return {
            **super().columns(rows),
            "captions": pa.array(captions, pa.list_(pa.list_(pa.uint16()))),
        }
