"""The segments of a JPEG file (ITU-T T.81, annex B): its size, its metadata and its true end.

Only what is needed for the pixels decides: a segment of metadata that cannot be read is ignored.
"""

import re
from dataclasses import dataclass
from typing import Final

from dataprep.image_errors import UNDECODABLE, ImageError

SOI: Final = b"\xff\xd8\xff"
_SCAN_END: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"A marker that ends entropy-coded data: neither a stuffed byte nor a restart marker."
_MARKER: Final = re.compile(rb"\xff[^\x00\xff]")
_EOI: Final = 0xD9
_SOS: Final = 0xDA
_APP1: Final = 0xE1
_APP2: Final = 0xE2
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_EXIF: Final = b"Exif\0\0"
_ICC: Final = b"ICC_PROFILE\0"


@dataclass(frozen=True)
class JpegSegments:
    """A summary of a JPEG's segments."""

    width: int
    height: int
    num_components: int
    exif: bytes
    "Content of the Exif segment without its prefix; empty if there is none."
    icc_profile: bytes
    "ICC profile, joined from its segments; empty if there is none."
    last_scan_end: int
    "Offset of the marker that ends the last scan."
    end: int
    "Offset behind the end marker; other data may follow, such as further images of an MPO."


def read_segments(data: bytes) -> JpegSegments:
    """Walk the segments of the first image of a JPEG file.

    Raises:
        ImageError: the file has no frame header or ends before its end marker.
    """
    frame = exif = b""
    profile = list[tuple[int, bytes]]()
    position, last_scan_end = 2, 0
    while True:
        position = _after_marker(data, position)
        marker = data[position - 1]
        if marker == _EOI:
            break
        if marker in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(data[position : position + 2])
        content = data[position + 2 : position + length]
        position += max(length, 2)
        if marker in _FRAMES and not frame:
            frame = content
        elif marker == _APP1 and content.startswith(_EXIF) and not exif:
            exif = content[len(_EXIF) :]
        elif marker == _APP2 and content.startswith(_ICC) and len(content) > len(_ICC) + 2:
            profile.append((content[len(_ICC)], content[len(_ICC) + 2 :]))
        elif marker == _SOS:
            found = _SCAN_END.search(data, position)
            if found is None:
                raise ImageError(UNDECODABLE, "truncated: the JPEG has no end marker")
            position = last_scan_end = found.start()
    if len(frame) < 6 or not last_scan_end:
        raise ImageError(UNDECODABLE, "the JPEG has no frame header or no scan")
    return JpegSegments(
        width=int.from_bytes(frame[3:5]),
        height=int.from_bytes(frame[1:3]),
        num_components=frame[5],
        exif=exif,
        icc_profile=b"".join(part for _, part in sorted(profile)),
        last_scan_end=last_scan_end,
        end=position,
    )


def _after_marker(data: bytes, position: int) -> int:
    """Return the offset behind the next marker; fill bytes may precede it."""
    found = _MARKER.search(data, position)
    if found is None:
        raise ImageError(UNDECODABLE, "truncated: the JPEG has no end marker")
    return found.end()
