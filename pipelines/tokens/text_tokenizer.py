"""Text tokenizer: documents and captions → a SentencePiece model.

In: documents, curated pairs. Out: ``spm.model`` and ``report.json`` (by source: tokens per word,
fraction of unknown tokens, character coverage; the longest pieces). Training uses a seeded sample
of lines, so memory does not grow with the corpus. A given model (``text_tokenizer.model``), such
as the released one, is reported in the same way, without training.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from pydantic import Field

from orchestration import Context, Dataset, Stage, feeding
from orchestration.errors import RecipeError
from orchestration.params import EXTERNAL_FILE, OR_URI, StageParams, is_uri
from orchestration.reporting.usage import WORKER_BYTES, Expected, Workers
from orchestration.storage.remote_files import head_of
from orchestration.storage.store import Store
from pipelines.tokens.text_sample import sample_captions, sample_documents
from tokenizer.text import UNK, TextTokenizer, train

MODEL_FILE: Final = "spm.model"
REPORT_FILE: Final = "report.json"
_MAX_MODEL_BYTES: Final = 64 << 20
_MAX_REPORT_LINES: Final = 1000
_NUM_LONGEST_PIECES: Final = 20
_LINE_CHARS: Final = 200
"Characters of a line of the sample, on average."
_SAMPLED_BYTES: Final = 2 * (_LINE_CHARS + 110)
"Memory of a line of the sample while it is drawn, when twice as many are held."
_TRAINED_BYTES: Final = 15 * _LINE_CHARS
"Memory of a line in SentencePiece's training."


class Params(StageParams):
    """Training of the vocabulary; the default character coverage is XLM-R's."""

    model: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "Path or URI of a SentencePiece model to use instead of training one."
    vocab_size: int = Field(default=64_000, ge=10, le=65_000)
    "Number of pieces, including the three control pieces; ids must fit 16 bits."
    character_coverage: float = Field(default=0.9995, gt=0, le=1)
    "Fraction of all characters in the sample that the pieces must cover."
    byte_fallback: bool = False
    "Encode characters without a piece as bytes instead of the unknown token."
    sample_lines: int = Field(default=10_000_000, ge=1)
    "Largest number of lines of documents and captions to train on."
    caption_fraction: float = Field(default=0.5, ge=0, le=1)
    "Fraction of these lines that are captions."


def stage(
    params: Params,
    *,
    seed: int,
    documents: Sequence[Stage],
    curated: Stage,
    images: Sequence[Stage],
) -> Stage:
    """Return the stage ``text_tokenizer``.

    Args:
        params: the recipe's section.
        seed: of the recipe.
        documents: the stages that give documents.
        curated: ``curate``.
        images: the stages whose images curation read, in its order.
    """
    return Stage(
        "text_tokenizer",
        lambda context: run(context, params),
        params,
        feeding(documents=documents, curated=curated, images=images),
        seed=seed,
        expects=lambda: expects(params),
        workers=partial(workers, params),
    )


def expects(params: Params) -> Expected:
    """Check a given model; the output has no rows.

    Raises:
        RecipeError: the given file is not a model that this project can use.
    """
    if params.model is not None:
        try:
            if is_uri(params.model):
                _load_remote(params.model)
            else:
                TextTokenizer.load(params.model)
        except ValueError as error:
            raise RecipeError(f"text_tokenizer.model: {error}") from None
    return Expected()


def workers(params: Params, inputs: Mapping[str, Expected]) -> Workers:
    """Predict the memory of the one worker: the sample of lines, and the training on them."""
    trained = _TRAINED_BYTES if params.model is None else 0
    return Workers(WORKER_BYTES + params.sample_lines * (_SAMPLED_BYTES + trained), 1)


def _load_remote(uri: str) -> None:
    """Load a model that a server holds: it has megabytes at most, so it is fetched whole."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(head_of(uri, _MAX_MODEL_BYTES))
        file.flush()
        try:
            TextTokenizer.load(file.name)
        except ValueError as error:
            raise ValueError(str(error).replace(file.name, uri)) from None


def run(context: Context, params: Params) -> None:
    """Train the model and write its report, as one task."""
    sources = [
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
        sources,
    )
    context.commit(files=[MODEL_FILE, REPORT_FILE], numbers=numbers)


def make_model(
    folder: Store,
    params: Params,
    seed: int,
    documents: Sequence[Dataset],
    curated: Dataset,
    images: Sequence[Dataset],
    sources: Sequence[Sequence[str]],
) -> dict[str, float]:
    """Sample lines, train, write the model and its report; return the report's numbers.

    Args:
        folder: folder of the stage.
        params: the recipe's section.
        seed: seed of the sample.
        documents: datasets of documents.
        curated: the dataset of curation.
        images: images datasets that curation read.
        sources: names of the sources of ``documents``, and of those of ``images``.

    Raises:
        ValueError: the corpus is too small for the vocabulary, or the given file is not a
            SentencePiece model.
    """
    num_captions = round(params.sample_lines * params.caption_fraction)
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
        "num_vocab_rows": tokenizer.num_rows,
    }
    for sample, names in zip(samples, sources, strict=True):
        for number, source in enumerate(names):
            of_source = (line for owner, line in sample if owner == number)
            lines = list(islice(of_source, _MAX_REPORT_LINES))
            numbers |= {f"{key}/{source}": v for key, v in measures(tokenizer, lines).items()}
    report: dict[str, Any] = {
        **numbers,
        "longest_pieces": tokenizer.longest_pieces(_NUM_LONGEST_PIECES),
    }
    folder.write_bytes(REPORT_FILE, json.dumps(report, indent=1, ensure_ascii=False).encode())
    return numbers


def measures(tokenizer: TextTokenizer, lines: Sequence[str]) -> dict[str, float]:
    """Return how well a vocabulary fits some lines; an empty dict for no lines."""
    if not lines:
        return {}
    ids, _ = tokenizer.encode_flat(lines)
    words = sum(len(line.split()) for line in lines)
    return {
        "tokens_per_word": len(ids) / max(words, 1),
        "unknown_fraction": float(np.mean(ids == UNK)) if len(ids) else 0.0,
        "character_coverage": tokenizer.covered_characters(lines),
    }
