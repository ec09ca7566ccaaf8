"""The classes of label maps: ADE20K's list, and own ones.

A label map shows classes by numbers, or by colors. Class numbers count from 0 in the order of the
list; ``IGNORED`` stands for no class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dataprep.sources.annotations import AnnotationError
from dataprep.sources.compression import SUFFIXES
from dataprep.sources.lines import ListError, read_lines
from dataprep.sources.own_lists import TextForm, check_columns, header, table_rows

Color = tuple[int, int, int]

IGNORED: Final = 255
"Label of the pixels that belong to no class."
NUM_VALUES: Final = 1 << 16
"A value of a label map is below this."
_COLOR_COLUMNS: Final = ("r", "g", "b")
_ADE20K_COLUMN: Final = "Idx"
"The first column of ADE20K's list."


@dataclass(frozen=True)
class LabelClasses:
    """The classes of a set of label maps, and what stands for them in its files."""

    names: tuple[str, ...]
    "Of the classes, in the order of their numbers."
    values: Mapping[int, int] = field(default_factory=dict)
    "Class number, or ``IGNORED``, of each value; empty if colors stand for the classes."
    colors: Mapping[Color, int] = field(default_factory=dict)
    "Class number, or ``IGNORED``, of each color."


def read_classes(path: Path) -> LabelClasses:
    """Return the classes of a list in either form, which its first line tells.

    Raises:
        AnnotationError: see :func:`read_ade20k_classes` and :func:`read_label_classes`.
        ListError: see there.
    """
    _refuse_folder(path)
    first = next(iter(read_lines(path, None)), None)
    is_ade20k = first is not None and first.text.split()[:1] == [_ADE20K_COLUMN]
    return read_ade20k_classes(path) if is_ade20k else read_label_classes(path)


def read_ade20k_classes(path: Path) -> LabelClasses:
    """Return the classes of ADE20K's ``objectInfo150.txt``; the value 0 is ignored.

    Format: a line ``Idx Ratio Train Val Name``, then one for each class.

    Raises:
        AnnotationError: the file has another format.
        ListError: the file is no text, or a folder.
    """
    _refuse_folder(path)
    names: list[str] = []
    column = None
    for number, text, problem, _ in read_lines(path, None):
        fields = text.split(None, column) if column else text.split()
        where = f"{path}, line {number}"
        if problem:
            raise AnnotationError(f"{where}: {problem}")
        if column is None:
            if fields[:1] != [_ADE20K_COLUMN] or fields[-1] != "Name":
                raise AnnotationError(f"{where}: expected the columns Idx … Name, found {text:.80}")
            column = len(fields) - 1
        elif fields:
            if len(fields) <= column or fields[0] != str(len(names) + 1):
                raise AnnotationError(
                    f"{where}: expected the class {len(names) + 1} with {column + 1} columns, "
                    f"found {text:.80}"
                )
            names.append(" ".join(fields[column].split()))
    _check_names(path, names)
    values = {number + 1: number for number in range(len(names))}
    return LabelClasses(tuple(names), {0: IGNORED} | values)


def read_label_classes(path: Path) -> LabelClasses:
    """Return own classes, one in each row of a CSV or TSV file.

    Columns: ``name``, and ``r``, ``g``, ``b`` or ``value``. With neither, values count from 0 in
    the order of the rows. A row without a name is a color or value that is ignored; so is the
    value 255, unless it is named.

    Raises:
        AnnotationError: a row is not of this form, or two rows have one name, value or color.
        ListError: the file has no column ``name``, or another form, or is a folder.
    """
    _refuse_folder(path)
    ending = path.name.removesuffix(next((s for s in SUFFIXES if path.name.endswith(s)), ""))
    form: TextForm = "tsv" if ending.lower().endswith(".tsv") else "csv"
    columns = header(path, form, quoting=True)
    has_colors = any(name in columns for name in _COLOR_COLUMNS)
    check_columns(path, columns, ["name", *(_COLOR_COLUMNS if has_colors else ())])
    names: list[str] = []
    found: dict[Any, int] = {}
    for place, (number, row, problem) in enumerate(table_rows(path, form, None, quoting=True)):
        where = f"{path}, line {number}"
        if problem:
            raise AnnotationError(f"{where}: {problem}")
        key: Any
        if has_colors:
            key = tuple(_number(row[name], name, 255, where) for name in _COLOR_COLUMNS)
        elif "value" in row:
            key = _number(row["value"], "value", NUM_VALUES - 1, where)
        else:
            key = place
        if key in found:
            raise AnnotationError(f"{where}: {key} stands for another class, too")
        name = " ".join(row["name"].split())
        found[key] = len(names) if name else IGNORED
        names += [name] if name else []
    _check_names(path, names)
    if has_colors:
        return LabelClasses(tuple(names), colors=found)
    return LabelClasses(tuple(names), {IGNORED: IGNORED} | found)


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise ListError(f"{path}: a folder; name the file that lists the classes")


def _number(text: str, column: str, largest: int, where: str) -> int:
    if not text.strip().isascii() or not text.strip().isdigit() or int(text) > largest:
        raise AnnotationError(f"{where}: {column} = {text!r:.40}, expected 0 to {largest}")
    return int(text)


def _check_names(path: Path, names: Sequence[str]) -> None:
    if not 0 < len(names) <= IGNORED:
        raise AnnotationError(f"{path}: {len(names)} classes; give 1 to {IGNORED}")
    if repeated := {name for name in names if names.count(name) > 1}:
        raise AnnotationError(f"{path}: several classes are named {min(repeated)!r}")
