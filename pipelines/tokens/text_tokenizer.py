"""Text tokenizer: documents and captions → a SentencePiece model.

In: documents, curated pairs. Out: ``spm.model`` and ``report.json`` (by source: tokens per word,
share of unknown tokens, share of characters that are known; the longest pieces). It learns from a
seeded sample of lines, so memory does not grow with the corpus. A model that is given
(``text_tokenizer.model``), such as the released one, is examined in the same way and not trained.
"""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from pydantic import Field

from orchestration import Context, Dataset
from orchestration.params import EXTERNAL_FILE, OR_URI, StageParams
from orchestration.storage.store import Store
from pipelines.tokens.text_sample import sample_captions, sample_documents
from tokenizer.text import UNK, TextTokenizer, train

MODEL_FILE: Final = "spm.model"
REPORT_FILE: Final = "report.json"
_REPORT_LINES: Final = 1000
_LONGEST: Final = 20


class Params(StageParams):
    """How the vocabulary is learned; character coverage is XLM-R's."""

    model: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "Path or URI of a SentencePiece model to take instead of training one."
    vocab_size: int = Field(default=64_000, ge=10, le=65_000)
    "Pieces, the three control pieces included; ids must fit 16 bits."
    character_coverage: float = Field(default=0.9995, gt=0, le=1)
    byte_fallback: bool = False
    "Write characters without a piece as bytes instead of <unk>."
    sample_lines: int = Field(default=10_000_000, ge=1)
    "Lines of documents and captions to learn from."
    caption_share: float = Field(default=0.5, ge=0, le=1)
    "Of those, captions."


def run(context: Context, params: Params) -> None:
    """Train and examine in one worker."""
    names = [
        [name.rpartition("/")[2] for name in context.stage.inputs[role]]
        for role in ("documents", "images")
    ]
    numbers = context.run_task(
        make_model,
        context.folder,
        context.local_files(params),
        context.seed,
        context.inputs("documents"),
        context.input("curated"),
        context.inputs("images"),
        names,
    )
    context.commit(files=[MODEL_FILE, REPORT_FILE], numbers=numbers)


def make_model(
    folder: Store,
    params: Params,
    seed: int,
    documents: Sequence[Dataset],
    curated: Dataset,
    images: Sequence[Dataset],
    names: Sequence[Sequence[str]],
) -> dict[str, float]:
    """Sample, train, write the model and its report; return the report's numbers.

    Raises:
        ValueError: the corpus is too small for the vocabulary, or the given model is none.
    """
    num_captions = round(params.sample_lines * params.caption_share)
    samples = [
        sample_documents(documents, params.sample_lines - num_captions, seed),
        sample_captions(curated, images, num_captions, seed),
    ]
    if params.model is None:
        model = train(
            (line for sample in samples for _, line in sample),
            vocab_size=params.vocab_size,
            character_coverage=params.character_coverage,
            byte_fallback=params.byte_fallback,
        )
    else:
        model = Path(params.model).read_bytes()
    folder.write_bytes(MODEL_FILE, model)
    tokenizer = TextTokenizer.load(folder.fetch(MODEL_FILE))
    numbers: dict[str, float] = {
        "num_lines": sum(map(len, samples)),
        "vocabulary_rows": tokenizer.num_rows,
    }
    for sample, sources in zip(samples, names, strict=True):
        for number, source in enumerate(sources):
            mine = (line for owner, line in sample if owner == number)
            lines = list(islice(mine, _REPORT_LINES))
            numbers |= {f"{key}/{source}": v for key, v in measures(tokenizer, lines).items()}
    report: dict[str, Any] = {**numbers, "longest_pieces": tokenizer.longest_pieces(_LONGEST)}
    folder.write_bytes(REPORT_FILE, json.dumps(report, indent=1, ensure_ascii=False).encode())
    return numbers


def measures(tokenizer: TextTokenizer, lines: Sequence[str]) -> dict[str, float]:
    """Return how well a vocabulary fits some lines; nothing for no lines."""
    if not lines:
        return {}
    ids, _ = tokenizer.encode_flat(lines)
    words = sum(len(line.split()) for line in lines)
    return {
        "tokens_per_word": len(ids) / max(words, 1),
        "unknown_share": float(np.mean(ids == UNK)) if len(ids) else 0.0,
        "character_coverage": tokenizer.covered_characters(lines),
    }
