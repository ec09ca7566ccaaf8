"""Annotated images, as the readers of COCO, Flickr30K and Visual Genome return them.

An entry that does not have the format of its file is returned with a problem, so that the others
come through; a file without a single readable entry is refused.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from dataprep.sources.compression import CompressionDamage, read_unpacked
from dataprep.sources.members import MemberError
from dataprep.sources.names import DistinctNames, is_housekeeping, member_path, safe_name
from dataprep.sources.zips import ZIP_DAMAGE, read_member

MALFORMED_ENTRY: Final = "malformed_entry"
"Reason of a reject: the entry does not have the format of its file."
_MAX_JSON_BYTES: Final = 1 << 32


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


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, plain or compressed, or of the one in a zip archive.

    Raises:
        AnnotationError: the content is not JSON.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                infos = [
                    info
                    for info in archive.infolist()
                    if not is_housekeeping(member_path(info.filename))
                ]
                found = [info for info in infos if info.filename.lower().endswith(".json")]
                if len(found) != 1:
                    names = ", ".join(safe_name(info.filename) for info in infos[:5]) or "nothing"
                    raise AnnotationError(f"{path}: expected one *.json, it holds {names}")
                return json.loads(read_member(archive, found[0], _MAX_JSON_BYTES))
        return json.loads(read_unpacked(path, _MAX_JSON_BYTES))
    except AnnotationError:
        raise
    except (*ZIP_DAMAGE, CompressionDamage, MemberError, RecursionError) as error:
        raise AnnotationError(f"{path}: not JSON ({error})") from None


def json_bytes(path: Path) -> int:
    """Return the size of a JSON file, unpacked if it lies in a zip archive; 0 without a file."""
    if not path.is_file():
        return 0
    if not zipfile.is_zipfile(path):
        return path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        return sum(info.file_size for info in archive.infolist())


def check_readable(problems: Sequence[str | None], path: Path) -> None:
    """Check that a file has a readable entry, if it has entries.

    Args:
        problems: for each entry, what is wrong with it or None.
        path: path of the file, for the message.

    Raises:
        AnnotationError: no entry can be read; the message names the first one.
    """
    if problems and all(problems):
        raise AnnotationError(f"{path}: no readable entry; {problems[0]}")


def with_distinct_names(images: Sequence[AnnotatedImage]) -> list[AnnotatedImage]:
    """Return images whose names are safe and distinct."""
    names = DistinctNames()
    return [replace(image, name=names(safe_name(image.name))) for image in images]
