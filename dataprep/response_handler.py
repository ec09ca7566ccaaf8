"""The connection of the HTTP client: aiohttp's, with bounds and tolerance for a response's head.

aiohttp bounds single header lines, not a head as a whole, and its parser refuses a repeated
Content-Length even if the values are equal, which RFC 9110 (8.6) lets a client accept. A head is
therefore collected here before aiohttp parses it.
"""

import asyncio
import re
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

MAX_HEAD_BYTES: Final = 256 << 10
"Largest head of a response, as in browsers; also the largest run of bytes that are no body."
_END: Final = re.compile(rb"\r?\n\r?\n")
_LENGTH: Final = re.compile(rb"\r?\ncontent-length[ \t]*:([^\r\n]*)", re.IGNORECASE)
_STATUS_LINE: Final = b"HTTP/"
_INTERIM: Final = re.compile(rb"HTTP/\d\.\d 1(?!01)\d\d")
"An answer before the final one, such as 103 Early Hints."


class BoundedResponseHandler(ResponseHandler):
    """Collects the head of each response, then passes the bytes on to aiohttp."""

    def set_response_params(self, **params: Any) -> None:
        """See aiohttp: called before each request of the connection."""
        self._head: bytes | None = b""
        "What has arrived of the head; None once it is complete."
        self._num_other_bytes = 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        if getattr(self, "_head", None) is None:
            self._receive_body(data)
            return
        self._head = (self._head or b"") + data
        while self._head is not None:
            head = self._head
            end = _END.search(head)
            if len(head) >= len(_STATUS_LINE) and not head.startswith(_STATUS_LINE):
                self._head = None  # aiohttp says why this is not a response
                self._receive_body(head)
            elif (end.end() if end else len(head)) > MAX_HEAD_BYTES:
                self._fail(f"the head exceeds {MAX_HEAD_BYTES} bytes")
                return
            elif end is None:
                self.start_timeout()  # of the next piece
                return
            elif _INTERIM.match(head):
                self._num_other_bytes += end.end()
                if self._num_other_bytes > MAX_HEAD_BYTES:
                    self._fail(f"the answers before the final one exceed {MAX_HEAD_BYTES} bytes")
                    return
                self._head = head[end.end() :]
                super().data_received(head[: end.end()])
            else:
                self._head = None
                self._receive_body(with_one_length(head, end.end()))

    def _receive_body(self, data: bytes) -> None:
        payload = self._payload
        before = payload.total_bytes if payload else 0
        super().data_received(data)
        payload = self._payload or payload
        error = self.exception()
        if error is not None and payload is not None and payload.exception() is None:
            # The parser refused the body; aiohttp would let its reader wait for the timeout.
            payload.set_exception(error)
        after = payload.total_bytes if payload else 0
        self._num_other_bytes = 0 if after > before else self._num_other_bytes + len(data)
        if self._num_other_bytes > 2 * MAX_HEAD_BYTES:
            self._fail(f"more than {2 * MAX_HEAD_BYTES} bytes between two pieces of the body")

    def _fail(self, message: str) -> None:
        error = HttpProcessingError(message=message)
        if self._payload is not None:
            self._payload.set_exception(error)
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()


def with_one_length(data: bytes, end: int) -> bytes:
    """Return a response with one Content-Length if the head, up to ``end``, has equal ones."""
    lengths = list(_LENGTH.finditer(data, 0, end))
    values = {value.strip() for found in lengths for value in found[1].split(b",")}
    if len(values) != 1 or (len(lengths) == 1 and b"," not in lengths[0][1]):
        return data
    head = _LENGTH.sub(b"", data[:end])
    first, line_end, rest = head.partition(b"\n")
    return first + line_end + b"Content-Length: " + values.pop() + b"\r\n" + rest + data[end:]


class BoundedConnector(aiohttp.TCPConnector):
    """A connector whose connections are :class:`BoundedResponseHandler`."""

    def __init__(self, **options: Any) -> None:
        """Take the options of :class:`aiohttp.TCPConnector`."""
        super().__init__(**options)
        loop = asyncio.get_running_loop()
        self._factory = partial(BoundedResponseHandler, loop=loop)  # type: ignore[assignment]
