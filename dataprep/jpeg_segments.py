"""The segments of a JPEG file (ITU-T T.81, annex B): its size, its metadata, its scans, its end.

Only what is needed for the pixels decides: a segment of metadata that cannot be read is ignored.
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from dataprep.image_errors import UNDECODABLE, UNSUPPORTED_FORMAT, ImageError

SOI: Final = b"\xff\xd8\xff"
_MARKER: Final = re.compile(rb"\xff[^\x00\xff]")
"Neither a stuffed byte of a scan's data nor a fill byte."
_RESTARTS: Final = range(0xD0, 0xD8)
"Markers that may stand within the data of a scan."
_EOI: Final = 0xD9
_SOS: Final = 0xDA
_APP1: Final = 0xE1
_APP2: Final = 0xE2
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_DECODED_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"Sequential and progressive, with Huffman or arithmetic coding."
_PROGRESSIVE_FRAMES: Final = frozenset({0xC2, 0xCA})
_OTHER_FRAMES: Final = {
    **dict.fromkeys((0xC3, 0xCB), "lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG"),
    0xF7: "JPEG-LS",
}
_ALL_COEFFICIENTS: Final = (1 << 64) - 1
_MIN_GROWTH: Final = 1.3
"Least growth of a refining scan over the one before, below which the last scan may be cut."
_MAX_SCANS: Final = 100
"Largest number of scans. Each costs a pass over the whole image; encoders write about ten."
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
    scan_ends: tuple[int, ...]
    "Offset of the marker that ends each scan."
    may_lack_data: bool
    "Whether the scans leave doubt that they give all coefficients their full precision."
    end: int
    "Offset behind the end marker; other data may follow, such as further images of an MPO."


def read_segments(data: bytes) -> JpegSegments:
    """Walk the segments of the first image of a JPEG file.

    Raises:
        ImageError: the file has no frame header, ends before its end marker, lacks restart
            markers, or is of a kind that no decoder here reads.
    """
    frame = exif = b""
    profile, scans, scan_ends = list[tuple[int, bytes]](), list[_Scan](), list[int]()
    position, is_progressive = 2, False
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
        if name := _OTHER_FRAMES.get(marker):
            raise ImageError(UNSUPPORTED_FORMAT, f"{name} is not decoded")
        if marker in _DECODED_FRAMES and not frame:
            frame, is_progressive = content, marker in _PROGRESSIVE_FRAMES
        elif marker == _APP1 and content.startswith(_EXIF) and not exif:
            exif = content[len(_EXIF) :]
        elif marker == _APP2 and content.startswith(_ICC) and len(content) > len(_ICC) + 2:
            profile.append((content[len(_ICC)], content[len(_ICC) + 2 :]))
        elif marker == _SOS:
            start, position = position, _scan_end(data, position)
            scans.append(_read_scan(content, position - start))
            scan_ends.append(position)
            if len(scan_ends) > _MAX_SCANS:
                raise ImageError(UNDECODABLE, f"the JPEG has more than {_MAX_SCANS} scans")
    if len(frame) < 6 or not scan_ends:
        raise ImageError(UNDECODABLE, "the JPEG has no frame header or no scan")
    if frame[0] != 8:
        raise ImageError(UNSUPPORTED_FORMAT, f"JPEG with {frame[0]} bits per channel")
    return JpegSegments(
        width=int.from_bytes(frame[3:5]),
        height=int.from_bytes(frame[1:3]),
        num_components=frame[5],
        exif=exif,
        icc_profile=b"".join(part for _, part in sorted(profile)),
        scan_ends=tuple(scan_ends),
        may_lack_data=_may_lack_data(frame, scans, is_progressive),
        end=position,
    )


def _after_marker(data: bytes, position: int) -> int:
    """Return the offset behind the next marker; fill bytes may precede it."""
    found = _MARKER.search(data, position)
    if found is None:
        raise ImageError(UNDECODABLE, "truncated: the JPEG has no end marker")
    return found.end()


def _scan_end(data: bytes, start: int) -> int:
    """Return the offset of the marker that ends a scan, whose restart markers must be complete."""
    is_complete = True
    for number, found in enumerate(_MARKER.finditer(data, start)):
        position = found.start()
        marker = data[position + 1]
        if marker not in _RESTARTS:
            if is_complete:
                return position
            raise ImageError(UNDECODABLE, "part of the JPEG's scan is missing")
        is_complete = is_complete and marker == 0xD0 + number % 8
    raise ImageError(UNDECODABLE, "truncated: the JPEG has no end marker")


def _read_scan(header: bytes, num_bytes: int) -> "_Scan":
    """Read a scan's header (T.81, B.2.3), which may be cut."""
    number = header[0] if header else 0
    fields = header[1 + 2 * number :].ljust(3, b"\0")
    components = header[1 : 1 + 2 * number : 2]
    return _Scan(components, fields[0], fields[1], fields[2] >> 4, fields[2] & 15, num_bytes)


def _may_lack_data(frame: bytes, scans: list["_Scan"], is_progressive: bool) -> bool:
    """Return whether a part of the scans may be missing, judged by their headers and sizes.

    The last scan of a progressive JPEG may itself be cut. Its size tells, as it usually refines
    what the scan before it in the same component and band has refined by one bit less.

    Raises:
        ImageError: a component has no scan.
    """
    components = frame[6::3][: frame[5]]
    given = dict.fromkeys(components, 0)
    seen = set[int]()
    for scan in scans:
        seen.update(scan.components)
        if scan.bit == 0 and scan.first <= scan.last < 64:
            band = (2 << scan.last) - (1 << scan.first)
            given |= {each: given.get(each, 0) | band for each in scan.components}
    if not seen.issuperset(components):
        raise ImageError(UNDECODABLE, "truncated: a component of the JPEG has no scan")
    if not is_progressive:
        return len(scans) > 1
    if any(given[each] != _ALL_COEFFICIENTS for each in components):
        return True
    end = scans[-1]
    earlier = [scan.num_bytes for scan in scans if scan.is_refined_by(end)]
    return not earlier or end.num_bytes < _MIN_GROWTH * earlier[0]


class _Scan(NamedTuple):
    components: bytes
    first: int
    "First coefficient of the band, in zigzag order."
    last: int
    bit_before: int
    "Lowest bit that earlier scans gave; 0 in the first scan of a band."
    bit: int
    "Lowest bit that this scan gives."
    num_bytes: int

    def is_refined_by(self, later: "_Scan") -> bool:
        """Return whether another scan gives the next bit of what this one refines."""
        return self.bit_before > 0 and self[:3] == later[:3] and self.bit == later.bit_before
