"""Rows of the images table: what the download and the import of images share.

Each image ends as a row of the images table or as a reject.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from pydantic import Field

from dataprep.images import MAX_PIXELS, ImageError, ImageRules, StoredImage, check_jpeg, store_image
from dataprep.schemas import IMAGES, reject, rejects_table, table_of
from dataprep.sources.members import MemberError
from orchestration import Output
from orchestration.params import StageParams
from pipelines.readers.expected_memory import COPIES, IMAGE_BYTES

_MAX_PIECE_BYTES: Final = 1 << 27
"Bytes of JPEGs after which a piece of a slice's output is written."


class StoreParams(StageParams):
    """How an image is resized and encoded, and which images are rejects."""

    short_side: int = Field(default=256, ge=16)
    "Length in pixels of a stored image's shorter side; smaller images keep their size."
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    "JPEG quality of a stored image."
    min_side: int = Field(default=32, ge=1)
    "Smallest length in pixels of an original's shorter side; smaller images are rejects."
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    "Largest number of pixels of an original; larger images are rejects and are not decoded."

    def rules(self) -> ImageRules:
        """Convert to the rules of ``dataprep``."""
        return ImageRules(**self.model_dump())


@dataclass(frozen=True)
class Found:
    """An image found in an archive or a folder; it is not read yet."""

    name: str
    "Name within the source; the sample id is ``<source>/<name>``."
    location: str
    "Location in the archive, for messages."
    read: Callable[[], bytes]
    "Returns the image's bytes, or raises MemberError."
    captions: list[str] = field(default_factory=list)
    label: str = ""


def store_found(
    found: Iterable[Found], source: str, rules: ImageRules, piece_rows: int
) -> Iterator[Output]:
    """Read and store images one after the other; yield them as the output of a slice in pieces.

    Args:
        found: the images of the slice.
        source: name of the source.
        rules: how an image is stored.
        piece_rows: largest number of images, and of rejects, of a piece; a piece of large images
            ends earlier.
    """
    images: list[dict[str, Any]] = []
    rejects: list[dict[str, str | None]] = []
    num_bytes = 0
    for image in found:
        sample_id = f"{source}/{image.name}"
        try:
            stored = store_image(image.read(), rules)
            images.append(image_row(sample_id, source, stored, image.captions, label=image.label))
            num_bytes += len(stored.jpeg)
        except (ImageError, MemberError) as error:
            detail = f"{image.location}: {error.detail}"
            rejects.append(reject(sample_id, source, error.reason, detail))
        if len(images) == piece_rows or num_bytes > _MAX_PIECE_BYTES:
            yield stored_output(images, [])
            images, num_bytes = [], 0
        if len(rejects) == piece_rows:
            yield stored_output([], rejects)
            rejects = []
    yield stored_output(images, rejects)


def stored_output(
    images: Sequence[dict[str, Any]], rejects: Sequence[dict[str, str | None]]
) -> Output:
    """Return the rows of both tables as the output of a slice."""
    return Output(
        num_rows_in=len(images) + len(rejects),
        tables={
            "data": table_of(images, IMAGES),
            "rejects": rejects_table(rejects),
        },
    )


def slice_bytes(num_images: int) -> int:
    """Predict the memory that the images of a slice take while they are stored."""
    return num_images * IMAGE_BYTES * COPIES


def refuse(reason: str, detail: str) -> bytes:
    """Raise, in place of reading: a :attr:`Found.read` for an image that is a reject anyway.

    Raises:
        MemberError: always.
    """
    raise MemberError(reason, detail)


def image_row(
    sample_id: str,
    source: str,
    image: StoredImage,
    captions: list[str],
    *,
    label: str = "",
    index_row: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return one row of the images table; ``index_row`` is the row of the index that lists it.

    Raises:
        ImageError: the image is empty, damaged or of another size than recorded.
    """
    check_jpeg(image)
    expected_sha256 = index_row.get("sha256")
    return {
        "sample_id": sample_id,
        "source": source,
        "url": index_row.get("url"),
        **vars(image),
        "hash_matches": image.sha256 == expected_sha256 if expected_sha256 else None,
        "captions": captions,
        "label": label,
        "held_out": index_row.get("held_out"),
        "group": index_row.get("group"),
    }
