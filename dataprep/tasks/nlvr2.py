"""NLVR2: ``train.json``, ``dev.json`` and ``test1.json``, which are JSON lines.

Format: https://github.com/lil-lab/nlvr/tree/master/nlvr2. ``identifier`` is
``<split>-<set>-<pair>-<sentence>``; the images of a pair are ``<split>-<set>-<pair>-img0.png`` and
``img1.png``, in ``images/train/<directory>/``, ``dev/`` or ``test1/``. Only the training split has
``directory``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from dataprep.sources.annotations import MALFORMED_ENTRY
from dataprep.sources.json_keys import check_keys
from dataprep.sources.lines import check_json_lines
from dataprep.sources.own_lists import json_rows
from dataprep.tasks.example import (
    UNKNOWN_LABEL,
    UNKNOWN_SPLIT,
    Example,
    bad,
    checked,
    example_of,
    problem_of,
)

SPLITS: Final = ("train", "dev", "test1", "test2")
LABELS: Final = ("True", "False")
_TYPES: Final = {"identifier": (str,), "sentence": (str,)}
_NUM_PARTS: Final = 4


def check_nlvr2(path: Path) -> None:
    """Check by its first lines that a file has NLVR2's format.

    Raises:
        ListError: it has not.
    """
    check_json_lines(path)
    check_keys(path, tuple(_TYPES))


def read_nlvr2(path: Path) -> Iterator[Example]:
    """Yield the sentences of a file; a split may have no labels.

    Raises:
        ListError: the file has another format, or no line can be read.
    """
    check_nlvr2(path)
    examples = (
        _example(row, number, f"{path.name}:{number}", problem)
        for number, row, problem in json_rows(path, None)
    )
    return checked(examples, path)


def _example(row: dict[str, Any], number: int, where: str, problem: str | None) -> Example:
    if problem := problem or problem_of(row, _TYPES):
        return bad(f"line-{number}", where, MALFORMED_ENTRY, problem)
    id_ = row["identifier"]
    pair, _, _ = id_.rpartition("-")
    split, label = id_.split("-")[0], row.get("label")
    if split not in SPLITS:
        return bad(id_, where, UNKNOWN_SPLIT, f"{id_} is of none of {', '.join(SPLITS)}")
    if id_.count("-") + 1 != _NUM_PARTS:
        return bad(id_, where, MALFORMED_ENTRY, f"identifier {id_}, expected <split>-a-b-c")
    if label is not None and str(label) not in LABELS:
        return bad(id_, where, UNKNOWN_LABEL, f"label = {label!r}, expected True or False"[:200])
    folder = split
    if "directory" in row:
        if isinstance(row["directory"], bool) or not isinstance(row["directory"], int | str):
            return bad(id_, where, MALFORMED_ENTRY, f"directory = {row['directory']!r}"[:200])
        folder = f"{split}/{row['directory']}"
    return example_of(
        id_,
        where,
        images=[f"{folder}/{pair}-img{i}.png" for i in (0, 1)],
        texts=[row["sentence"]],
        labels=[] if label is None else [str(label)],
    )
