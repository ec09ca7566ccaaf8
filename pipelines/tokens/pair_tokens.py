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
from pipelines.tokens.held_out import HeldOutBy, Split
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.text import TextTokenizer


class Params(image_tokens.Params):
    """Views of the images of pairs, their codes, and the split of pairs."""

    held_out_by: HeldOutBy = "image"
    "What pairs share that are held out together: the original image, or a caption."


class CropParams(Params, image_tokens.CropParams):
    """The section, and the recipe's ``flip``."""


def stage(
    params: Params,
    *,
    seed: int,
    flip: bool,
    curated: Stage,
    images: Sequence[Stage],
    held_out: Sequence[Stage],
    tokenizer: Stage,
    text_tokenizer: Stage,
) -> Stage:
    """Return the stage ``pair_tokens``.

    Args:
        params: the recipe's section.
        seed: of the recipe.
        flip: of the recipe.
        curated: ``curate``.
        images: the stages whose images curation read, in its order.
        held_out: those of them whose pairs are all held out.
        tokenizer: ``image_tokenizer``.
        text_tokenizer: ``text_tokenizer``.
    """
    complete = CropParams(**params.model_dump(exclude_unset=True), flip=flip)
    return Stage(
        "pair_tokens",
        lambda context: run(context, complete),
        complete,
        feeding(
            curated=curated,
            images=images,
            held_out=held_out,
            tokenizer=tokenizer,
            text_tokenizer=text_tokenizer,
        ),
        seed=seed,
        version=2,
    )


def run(context: Context, params: CropParams) -> None:
    """Encode curated pairs."""
    text = context.input("text_tokenizer")
    split = Split(params.held_out_fraction, context.seed, params.held_out_by)
    image_tokens.tokenize(context, params, "pairs", split, partial(PairTokenizer, text))


class PairTokenizer(image_tokens.ViewTokenizer):
    """Cuts and encodes the views of a slice, and encodes its captions."""

    def __init__(
        self,
        text: Dataset,
        params: CropParams,
        split: Split,
        whole: Sequence[int],
        tokenizer: Dataset,
        kept: Dataset,
        images: Sequence[Dataset],
    ) -> None:
        super().__init__(params, split, whole, tokenizer, kept, images)
        self.text = TextTokenizer.load(text.fetch(MODEL_FILE))

    def columns(
        self, rows: pa.Table, captions: list[list[str]]
    ) -> dict[str, pa.Array | pa.ChunkedArray]:
        """Return the output columns of some pairs; ``captions`` are those to keep."""
        ids: list[Any] = [
            [ids.tolist() for ids in self.text.encode_batch(texts)] for texts in captions
        ]
        return {
            **super().columns(rows, captions),
            "captions": pa.array(ids, pa.list_(pa.list_(pa.uint16()))),
        }
