"""A process that makes crops for another program: ``python -m dataprep.crop_process 3 4``.

The arguments are a connected socket and the file of the memory that both programs map. A message
in is (request, number of the buffer's first byte, bytes of the buffer, sample ids, ends of the
JPEGs in the buffer); the buffer holds first the room for the crops of each size, then the JPEGs.
The answer is None, or the exception that was raised. None is also sent once all code is loaded.

Requests are pure, so a process can be lost at any time. It ends when the socket is closed, which
the system does however the other program ends. Signals that reach all processes of a terminal or a
job leave the decision to that program.
"""

import math
import mmap
import os
import signal
import sys
from multiprocessing.connection import Connection

import cv2
import numpy as np

from dataprep.crop_batches import CropRequest, Pixels, crop_shapes


def main() -> None:
    """Answer requests until the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)  # the other program has a process for each of its cores
    connection, file = Connection(int(sys.argv[1])), int(sys.argv[2])
    buffers: dict[int, Pixels] = {}
    try:
        connection.send(None)
        while True:
            request, first, size, sample_ids, ends = connection.recv()
            if first not in buffers:
                buffers[first] = np.frombuffer(mmap.mmap(file, size, offset=first), np.uint8)
            connection.send(_answer(request, buffers[first], sample_ids, ends))
    except (EOFError, OSError):
        os._exit(0)  # the other program has ended; nothing is left to be cleaned up


def split(buffer: Pixels, request: CropRequest, number: int) -> tuple[list[Pixels], Pixels]:
    """Return the arrays of crops of ``number`` images in a buffer, and the bytes behind them."""
    crops = []
    for shape in crop_shapes(request, number):
        size = math.prod(shape)
        crops.append(buffer[:size].reshape(shape))
        buffer = buffer[size:]
    return crops, buffer


def _answer(
    request: CropRequest, buffer: Pixels, sample_ids: list[str], ends: list[int]
) -> Exception | None:
    crops, behind = split(buffer, request, len(sample_ids))
    jpegs = behind.data
    starts = [0, *ends[:-1]]
    try:
        request.cut(
            (
                (jpegs[start:end], sample_id)
                for start, end, sample_id in zip(starts, ends, sample_ids, strict=True)
            ),
            crops,
        )
    except Exception as error:
        return error
    return None


if __name__ == "__main__":
    main()
