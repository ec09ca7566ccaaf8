"""Text tokenizer: documents and captions → a SentencePiece model.

In: documents, curated pairs. Out: ``spm.model`` and ``report.json`` (by source: tokens per word,
fraction of unknown tokens, character coverage, and of the whole corpus the numbers of documents,
lines, words and characters; the longest pieces). Training uses a seeded sample of lines
(``text_sample``), so memory does not grow with the corpus. A given model
(``text_tokenizer.model``), such as the released one, is reported in the same way, without training.
"""

import json
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from pydantic import Field

from orchestration import Context, Stage, feeding
from orchestration.errors import RecipeError, StageError
from orchestration.params import EXTERNAL_FILE, OR_URI, StageParams, is_uri
from orchestration.reporting.usage import WORKER_BYTES, Expected, Workers
from orchestration.storage.remote_files import head_of
from orchestration.storage.store import Store
from pipelines.curate.exchange import remove_rounds
from pipelines.tokens.text_sample import COUNTERS, Corpus, Kind, Sample, count_texts, draw
from tokenizer.text import UNK, TextTokenizer, train

MODEL_FILE: Final = "spm.model"
REPORT_FILE: Final = "report.json"
_MAX_MODEL_BYTES: Final = 64 << 20
_MAX_REPORT_LINES: Final = 1000
_NUM_LONGEST_PIECES: Final = 20
_LINE_CHARS: Final = 200
"Characters of a line of the sample, on average."
_DRAWN_BYTES: Final = 200_000_000
"Memory of a worker that counts or draws the lines of a slice."
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
    sample_lines: int = Field(default=1_000_000, ge=1)
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
        version=2,
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
            load_given(params.model)
        except ValueError as error:
            raise RecipeError(f"text_tokenizer.model: {error}") from None
    return Expected()


def workers(params: Params, inputs: Mapping[str, Expected]) -> Workers:
    """Predict the memory of the largest worker, which trains on the sample of lines."""
    trained = params.sample_lines * _TRAINED_BYTES if params.model is None else 0
    return Workers(WORKER_BYTES + _DRAWN_BYTES + trained, 1)


def load_given(location: str) -> TextTokenizer:
    """Load a model that a recipe names; one that a server holds is fetched whole, as it is small.

    Raises:
        RecipeError: the server does not give the file.
        ValueError: the file is not a model that this project can use.
    """
    if not is_uri(location):
        return TextTokenizer.load(location)
    with tempfile.NamedTemporaryFile() as file:
        file.write(head_of(location, _MAX_MODEL_BYTES))
        file.flush()
        try:
            return TextTokenizer.load(file.name)
        except ValueError as error:
            raise ValueError(str(error).replace(file.name, location)) from None


def run(context: Context, params: Params) -> None:
    """Count and draw lines in rounds of slices; then train the model and write its report."""
    params = context.local_files(params)
    corpus = Corpus(
        context.inputs("documents"), context.input("curated").table("pairs"), context.seed
    )
    documents, images = (
        [name.rpartition("/")[2] for name in context.stage.inputs[role]]
        for role in ("documents", "images")
    )
    names: dict[Kind, list[str]] = {"documents": documents, "captions": images}
    num_captions = round(params.sample_lines * params.caption_fraction)
    limits = {"documents": params.sample_lines - num_captions, "captions": num_captions}
    counts = count_texts(context, corpus)
    samples = []
    for kind, sources in names.items():
        total = sum(counts[kind][f"lines/{number}"] for number in range(len(sources)))
        samples.append(draw(context, corpus, kind, limits[kind], total))
    numbers = context.run_task(
        make_model,
        context.folder,
        params,
        samples,
        list(names.values()),
        numbers_of(counts, names),
    )
    context.commit(files=[MODEL_FILE, REPORT_FILE], numbers=numbers)
    remove_rounds(context.folder)


def numbers_of(
    counts: Mapping[Kind, Mapping[str, int]], names: Mapping[Kind, Sequence[str]]
) -> dict[str, float]:
    """Return the numbers of the whole corpus by source; captions are those that curation kept.

    A source of images without captions has no numbers.

    Args:
        counts: counters of :func:`pipelines.tokens.text_sample.count_slice` by kind.
        names: names of the sources by kind.
    """
    return {
        f"{counter}/{source}": counts[kind].get(f"{counter}/{number}", 0)
        for kind, sources in names.items()
        for number, source in enumerate(sources)
        if kind == "documents" or f"lines/{number}" in counts[kind]
        for counter in COUNTERS[kind]
    }


def make_model(
    folder: Store,
    params: Params,
    samples: Sequence[Sample],
    sources: Sequence[Sequence[str]],
    corpus_numbers: Mapping[str, float],
) -> dict[str, float]:
    """Train, write the model and its report; return the report's numbers.

    Args:
        folder: folder of the stage.
        params: the recipe's section.
        samples: lines of documents, and of captions.
        sources: names of the sources of each sample's datasets.
        corpus_numbers: numbers of the whole corpus, for the report.

    Raises:
        StageError: the corpus is too small for the vocabulary.
        ValueError: the given file is not a SentencePiece model.
    """
    noted = [_Noted(sample, len(names)) for sample, names in zip(samples, sources, strict=True)]
    lines = chain.from_iterable(noted)
    if params.model is None:
        try:
            model = train(
                lines,
                vocab_size=params.vocab_size,
                character_coverage=params.character_coverage,
                byte_fallback=params.byte_fallback,
            )
        except ValueError as error:
            raise StageError(str(error)) from None
    else:
        model = Path(params.model).read_bytes()
        deque(lines, maxlen=0)
    folder.write_bytes(MODEL_FILE, model)
    tokenizer = TextTokenizer.load(folder.fetch(MODEL_FILE))
    numbers: dict[str, float] = {
        "num_lines": sum(each.num_lines for each in noted),
        "num_vocab_rows": tokenizer.num_rows,
        **corpus_numbers,
    }
    for each, names in zip(noted, sources, strict=True):
        for first, source in zip(each.first, names, strict=True):
            numbers |= {f"{key}/{source}": v for key, v in measures(tokenizer, first).items()}
    report: dict[str, Any] = {
        **numbers,
        "longest_pieces": tokenizer.longest_pieces(_NUM_LONGEST_PIECES),
    }
    folder.write_bytes(REPORT_FILE, json.dumps(report, indent=1, ensure_ascii=False).encode())
    return numbers


class _Noted:
    """The lines of a sample; counts them, and keeps the first of each source for the report."""

    def __init__(self, sample: Sample, num_sources: int) -> None:
        self.num_lines = 0
        self.first: list[list[str]] = [[] for _ in range(num_sources)]
        self._sample = sample

    def __iter__(self) -> Iterator[str]:
        for source, line in self._sample:
            self.num_lines += 1
            if len(self.first[source]) < _MAX_REPORT_LINES:
                self.first[source].append(line)
            yield line


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
