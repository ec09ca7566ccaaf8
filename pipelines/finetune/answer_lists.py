"""Lists of labels in files: a label per line, or the published ``answer2label.txt``."""

import json
from pathlib import Path


def read_answers(path: str) -> list[str]:
    """Return the labels of a file in the order of their numbers.

    A line is a label, or an object such as ``{"answer": "net", "label": 0}``.

    Raises:
        ValueError: the file has no labels, one stands twice, or numbers are not 0, 1, 2, ….
    """
    lines = [line.strip() for line in Path(path).read_text("utf-8").splitlines() if line.strip()]
    names = [_name(path, number, line) for number, line in enumerate(lines)]
    if not names:
        raise ValueError(f"{path}: no labels; give one per line")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"{path}: {twice!r} stands in several lines; remove all but one")
    return names


def _name(path: str, number: int, line: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        entry = json.loads(line)
        name, label = entry["answer"], entry["label"]
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{path}, line {number + 1}: not an answer and its number: {error}"
        ) from None
    if label != number or not isinstance(name, str):
        raise ValueError(
            f"{path}, line {number + 1}: label {label!r} of {name!r}, expected {number}; sort the "
            "lines by label"
        )
    return name
