"""Boxes of an AVIF file (ISO 23000-22, ISO 14496-12), as far as decoders need help with them."""

import re
from typing import Final

_EXIF_ENTRY: Final = re.compile(rb"(infe.{8,10}?)Exif", re.DOTALL)
_HIDDEN: Final = rb"\1skip"
_HEAD_BYTES: Final = 1 << 16


def still_avif(data: bytes) -> bytes:
    """Return an AVIF file whose still image alone is decoded, without its EXIF data.

    The orientation of an AVIF lies in its boxes, and its EXIF data, if damaged, makes decoders
    refuse the file. A sequence has a still image, its first frame, unless the file says otherwise.
    """
    head = _EXIF_ENTRY.sub(_HIDDEN, data[:_HEAD_BYTES])
    if b"pitm" in head:  # the item that is the still image
        head = head[:8] + b"avif" + head[12:]
    return head + data[_HEAD_BYTES:]
