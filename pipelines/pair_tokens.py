"""Pair tokens: as ``image_tokens``, with the ids of each caption.

Out: the columns of ``image_tokens`` and captions: list<list<uint16>>, ids without ``<s>`` and
``</s>``; training truncates them.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestration import Context, Dataset, Output, Slice
from orchestration.stage import row_slices
from pipelines import image_tokens
from pipelines.image_tokenizer import model_path
from pipelines.text_tokenizer import MODEL_FILE
from tokenizer.text import TextTokenizer


class Params(image_tokens.Params):
    """Views and their codes, for pairs."""


def run(context: Context, params: Params) -> None:
    """Encode each slice in an actor that holds both tokenizers."""
    kept = context.input("curated").of("pairs")
    slices = row_slices(kept, params.slice_rows)
    text_model = context.input("text_tokenizer").folder.path(MODEL_FILE)
    context.map_slices_with_actors(
        slices,
        partial(
            PairTokeniser,
            text_model,
            params,
            context.seed,
            model_path(context, "tokenizer"),
            kept,
            context.inputs("pictures"),
        ),
        num_actors=params.num_actors,
        num_cpus=params.cpus_per_actor,
        row_group_rows=params.row_group_rows,
    )
    context.commit(slices)


class PairTokeniser(image_tokens.ViewTokeniser):
    """Encodes pictures and captions of a slice."""

    def __init__(
        self,
        text_model: Path,
        params: Params,
        seed: int,
        model: Path,
        kept: Dataset,
        images: Sequence[Dataset],
    ) -> None:
        super().__init__(params, seed, model, kept, images)
        self.text = TextTokenizer.load(text_model)

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
