"""Text tokenizer: documents and captions → a SentencePiece model.

In: documents, curated pairs. Out: ``spm.model`` and ``report.json`` (tokens per word and share of
unknown tokens by source). Texts are sampled, so memory does not grow with the corpus.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from pydantic import Field

from model.training import randomness
from orchestration import Context, Dataset
from orchestration.params import StageParams
from orchestration.store import Store
from pipelines.pictures import KeptPictures
from tokenizer.text import UNK, TextTokenizer, train

MODEL_FILE: Final = "spm.model"
REPORT_FILE: Final = "report.json"
_READ_ROWS: Final = 4096
_REPORT_TEXTS: Final = 1000


class Params(StageParams):
    """How the vocabulary is learned."""

    vocab_size: int = Field(default=64_000, ge=10, le=65_000)
    "Pieces, the three control pieces included; ids must fit 16 bits."
    character_coverage: float = Field(default=0.9995, gt=0, le=1)
    max_documents: int = Field(default=5_000_000, ge=1)
    max_captions: int = Field(default=5_000_000, ge=1)


def run(context: Context, params: Params) -> None:
    """Train in one worker."""
    documents, curated = context.inputs("documents"), context.input("curated")
    images = context.inputs("images")
    numbers = context.run_task(
        train_model, context.folder, params, context.seed, documents, curated, images
    )
    context.commit(files=[MODEL_FILE, REPORT_FILE], numbers=numbers)


def train_model(
    folder: Store,
    params: Params,
    seed: int,
    documents: Sequence[Dataset],
    curated: Dataset,
    images: Sequence[Dataset],
) -> dict[str, float]:
    """Sample, train, write the model and its report; return the report's numbers."""
    samples = {
        "documents": list(sample_documents(documents, params.max_documents, seed)),
        "captions": list(sample_captions(curated, images, params.max_captions, seed)),
    }
    texts = [text for source in samples.values() for text in source]
    model = train(texts, vocab_size=params.vocab_size, character_coverage=params.character_coverage)
    folder.write_bytes(MODEL_FILE, model)
    tokenizer = TextTokenizer.load(folder.fetch(MODEL_FILE))
    numbers: dict[str, float] = {"num_texts": len(texts), "vocabulary_rows": tokenizer.num_rows}
    for source, sample in samples.items():
        if sample:
            tokens, unknown = tokens_per_word(tokenizer, sample[:_REPORT_TEXTS])
            numbers[f"tokens_per_word/{source}"] = tokens
            numbers[f"unknown_share/{source}"] = unknown
    report = json.dumps(numbers, indent=1, sort_keys=True).encode()
    folder.write_bytes(REPORT_FILE, report)
    return numbers


def tokens_per_word(tokenizer: TextTokenizer, texts: Sequence[str]) -> tuple[float, float]:
    """Return tokens per white-space word, and the share of tokens that are unknown."""
    ids = np.concatenate(tokenizer.encode_batch(texts))
    words = sum(len(text.split()) for text in texts)
    return len(ids) / max(words, 1), float((ids == UNK).mean())


def sample_documents(datasets: Sequence[Dataset], limit: int, seed: int) -> Iterator[str]:
    """Yield about ``limit`` documents, each chosen by its number."""
    share = limit / max(sum(dataset.num_rows for dataset in datasets), 1)
    for number, dataset in enumerate(datasets):
        for start in range(0, dataset.num_rows, _READ_ROWS):
            texts = dataset.read(start, start + _READ_ROWS, ["text"])["text"]
            rows = start + np.arange(len(texts))
            chosen = randomness.uniform(seed, 1, number, rows) < share
            yield from texts.filter(chosen).to_pylist()


def sample_captions(
    curated: Dataset, images: Sequence[Dataset], limit: int, seed: int
) -> Iterator[str]:
    """Yield the captions of about ``limit`` curated pairs."""
    pairs = KeptPictures([curated.of("pairs")], images, ["captions"])
    share = limit / max(len(pairs), 1)
    for start in range(0, len(pairs), _READ_ROWS):
        places = np.arange(start, min(start + _READ_ROWS, len(pairs)))
        places = places[randomness.uniform(seed, 2, places) < share]
        if len(places):
            for captions in pairs.take(places)["captions"].to_pylist():
                yield from captions
