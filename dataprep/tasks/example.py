"""One example of a downstream task, as an annotation file gives it; images are not read yet."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from dataprep.sources.annotations import MALFORMED_ENTRY
from dataprep.sources.lines import ListError
from dataprep.sources.names import DistinctNames, safe_name
from dataprep.text import arrow_safe, clean_caption

EMPTY_TEXT: Final = "empty_text"
"Reason of a reject: a text holds nothing but spaces."
NO_LABELS: Final = "no_labels"
"Reason of a reject: the example has no label, and others of its split have some."
UNKNOWN_LABEL: Final = "unknown_label"
"Reason of a reject: the label is none of those that the format has."
UNKNOWN_SPLIT: Final = "unknown_split"
"Reason of a reject: the split is none of those that the format has."
REPEATED_ID: Final = "repeated_id"
"Reason of a reject: an earlier example has the same id."

_NUMBER: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")


class AnnotatedObject(NamedTuple):
    """An object in an image. Lengths are pixels of the size that the file states for the image."""

    id: int
    "Id of the annotation."
    box: tuple[float, ...]
    "x, y, width and height, within the image."
    area: float
    "Area as annotated, by which an evaluation tells small from large objects."
    is_crowd: bool
    "Whether it stands for many objects: not trained on, and neither right nor wrong to find."
    mask: str
    "Run lengths, see ``run_lengths.py``; empty without a mask."


@dataclass(frozen=True)
class Example:
    """An example. Which parts it has depends on the task (``pipelines/finetune/tasks``).

    ====================  ======  =============================  ==================================
    task                  images  texts                          labels
    ====================  ======  =============================  ==================================
    visual questions      1       the question                   each annotator's answer
    sentences of images   2       the sentence                   ``True`` or ``False``
    retrieval             1       every caption                  none
    captioning            1       every caption, or none         the domain, or none
    image classification  1       none                           one class, or several
    text classification   0       a sentence, or two             one class, or a number as text
    detection             1       none                           the class of each object
    segmentation          1       none                           none
    ====================  ======  =============================  ==================================
    """

    id: str
    "Id within the split, by which a submission names it; unique."
    images: tuple[str, ...] = ()
    "Names of the image files."
    texts: tuple[str, ...] = ()
    "Cleaned texts."
    labels: tuple[str, ...] = ()
    "Labels as annotated; empty where the split has none."
    main_label: str = ""
    "The label that the annotators agree on most, where the file names it."
    objects: tuple[AnnotatedObject, ...] = ()
    "Of detection: the object of each label."
    size: tuple[int, int] = (0, 0)
    "Of detection: width and height of the image as the file states them."
    mask: str = ""
    "Of segmentation: name of the file of the image's label map; its classes become the labels."
    whole_names: bool = False
    "Whether images are found by their whole names alone, as others of the file end alike."
    reason: str = ""
    "Why the example is a reject; empty for a good one."
    detail: str = ""
    "What exactly is wrong with it, with the place in the file."


def example_of(
    id_: str,
    where: str,
    *,
    images: Sequence[str] = (),
    texts: Sequence[str] = (),
    labels: Sequence[str] = (),
    main_label: str = "",
    objects: Sequence[AnnotatedObject] = (),
    size: tuple[int, int] = (0, 0),
    mask: str = "",
) -> Example:
    """Return an example with cleaned texts and labels in NFC; a reject if a text is empty.

    Args:
        id_: id within the split.
        where: place in the file, for messages.
        images: names of the image files.
        texts: texts as annotated.
        labels: labels as annotated.
        main_label: see :class:`Example`.
        objects: see :class:`Example`.
        size: see :class:`Example`.
        mask: see :class:`Example`.
    """
    cleaned = tuple(map(clean_caption, texts))
    is_whole = all(cleaned)
    return Example(
        id_,
        tuple(images),
        cleaned,
        tuple(map(in_nfc, labels)),
        in_nfc(main_label),
        tuple(objects),
        size,
        mask,
        reason="" if is_whole else EMPTY_TEXT,
        detail="" if is_whole else f"{where}: an empty text",
    )


def id_in_file(example_id: str) -> int | str:
    """Return the id as an annotation file gives it: a plain number, or a text such as ``007``."""
    return int(example_id) if _NUMBER.fullmatch(example_id) else example_id


def in_nfc(label: str) -> str:
    """Return a label as examples hold it: in NFC, and without halves of surrogate pairs."""
    return unicodedata.normalize("NFC", arrow_safe(label))


def bad(id_: str, where: str, reason: str, problem: str) -> Example:
    """Return an example that is a reject because of a ``problem`` at a place in the file."""
    return Example(id_, reason=reason, detail=f"{where}: {problem}")


def problem_of(entry: Any, types: Mapping[str, tuple[type, ...]]) -> str | None:
    """Return what is wrong with an entry of a JSON file, or None.

    Args:
        entry: a value of JSON.
        types: types of each key that the entry must have.
    """
    if not isinstance(entry, dict):
        return f"expected an object, found {type(entry).__name__}"
    for key, kinds in types.items():
        if key not in entry:
            return f"no {key}"
        if not isinstance(entry[key], kinds) or isinstance(entry[key], bool):
            return f"{key} = {entry[key]!r}, expected {kinds[0].__name__}"[:200]
    return None


def checked(
    examples: Iterable[Example], path: Path, names: DistinctNames | None = None
) -> Iterator[Example]:
    """Yield the examples of a file with safe and distinct ids; a repeated id is a reject.

    Args:
        examples: the examples.
        path: path of the file.
        names: the ids of other files that belong to the same split.

    Raises:
        ListError: there are examples and all are malformed; the message names the first one.
    """
    names = names or DistinctNames()
    first, is_readable = None, False
    for example in examples:
        is_readable = is_readable or example.reason != MALFORMED_ENTRY
        first = first or example
        id_ = names(safe := safe_name(example.id))
        if id_ != safe and example.reason not in (MALFORMED_ENTRY, REPEATED_ID):
            detail = f"{path.name}: the id {safe} stands there before"
            yield replace(example, id=id_, reason=REPEATED_ID, detail=detail)
        else:
            yield example if id_ == example.id else replace(example, id=id_)
    if first and not is_readable:
        raise ListError(f"{path}: no readable entry; {first.detail}")
