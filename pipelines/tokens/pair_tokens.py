"""Pair tokens: curated pairs → JPEG, views with their codes, and the ids of each caption.

In: curated pairs, both tokenizers. Out: the columns of ``image_tokens``; captions:
list<list<uint16>>, ids without ``<s>`` and ``</s>``, which training adds when it truncates;
num_captions: uint16. The file ``pair_counts.parquet`` repeats source and num_captions of each row
of ``train``, so that training knows its order without reading the table.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration import Context, Dataset, Slice, Stage, feeding
from pipelines.tokens import image_tokens
from pipelines.tokens.held_out import HeldOutBy, Split
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.text import TextTokenizer

COUNTS_FILE: Final = "pair_counts.parquet"


class Params(image_tokens.Params):
    """Views of the images of pairs, their codes, and the split of pairs."""

    held_out_by: HeldOutBy = "caption"
    "What pairs share that are held out together: a caption, or the original image alone."


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
        version=4,
        resources=complete.resources,
        workers=partial(image_tokens.workers, complete, [each.name for each in images]),
    )


def run(context: Context, params: CropParams) -> None:
    """Encode curated pairs, and count the captions of each."""
    text = context.input("text_tokenizer")
    split = Split(params.held_out_fraction, context.seed, params.held_out_by)
    make = partial(PairTokenizer, text)
    slices = image_tokens.tokenize(context, params, "pairs", split, make)
    if not slices:
        return context.commit()
    commit_with_counts(context, slices)


def commit_with_counts(context: Context, slices: Sequence[Slice]) -> None:
    """Commit token tables of pairs, with the captions of each row and their numbers."""
    counts = context.read_parts(slices, "train", ["source", "num_captions"])
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / COUNTS_FILE
        pq.write_table(counts, file)
        context.folder.write_file(COUNTS_FILE, file)
    context.commit(slices, files=[COUNTS_FILE], numbers=numbers_of(counts))


def numbers_of(counts: pa.Table) -> dict[str, float]:
    """Return how many pairs and images there are to train on, of each source and in all.

    Args:
        counts: columns source and num_captions, one row for each image.
    """
    images: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    for group in (
        counts.group_by("source")
        .aggregate([("num_captions", "sum"), ("num_captions", "count")])
        .to_pylist()
    ):
        pairs[group["source"]] = group["num_captions_sum"]
        images[group["source"]] = group["num_captions_count"]
    return {
        "num_pairs": pairs.total(),
        **{f"pairs/{source}": number for source, number in sorted(pairs.items())},
        **{f"images/{source}": number for source, number in sorted(images.items())},
    }


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
            "num_captions": pa.array([len(some) for some in ids], pa.uint16()),
        }
