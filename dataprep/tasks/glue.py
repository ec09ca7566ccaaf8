"""The TSV files of GLUE: eight corpora of sentences, and of pairs of them.

Format: https://gluebenchmark.com, the files that its authors' ``download_glue_data.py`` makes. The
first line names the columns, except for CoLA's ``train.tsv`` and ``dev.tsv``, which have four
columns without names. Quotes do not quote. A test file has no column of labels; its first column
is the number by which a submission names a row. A row of any other file is numbered from 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from dataprep.sources.annotations import MALFORMED_ENTRY
from dataprep.sources.lines import ListError, read_lines
from dataprep.sources.own_lists import header, table_rows
from dataprep.tasks.example import NO_LABELS, UNKNOWN_LABEL, Example, bad, checked, example_of

Corpus = Literal["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte"]


@dataclass(frozen=True)
class _Columns:
    texts: tuple[str, ...]
    label: str
    labels: tuple[str, ...] = ("0", "1")
    "The labels that the corpus has; none if it has scores."


_SENTENCES: Final = ("sentence1", "sentence2")
_CORPORA: Final[Mapping[Corpus, _Columns]] = {
    "cola": _Columns(("sentence",), "label"),
    "sst2": _Columns(("sentence",), "label"),
    "mrpc": _Columns(("#1 String", "#2 String"), "Quality"),
    "qqp": _Columns(("question1", "question2"), "is_duplicate"),
    "stsb": _Columns(_SENTENCES, "score", ()),
    "mnli": _Columns(_SENTENCES, "gold_label", ("contradiction", "entailment", "neutral")),
    "qnli": _Columns(("question", "sentence"), "label", ("entailment", "not_entailment")),
    "rte": _Columns(_SENTENCES, "label", ("entailment", "not_entailment")),
}
_COLA: Final = ("source", "label", "star", "sentence")
"Columns of CoLA's files without names: source, judgment, the author's mark, sentence."
_MAX_SCORE: Final = 5.0

_Rows = Iterator[tuple[int, dict[str, str], str | None]]
"Number of the line, cells by column, and what is wrong or None."


def read_glue(path: Path, corpus: Corpus) -> Iterator[Example]:
    """Yield the sentences or pairs of a file, with their label or score as it stands there.

    Raises:
        ListError: the file has another format, or no line can be read.
    """
    names = _columns(path, corpus)
    columns = _CORPORA[corpus]
    first, is_labeled = (1, True) if names == _COLA else (2, columns.label in names)
    rows = _unnamed_rows(path) if names == _COLA else table_rows(path, "tsv", None, quoting=False)
    examples = (
        _example(
            columns if is_labeled else _Columns(columns.texts, ""),
            row,
            row[names[0]] if row and not is_labeled else str(number - first),
            f"{path.name}:{number}",
            problem,
        )
        for number, row, problem in rows
    )
    return checked(examples, path)


def check_glue(path: Path, corpus: Corpus) -> None:
    """Check by its first line that a file is one of a corpus.

    Raises:
        ListError: it is not.
    """
    _columns(path, corpus)


def _columns(path: Path, corpus: Corpus) -> tuple[str, ...]:
    """Return the names of a file's columns."""
    names = tuple(header(path, "tsv", quoting=False))
    if corpus == "cola" and len(names) == len(_COLA) and names[1] in ("0", "1"):
        return _COLA
    texts = _CORPORA[corpus].texts
    if not set(texts) <= set(names) or len(set(names)) < len(names):
        shown = ", ".join(names)[:200]
        raise ListError(
            f"{path}: no TSV file of {corpus}, whose columns are {', '.join(texts)}; it has {shown}"
        )
    return names


def _unnamed_rows(path: Path) -> _Rows:
    for number, text, problem, _ in read_lines(path):
        cells = text.split("\t") if text else []
        if problem is None and len(cells) != len(_COLA):
            problem = f"{len(cells)} fields, expected {len(_COLA)}"
        yield number, {} if problem else dict(zip(_COLA, cells, strict=True)), problem


def _example(
    columns: _Columns, row: Mapping[str, str], id_: str, where: str, problem: str | None
) -> Example:
    if problem:
        return bad(f"line-{where.rpartition(':')[2]}", where, MALFORMED_ENTRY, problem)
    labels: Sequence[str] = [row[columns.label].strip()] if columns.label else []
    if labels and not labels[0]:
        return bad(id_, where, NO_LABELS, f"{columns.label} is empty")
    if any(not _is_known(label, columns.labels) for label in labels):
        expected = ", ".join(columns.labels) or f"a number from 0 to {_MAX_SCORE:g}"
        problem = f"{columns.label} = {labels[0]!r}, expected {expected}"
        return bad(id_, where, UNKNOWN_LABEL, problem[:200])
    return example_of(id_, where, texts=[row[name] for name in columns.texts], labels=labels)


def _is_known(label: str, labels: Sequence[str]) -> bool:
    if labels:
        return label in labels
    try:
        return 0 <= float(label) <= _MAX_SCORE
    except ValueError:
        return False
