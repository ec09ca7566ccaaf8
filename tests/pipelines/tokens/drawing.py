"""The sample of lines as one procedure over the whole corpus in memory, which rounds must equal.

    python -m tests.pipelines.tokens.drawing WORKDIR

runs the stage on a drawn corpus, in slices so small that a test can kill it between them.
"""

import sys
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from rich.console import Console

from dataprep.schemas import DOCUMENTS
from model.training import randomness
from orchestration import Context, Output, Recipe, Slice, Stage, Workflow
from orchestration.params import StageParams
from orchestration.recipe import ClusterParams
from orchestration.storage.store import Store
from pipelines.tokens import text_sample
from pipelines.tokens.text_tokenizer import Params, stage
from tokenizer.text import training_lines


def brute_force(
    rows: Sequence[tuple[int, int, Sequence[str]]], limit: int, seed: int, purpose: int
) -> list[tuple[int, str]]:
    """Return (dataset, line) of the lines with the smallest keys, in the order of the corpus.

    Args:
        rows: (dataset number, row number, lines) of each row.
        limit: number of lines.
        seed: of the keys.
        purpose: 1 for documents, 2 for captions.
    """
    lines = [
        (float(randomness.uniform(seed, purpose, dataset, row, i)), dataset, line)
        for dataset, row, texts in rows
        for i, line in enumerate(texts)
    ]
    chosen = sorted(range(len(lines)), key=lambda i: lines[i][0])[:limit]
    return [lines[i][1:] for i in sorted(chosen)]


def documents_of(source: int, number: int) -> list[str]:
    """Draw documents with empty ones, long lines and paragraphs."""
    rng = np.random.default_rng(source)
    words = ["a", "red", "circle", "and", "blue", "squares", "on", "green", "ground"]

    def text() -> str:
        size = rng.integers(0, 9) if rng.random() < 0.95 else 900
        lines = rng.choice(words, (rng.integers(1, 6), size))
        return "\n".join(" ".join(line) for line in lines)

    return [text() for _ in range(number)]


def captions_of(number: int) -> list[tuple[int, list[str]]]:
    """Draw (dataset number, captions) of pairs of two sources."""
    rng = np.random.default_rng(7)
    return [
        (int(i > number // 3), [f"caption {i} {j}" for j in range(rng.integers(1, 4))])
        for i in range(number)
    ]


def expected_documents(corpora: Sequence[Sequence[str]], limit: int, seed: int):
    rows = [
        (number, row, training_lines(text))
        for number, texts in enumerate(corpora)
        for row, text in enumerate(texts)
    ]
    return brute_force(rows, limit, seed, 1)


def expected_captions(pairs: Sequence[tuple[int, list[str]]], limit: int, seed: int):
    rows = [(dataset, row, captions) for row, (dataset, captions) in enumerate(pairs)]
    return brute_force(rows, limit, seed, 2)


def kept_table(pairs: Sequence[tuple[int, list[str]]]) -> pa.Table:
    return pa.table({
        "dataset": pa.array([dataset for dataset, _ in pairs], pa.int32()),
        "captions": pa.array([captions for _, captions in pairs], pa.list_(pa.large_string())),
    })  # fmt: skip


def _tables(tables: dict[str, pa.Table], context: Context) -> None:
    slices = [Slice("000000", {})]
    context.map_slices(slices, partial(_output, tables), row_group_rows=50)
    context.commit(slices)


def _output(tables: dict[str, pa.Table], _: Slice) -> Output:
    return Output(0, tables)


def workflow() -> Workflow:
    texts = [documents_of(source, 400) for source in (0, 1)]
    tables = [
        pa.table([[f"{i}" for i in range(400)], ["s"] * 400, some], schema=DOCUMENTS)
        for some in texts
    ]
    documents = [
        Stage(f"documents/{i}", partial(_tables, {"data": table}), StageParams())
        for i, table in enumerate(tables)
    ]
    pairs = kept_table(captions_of(300))
    curate = Stage("curate", partial(_tables, {"pairs": pairs}), StageParams())
    images = [
        Stage(f"import/{i}", partial(_tables, {"data": tables[0]}), StageParams()) for i in (2, 3)
    ]
    recipe = Recipe(name="drawing", cluster=ClusterParams(num_cpus=2, object_store_mb=128))
    params = Params(vocab_size=40, sample_lines=1000)
    made = stage(params, seed=0, documents=documents, curated=curate, images=images)
    return Workflow(recipe, (*documents, curate, *images, made))


if __name__ == "__main__":
    text_sample.SLICE_BYTES = 2000  # type: ignore[misc]
    text_sample.SLICE_PAIRS = 40  # type: ignore[misc]
    workflow().run(Store(sys.argv[1]), Console(file=sys.stdout))
