"""Annotated images, as the readers of COCO, Flickr30K and Visual Genome return them.

An entry that does not have the format of its file is returned with a problem, so that the others
come through; a file without a single readable entry is refused.
"""

import codecs
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from dataprep.sources.compression import CompressionDamage, Unpacked, compression_of
from dataprep.sources.json_arrays import FormError, elements, members
from dataprep.sources.members import MemberError
from dataprep.sources.names import DistinctNames, is_housekeeping, member_path, safe_name
from dataprep.sources.zips import ZIP_DAMAGE, check_member

MALFORMED_ENTRY: Final = "malformed_entry"
"Reason of a reject: the entry does not have the format of its file."
_END_BYTES: Final = 4096
_WHITE: Final = b" \t\r\n\0"
"White space, and the other half of a character in UTF-16."


class AnnotationError(ValueError):
    """An annotation file does not have the format of its dataset."""


@dataclass(frozen=True)
class AnnotatedImage:
    """One image of an annotation file, with its captions."""

    name: str
    "Name within the source; becomes part of the sample id."
    member: str = ""
    "Path of the image inside the archives."
    captions: list[str] = field(default_factory=list)
    excluded: str | None = None
    "Reason why the image must not be used for training; None if it may."
    problem: str | None = None
    "Why the entry cannot be read; None for a good entry."


def json_elements(path: Path, key: str | None, expected: str) -> Iterator[Any]:
    """Yield the elements of an array in a JSON file, plain, compressed or in a zip archive.

    Args:
        path: path of the file.
        key: key of the array in the outermost object; None if the array is the content.
        expected: what the file should be, for the message.

    Raises:
        AnnotationError: the content is not JSON, or JSON of another form.
    """
    with _opened(path, expected) as file:
        yield from elements(file.read, key)


def json_member(path: Path, key: str, expected: str) -> Any:
    """Return the value under a key of the outermost object of a JSON file; None for an array.

    Args:
        path: path of the file, as :func:`json_elements` takes it.
        key: the key; None is returned if it is missing, too.
        expected: what the file should be, for the message.

    Raises:
        AnnotationError: the content is not JSON, or JSON of another form.
    """
    with _opened(path, expected) as file:
        return next((value for name, value in members(file.read) if name == key), None)


def json_keys(path: Path, expected: str) -> set[str]:
    """Return the keys of the outermost object of a JSON file.

    Arguments and errors are those of :func:`json_member`.
    """
    with _opened(path, expected) as file:
        return {name for name, _ in members(file.read)}


def check_ends(path: Path, expected: str) -> None:
    """Check that a plain file begins and ends as a JSON object does: one that is cut off does not.

    Costs two reads, whatever the size. Compressed files and zip archives are not looked into.

    Args:
        path: path of the file.
        expected: what the file should be, for the message.

    Raises:
        AnnotationError: the file is a folder, no object, or not whole.
    """
    if path.is_dir():
        raise AnnotationError(f"{path}: not {expected} (a folder)")
    if compression_of(path) or zipfile.is_zipfile(path):
        return
    with path.open("rb") as file:
        head = file.read(_END_BYTES)
        file.seek(max(path.stat().st_size - _END_BYTES, 0))
        tail = file.read()
    head = head.removeprefix(codecs.BOM_UTF8).lstrip(_WHITE + codecs.BOM_UTF16)
    if head[:1] != b"{":
        raise AnnotationError(f"{path}: not {expected} (no object)")
    if not tail.rstrip(_WHITE).endswith(b"}"):
        raise AnnotationError(f"{path}: not JSON (the file is cut off: it does not end with }})")


@contextmanager
def _opened(path: Path, expected: str) -> Iterator[Any]:
    """Open a JSON file; errors of its content become an AnnotationError that names it."""
    if path.is_dir():
        raise AnnotationError(f"{path}: not {expected} (a folder)")
    try:
        with _unpacked(path) as file:
            yield file
    except FormError as error:
        raise AnnotationError(f"{path}: not {expected} ({error})") from None
    except AnnotationError:
        raise
    except (*ZIP_DAMAGE, CompressionDamage, MemberError, RecursionError) as error:
        raise AnnotationError(f"{path}: not JSON ({error})") from None


@contextmanager
def _unpacked(path: Path) -> Iterator[Any]:
    if not zipfile.is_zipfile(path):
        with Unpacked(path) as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        infos = [
            info for info in archive.infolist() if not is_housekeeping(member_path(info.filename))
        ]
        found = [info for info in infos if info.filename.lower().endswith(".json")]
        if len(found) != 1:
            names = ", ".join(safe_name(info.filename) for info in infos[:5]) or "nothing"
            raise AnnotationError(f"{path}: expected one *.json, it holds {names}")
        check_member(archive, found[0])
        with archive.open(found[0]) as file:
            yield file


def readable(
    entries: Iterable[tuple[AnnotatedImage | None, str | None]], path: Path
) -> Iterator[AnnotatedImage]:
    """Yield the images of a file with safe and distinct names.

    Args:
        entries: for each entry its image, or None if it is not wanted; and what is wrong with it.
        path: path of the file, for the message.

    Raises:
        AnnotationError: there are entries and none can be read; the message names the first one.
    """
    names = DistinctNames()
    first, is_readable = None, False
    for image, problem in entries:
        is_readable = is_readable or not problem
        first = first or problem
        if image is not None:
            yield replace(image, problem=problem, name=names(safe_name(image.name)))
    if first and not is_readable:
        raise AnnotationError(f"{path}: no readable entry; {first}")
