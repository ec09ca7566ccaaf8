"""Tasks of GLUE, in the form of its TSV files.

    glue_data/{CoLA,SST-2,MRPC,RTE,STS-B}/{train,dev,test}.tsv

As in the published files, the columns differ from task to task and between the splits with and
without labels: CoLA's labeled files have no header, and the test files number their rows. Cells
are not quoted: a few sentences begin with a lone quotation mark. Faults: an empty sentence
(``empty_text``; of two, the second), an empty label (``no_labels``). Format: https://gluebenchmark.com/tasks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from dataprep.miniweb.drawn_images import numbered_rng
from dataprep.miniweb.glue_texts import (
    LabeledTexts,
    acceptability,
    entailment,
    paraphrase,
    sentiment,
    similarity,
)
from dataprep.miniweb.task_images import Split, fault_of, split_of
from dataprep.miniweb.truth import TaskRow

GLUE: Final = "glue_data"
_SOURCE: Final = 25
_FAULTS: Final = ("empty_text", "no_labels")
_QUOTED: Final = 41
"Of this many examples one has a quotation mark."


@dataclass(frozen=True)
class _Task:
    """A task of GLUE: its examples, and the columns of its files by name.

    In a cell, ``{0}`` and ``{1}`` are the sentences, ``{label}`` the label and ``{row}`` the
    number of the row, which counts from 0 below the header.
    """

    name: str
    draw: Callable[[np.random.Generator], LabeledTexts]
    labeled: Mapping[str, str]
    unlabeled: Mapping[str, str]
    has_header: bool = True
    "Whether the labeled files have one; ``test.tsv`` always has."


_MRPC: Final = {
    "#1 ID": "1{row:06d}",
    "#2 ID": "2{row:06d}",
    "#1 String": "{0}",
    "#2 String": "{1}",
}
_RTE: Final = {"index": "{row}", "sentence1": "{0}", "sentence2": "{1}"}
_STS_B: Final = {
    "index": "{row}",
    "genre": "main-captions",
    "filename": "MSRvid",
    "year": "2012test",
    "old_index": "{row:04d}",
    "source1": "none",
    "source2": "none",
    "sentence1": "{0}",
    "sentence2": "{1}",
}
_TASKS: Final = (
    _Task(
        "CoLA",
        acceptability,
        {"source": "gj04", "label": "{label}", "mark": "{mark}", "sentence": "{0}"},
        {"index": "{row}", "sentence": "{0}"},
        has_header=False,
    ),
    _Task(
        "SST-2",
        sentiment,
        {"sentence": "{0} ", "label": "{label}"},
        {"index": "{row}", "sentence": "{0}"},
    ),
    _Task("MRPC", paraphrase, {"Quality": "{label}", **_MRPC}, {"index": "{row}", **_MRPC}),
    _Task("RTE", entailment, {**_RTE, "label": "{label}"}, _RTE),
    _Task("STS-B", similarity, {**_STS_B, "score": "{label}"}, _STS_B),
)


def write_glue(folder: Path, number: int, seed: int) -> list[TaskRow]:
    """Write ``glue_data/`` with ``number`` examples of each task."""
    rows = list[TaskRow]()
    for t, task in enumerate(_TASKS):
        lines: dict[Split, list[str]] = {"train": [], "dev": [], "test": []}
        for i in range(number):
            split = split_of(i)
            example = task.draw(numbered_rng(seed, _SOURCE, t, i))
            outcome = fault_of(i, split, _FAULTS)
            first, *others = example.texts
            texts = (f'"{first}' if i % _QUOTED == _QUOTED - 1 else first, *others)
            if outcome == "empty_text":
                texts = (*texts[:-1], "")
            label = "" if outcome == "no_labels" else example.label
            row = len(lines[split])
            columns = task.unlabeled if split == "test" else task.labeled
            mark = "*" if label == "0" else ""
            cells = [c.format(*texts, label=label, row=row, mark=mark) for c in columns.values()]
            lines[split].append("\t".join(cells) + "\n")
            kept = tuple(text for text in texts if text)
            rows.append(TaskRow(f"glue/{task.name}", split, str(row), outcome, (), kept, label))
        _write_files(folder / GLUE / task.name, task, lines)
    return rows


def _write_files(folder: Path, task: _Task, lines: Mapping[Split, list[str]]) -> None:
    folder.mkdir(parents=True)
    for split, body in lines.items():
        columns = task.unlabeled if split == "test" else task.labeled
        header = ["\t".join(columns) + "\n"] if split == "test" or task.has_header else []
        (folder / f"{split}.tsv").write_text("".join([*header, *body]))
